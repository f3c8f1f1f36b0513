"""``repro secagg``: one secure aggregation of random vectors, with drop-outs where one says.

Its first word may be ``committee`` or a command of a deployed federation, see ``COMMANDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.errors import InputError
from repro.randomness import RootSeed

if TYPE_CHECKING:
    from repro.secagg import Contribution

EXIT_BELOW_THRESHOLD = 3
PHASES = ("advertise", "share", "verify", "masked", "consistency", "unmask")

# second word -> (module, suffix of its two functions, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "committee": (
        "repro.cli.secagg", "committee",
        "how likely chance places colluders and drop-outs badly",
    ),
    "keygen": (
        "repro.cli.secagg_files", "keygen",
        "make a party's long-term key, and a TLS certificate",
    ),
    "directory": (
        "repro.cli.secagg_files", "directory", "sign who takes part; rotate and revoke keys",
    ),
    "serve": ("repro.cli.secagg_parties", "serve", "be the server, round after round"),
    "join": ("repro.cli.secagg_parties", "join", "be a hospital, round after round"),
    "rotate": (
        "repro.cli.secagg_files", "rotate",
        "take a party's new key into use, with the state it has",
    ),
    "recover": (
        "repro.cli.secagg_files", "recover",
        "begin anew with a new key where a party's state is lost",
    ),
    "audit-log": (
        "repro.cli.secagg_files", "audit",
        "verify transcripts, alone and against each other",
    ),
}  # fmt: skip


def configure(parser: OneLineParser) -> None:
    parser.explain(commands={name: words[2] for name, words in COMMANDS.items()})
    add = parser.add_argument
    add("--hospitals", type=int, default=10, metavar="K", help="hospitals, 2 or more (%(default)s)")
    add("--dimension", type=int, default=1000, metavar="N", help="vector length (%(default)s)")
    add("--threshold", type=int, default=4, metavar="T", help="shares needed (%(default)s)")
    add("--neighbours", type=int, default=4, metavar="k", help="even, or K-1 (%(default)s)")
    lost = f"lose hospital ID before it sends in PHASE ({', '.join(PHASES)}); repeatable"
    add("--drop", action="append", default=[], metavar="PHASE:ID", help=lost)
    apart = "each hospital a process of its own, over TCP on loopback; kill -9 for --drop"
    add("--processes", action="store_true", help=apart)
    add("--seed", type=int, metavar="S", help="seed of vectors and rounding (else entropy)")
    clipped = "values clip at ±R (%(default)s)"
    add("--clip-range", type=float, default=8.0, metavar="R", help=clipped)
    add("--max-weight", type=int, default=10_000, metavar="W", help="weights' bound (%(default)s)")
    add("--field-bits", type=int, default=31, choices=(31, 61), help="field (%(default)s)")


def execute(arguments: argparse.Namespace) -> Outcome:
    drop = parse_drops(arguments.drop, arguments.hospitals)
    for name, least in (("hospitals", 2), ("dimension", 1)):
        if getattr(arguments, name) < least:
            raise InputError(name, getattr(arguments, name), f"at least {least}")
    given = arguments.seed
    seed = RootSeed.from_entropy() if given is None else RootSeed.from_user(given)
    return _aggregate(arguments, drop, seed)


def _aggregate(
    arguments: argparse.Namespace, drop: Mapping[str, set[int]], seed: RootSeed
) -> Outcome:
    from repro.secagg import Encoding, Field, Party, Round, RoundFailed, Traffic, run_round
    from repro.secagg.transport.loopback import run_on_loopback

    count = arguments.hospitals
    field = Field(arguments.field_bits)
    encoding = Encoding(field, count, arguments.clip_range, arguments.max_weight)
    party = Party(range(count))
    round_ = Round(
        directory=party.directory,
        session=party.session,
        number=1,
        threshold=arguments.threshold,
        neighbours=arguments.neighbours,
        encoding=encoding,
        length=arguments.dimension,
        model=bytes(32),
        training=bytes(32),
    )
    truth = _Truth(arguments, seed)
    lost = sorted(set().union(*drop.values()))
    traffic = Traffic()
    try:
        play = run_on_loopback if arguments.processes else run_round
        completed = play(party, round_, truth.contribution, drop=drop, traffic=traffic)
        decoded = encoding.decode(completed.total, len(completed.survivors))
    except RoundFailed as failure:
        data = {"ok": False, "survivors": [], "dropped": lost, "max_error": None}
        data |= {"reason": str(failure), "phase": failure.phase, **_costs(traffic)}
        return Outcome(data, f"no sum: {failure}", EXIT_BELOW_THRESHOLD)
    wanted = truth.mean(completed.survivors, arguments.clip_range)
    error = float(np.abs(decoded.mean - wanted).max())
    data = {
        "ok": bool(error <= decoded.max_error_bound),
        "survivors": list(completed.survivors),
        "dropped": lost,
        "max_error": error,
        "error_bound": decoded.max_error_bound,
        "clipped": decoded.clipped_count,
        "weight": decoded.weight,
        **_costs(traffic),
    }
    return Outcome(data, _text(data))


class _Truth:
    """The hospitals' vectors and weights, made again when they are needed."""

    def __init__(self, arguments: argparse.Namespace, seed: RootSeed) -> None:
        self._seed, self._dimension = seed, arguments.dimension
        self._max_weight = arguments.max_weight

    def vector(self, hospital: int) -> np.ndarray:
        normal = self._seed.numpy_generator("secagg demonstration vector", hospital)
        result: np.ndarray = (0.1 * normal.standard_normal(self._dimension)).astype(np.float32)
        return result

    def weight(self, hospital: int) -> int:
        uniform = self._seed.numpy_generator("secagg demonstration weight", hospital)
        return int(uniform.integers(1, min(2000, self._max_weight) + 1))

    def contribution(self, hospital: int) -> Contribution:
        from repro.secagg import Contribution

        key = self._seed.derive("secagg rounding", hospital, 1)
        return Contribution(self.vector(hospital), self.weight(hospital), key)

    def mean(self, survivors: tuple[int, ...], limit: float) -> np.ndarray:
        """Σ n·x / Σ n of the vectors clipped at ± limit, in float64."""
        total = np.zeros(self._dimension)
        for one in survivors:
            clipped = np.clip(self.vector(one), -np.float32(limit), np.float32(limit))
            total += self.weight(one) * clipped.astype(np.float64)
        return total / sum(self.weight(one) for one in survivors)


