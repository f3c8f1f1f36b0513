"""A federation on this machine, its processes killed at random: what comes out is checked.

Every party is a process of its own (``repro secagg serve`` and ``join``), over mutual TLS on
loopback. At random moments one is killed (SIGKILL) and started again a moment later. Afterwards
every sum is compared with that of the hospitals named in it, and all logs are audited together.

    python -m tests.secagg.deploy.soak --rounds 100
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.certificates import self_signed
from repro.secagg.deploy.directory import FederationDirectory, Settings
from repro.secagg.deploy.keystore import create_identity, public_path, write_private
from repro.secagg.deploy.transcript import read_log
from repro.secagg.rounds import SESSION_BYTES
from tests import forked

HOST = "127.0.0.1"
_STARTING = 60.0  # seconds beyond which a round that does not come is a failure of the soak


@dataclass(frozen=True)
class Plan:
    """hospitals, threshold, neighbours, dimension: the federation's; rounds: sums to reach.

    kills: mean number of processes killed per sum, so that a slow machine is not killed to a
    standstill; server_share: which part of them are the
    server's; opening, phase: seconds, see ``Limits``; seed: of vectors, victims and moments.
    """

    rounds: int
    hospitals: int = 6
    threshold: int = 4
    neighbours: int = 5
    dimension: int = 1000
    kills: float = 1.0
    server_share: float = 0.2
    opening: float = 4.0
    phase: float = 10.0
    seed: int = 0


@dataclass
class Outcome:
    """What happened. sums: rounds that gave one; numbers: begun by the server; attendance:
    survivors -> how many sums had that many; cut_short: parts in a round, of any party, that were
    begun and not ended; worst: largest error ÷ its bound; messages, compared, opened: see
    ``Audit``; findings: one line for each thing that is wrong."""

    sums: int = 0
    numbers: int = 0
    hospital_kills: int = 0
    server_kills: int = 0
    cut_short: int = 0
    seconds: float = 0.0
    attendance: dict[int, int] = field(default_factory=dict)
    worst: float = 0.0
    messages: int = 0
    compared: int = 0
    opened: int = 0
    findings: list[str] = field(default_factory=list)


class Federation:
    """Its folder and its processes. folder: empty or not there yet."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.results = folder / "server" / "results"
        with socket.create_server((HOST, 0)) as free:
            self._port = free.getsockname()[1]
        self._processes: dict[str, forked.Popen] = {}
        self._logs = {name: open(folder / f"{name}.err", "ab") for name in self._set_up()}  # noqa: SIM115

    @property
    def names(self) -> list[str]:
        return ["server", *(f"hospital-{one}" for one in range(self.plan.hospitals))]

    def vector(self, hospital: int) -> np.ndarray:
        """(dimension,) float32."""
        normal = np.random.default_rng((self.plan.seed, hospital))
        return (0.1 * normal.standard_normal(self.plan.dimension)).astype(np.float32)

    def weight(self, hospital: int) -> int:
        return 100 + 17 * hospital

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "repro", "secagg", *self._words(name)]
        self._processes[name] = forked.Popen(
            command, stdout=forked.DEVNULL, stderr=self._logs[name]
        )

    def running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for name in list(self._processes):
            self.kill(name)
        for log in self._logs.values():
            log.close()

    def transcripts(self) -> list[Path]:
        return [
            self.folder / name / "transcript.log"
            for name in self.names
            if (self.folder / name / "transcript.log").exists()
        ]

    def _set_up(self) -> list[str]:
        """Keys, certificates, directory, vectors; the parties' names."""
        plan, folder = self.plan, self.folder
        operator = create_identity(folder / "operator.key")
        public, certificates = {}, {}
        for name in self.names:
            (folder / name).mkdir(parents=True)
            public[name] = create_identity(folder / name / "identity.key").public
            certificates[name], key = self_signed([HOST])
            write_whole(folder / name / "tls.pem", certificates[name])
            write_private(folder / name / "tls.key", key)
        write_whole(
            folder / "hospitals.pem", b"".join(certificates[name] for name in self.names[1:])
        )
        directory = FederationDirectory(
            operator=operator.public,
            serial=1,
            session=secrets.token_bytes(SESSION_BYTES),
            server=public["server"],
            hospitals={one: public[f"hospital-{one}"] for one in range(plan.hospitals)},
            settings=Settings(plan.threshold, plan.neighbours, plan.dimension, max_weight=1000),
        )
        directory.write(folder / "directory.json", operator)
        for one in range(plan.hospitals):
            np.save(folder / f"hospital-{one}" / "vector.npy", self.vector(one))
        return self.names

    def _words(self, name: str) -> list[str]:
        folder, own = self.folder, self.folder / name
        operator = public_path(folder / "operator.key")
        options: dict[str, object] = {
            "key": own / "identity.key",
            "directory": folder / "directory.json",
            "operator": operator,
            "state": own,
            "missed": 10 * self.plan.rounds,
            "tls-certificate": own / "tls.pem",
            "tls-key": own / "tls.key",
        }
        if name == "server":
            options |= {
                "results": self.results,
                "host": HOST,
                "port": self._port,
                "tls-hospitals": folder / "hospitals.pem",
                "opening": self.plan.opening,
                "phase": self.plan.phase,
                "pause": 0.05,
            }
        else:
            options |= {
                "server": f"{HOST}:{self._port}",
                "tls-authorities": folder / "server" / "tls.pem",
                "vector": own / "vector.npy",
                "weight": self.weight(int(name.removeprefix("hospital-"))),
                "wait": self.plan.opening + self.plan.phase,
            }
        words = ["serve" if name == "server" else "join"]
        for option, value in options.items():
            words += [f"--{option}", str(value)]
        return words


def soak(folder: Path, plan: Plan, report: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run until ``plan.rounds`` sums are there, then check everything.

    Killing begins after the first sum. Raises InputError for a folder that is not empty. A
    federation that stands still for minutes ends the soak with a finding.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError("folder", str(folder), "an empty folder, or none")
    folder.mkdir(parents=True, exist_ok=True)
    federation, outcome, started = Federation(folder, plan), Outcome(), time.monotonic()
    try:
        _run(federation, outcome, report)
    finally:
        federation.stop()
    outcome.seconds = time.monotonic() - started
    _check_sums(federation, outcome)
    _check_logs(federation.transcripts(), outcome)
    return outcome


def _run(federation: Federation, outcome: Outcome, report: Callable[[str], None]) -> None:
    plan, dice = federation.plan, random.Random(federation.plan.seed)
    for name in federation.names:
        federation.start(name)
    due: dict[str, float] = {}  # killed -> when to start it again
    done, begun = 0, time.monotonic()
    progress = begun
    next_kill = float("inf")  # until the federation has shown that it works
    while done < plan.rounds:
        time.sleep(0.02)
        now = time.monotonic()
        for name in [name for name, moment in due.items() if now > moment]:
            del due[name]
            federation.start(name)
        dead = [n for n in federation.names if n not in due and not federation.running(n)]
        if dead:
            outcome.findings.append(f"{dead[0]} ended by itself: see {dead[0]}.err")
            return
        if now > next_kill:
            next_kill = now + (now - begun) / done * dice.expovariate(plan.kills)
            _kill_one(federation, outcome, due, dice)
        ready = len(list(federation.results.glob("*/*.json")))
        if ready > done:
            if done == 0 and plan.kills > 0:
                next_kill = now + dice.uniform(0.0, now - begun)
            done, progress = ready, now
            if done % 10 == 0 or done == plan.rounds:
                kills = outcome.hospital_kills + outcome.server_kills
                report(f"{done} of {plan.rounds} sums, {kills} kills")
        elif now > progress + _STARTING + 2 * (plan.opening + plan.phase):
            outcome.findings.append(f"no sum for {now - progress:.0f} s")
            return


def _kill_one(
    federation: Federation, outcome: Outcome, due: dict[str, float], dice: random.Random
) -> None:
    """One victim, never so many at a time that no round could be completed."""
    hospitals = [name for name in federation.names[1:] if name not in due]
    down = federation.plan.hospitals - len(hospitals)
    spare = federation.plan.hospitals - federation.plan.threshold
    if dice.random() < federation.plan.server_share:
        if "server" in due:
            return
        victim, outcome.server_kills = "server", outcome.server_kills + 1
    elif down < spare:
        victim, outcome.hospital_kills = dice.choice(hospitals), outcome.hospital_kills + 1
    else:
        return
    federation.kill(victim)
    due[victim] = time.monotonic() + dice.uniform(0.0, 1.0)


def _check_sums(federation: Federation, outcome: Outcome) -> None:
    """Each mean against its survivors' own, in float64; an oracle without the protocol."""
    attendance: Counter[int] = Counter()
    for path in sorted(federation.results.glob("*/*.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        survivors = summary["survivors"]
        weights = np.array([federation.weight(one) for one in survivors], dtype=np.float64)
        vectors = np.stack([federation.vector(one).astype(np.float64) for one in survivors])
        truth = weights @ vectors / weights.sum()
        error = float(np.abs(np.load(path.with_suffix(".npy")) - truth).max())
        outcome.worst = max(outcome.worst, error / summary["error_bound"])
        if error > summary["error_bound"] or summary["weight"] != int(weights.sum()):
            outcome.findings.append(f"{path.name}: not the sum of {survivors}")
        attendance[len(survivors)] += 1
    outcome.sums, outcome.attendance = sum(attendance.values()), dict(sorted(attendance.items()))


def _check_logs(paths: Sequence[Path], outcome: Outcome) -> None:
    logs = [read_log(path) for path in paths]
    found = audit(logs)
    outcome.findings += found.findings
    outcome.numbers, outcome.messages = found.rounds, found.messages
    outcome.compared, outcome.opened = found.compared, found.opened
    # Who is killed within a round, or left alone in it, has begun one and not ended it.
    for log in logs:
        begun = sum(entry["event"] == "begun" for entry in log.entries)
        ended = sum(entry["event"] in ("done", "sum", "failed") for entry in log.entries)
        outcome.cut_short += max(begun - ended, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kills", type=float, default=1.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        print(soak(Path(temporary), Plan(asked.rounds, kills=asked.kills), print))