def parse_drops(drops: list[str], hospitals: int) -> dict[str, set[int]]:
    """``PHASE:ID`` … -> phase -> ids. Raises InputError for anything else."""
    lost: dict[str, set[int]] = {phase: set() for phase in PHASES}
    for drop in drops:
        phase, _, number = drop.partition(":")
        if phase not in PHASES or not (number.isascii() and number.isdigit()):
            raise InputError("drop", drop, f"PHASE:ID with a phase of {', '.join(PHASES)}")
        if int(number) >= hospitals:
            raise InputError("drop", drop, f"an id from 0 to {hospitals - 1}")
        lost[phase].add(int(number))
    return lost


def _costs(traffic: Any) -> dict[str, Any]:
    return {
        "bytes": {"up": traffic.up_bytes, "down": traffic.down_bytes},
        "seconds": {"hospitals": traffic.hospital_seconds, "server": traffic.server_seconds},
    }


def _text(data: Mapping[str, Any]) -> str:
    up = sum(data["bytes"]["up"].values())
    lines = [
        f"survivors    {len(data['survivors'])}: {' '.join(map(str, data['survivors']))}",
        f"dropped      {' '.join(map(str, data['dropped'])) or 'none'}",
        f"max error    {data['max_error']:.3g} (bound {data['error_bound']:.3g})",
        f"clipped      {data['clipped']} values",
        f"sent up      {up} bytes by all hospitals together",
        "",
        f"{'phase':<12} {'hospitals, ms':>14} {'server, ms':>11}",
    ]
    seconds = data["seconds"]
    lines += [
        f"{phase:<12} {1e3 * seconds['hospitals'][phase]:>14.2f} "
        f"{1e3 * seconds['server'][phase]:>11.2f}"
        for phase in PHASES
    ]
    return "\n".join(lines)


def configure_committee(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hospitals", type=int, default=10, metavar="K", help="hospitals (%(default)s)")
    add("--neighbours", type=int, default=4, metavar="k", help="even, or K-1 (%(default)s)")
    add("--threshold", type=int, default=4, metavar="T", help="shares needed (%(default)s)")
    add("--colluders", type=int, default=0, metavar="C", help="beside the server (%(default)s)")
    add("--drop-rate", type=float, default=0.0, metavar="D", help="lost, each alone (%(default)s)")
    add("--quorum", type=int, default=0, metavar="Q", help="confirmers needed (the usual number)")
    add("--rounds", type=int, default=1, metavar="N", help="in any of N rounds (%(default)s)")


def execute_committee(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg import committee_risk

    risk = committee_risk(
        arguments.hospitals,
        arguments.neighbours,
        arguments.threshold,
        arguments.colluders,
        arguments.drop_rate,
        quorum=arguments.quorum,
        rounds=arguments.rounds,
    )
    lines = [
        f"quorum                 {risk.quorum} of {risk.confirmer_count} confirmers",
        f"both secrets exposed   {risk.secrets:.3g}",
        f"two sets confirmed     {risk.confirmers:.3g}",
        f"graph in pieces        {risk.pieces:.3g}",
        f"privacy, any of these  {risk.privacy:.3g}",
        f"round lost             {risk.lost:.3g}",
    ]
    return Outcome(asdict(risk), "\n".join(lines))
