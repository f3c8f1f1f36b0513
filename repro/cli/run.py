"""``repro run ARM``: one run, from the arm's name to its record."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.data import Dataset, load_dataset
from repro.errors import InputError
from repro.runs.arm import Arm
from repro.runs.arms import ARMS, get_arm
from repro.runs.composition import compose, precision_of
from repro.runs.guarantees import (
    promise,
    protected_unit,
    target_epsilon,
    total_epsilon,
    warnings_of,
)
from repro.runs.profiles import PROFILES, Profile, get_profile
from repro.runs.provenance import code_version
from repro.runs.record import RunRecord
from repro.runs.settings import RunSettings
from repro.runs.store import RunStore

if TYPE_CHECKING:
    from repro.federated.parallel.ranks import Ranks

EXIT_RANKS_LOST = 4


def configure(parser: OneLineParser) -> None:
    parser.explain(
        arms={arm.name: arm.description for arm in ARMS.values()},
        profiles={profile.name: profile.summary for profile in PROFILES.values()},
    )
    add = parser.add_argument
    add("arm", metavar="ARM", help="see below")
    add("--hospitals", metavar="K", type=int, default=10, help="default 10")
    seeded = "reproducible, NOT private noise; without it keys come from the operating system"
    add("--seed", metavar="S", type=int, help=seeded)
    add_common(parser)
    add("--rounds", metavar="R", type=int, help="default: the profile's")
    longer = (
        "go on R rounds after a finished run, at the same noise: ε grows and is restated; the "
        "record is then of the longer run, which the tables of the matrix leave out"
    )
    add("--extend", metavar="R", type=int, default=0, help=longer)
    bits = "of secure aggregation: 31, or 61 for finer steps at twice the bytes (default 31)"
    add("--field-bits", metavar="B", type=int, choices=(31, 61), default=31, help=bits)
    add_precision(parser)
    add("--quiet", action="store_true", help="no progress bar")


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that every training command shares."""
    add = parser.add_argument
    profiles = f"{', '.join(PROFILES)} (default: paper where CUDA is at hand, else quick)"
    add("--profile", metavar="P", help=profiles)
    add_data(parser)
    add("--out", default="reproduction", metavar="DIR", help="run store (default: reproduction)")
    add_device(parser)


def add_data(parser: argparse.ArgumentParser) -> None:
    auto = "auto: BLOODMNIST_NPZ, MedMNIST's cache or download, else the synthetic stand-in"
    parser.add_argument("--data", default="auto", metavar="auto|synthetic|FILE", help=auto)
    add_dataset(parser)


def add_dataset(parser: argparse.ArgumentParser) -> None:
    known = "a 2D MedMNIST set (bloodmnist)"
    parser.add_argument("--dataset", default="bloodmnist", metavar="NAME", help=known)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: CUDA if any)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    choices = (
        "float32, bf16-mixed (bfloat16 convolutions and products; parameters, updates and "
        "evaluation stay float32), or auto: bf16-mixed for arms without noise where this machine "
        "is fast in it (default: the profile's)"
    )
    parser.add_argument("--precision", metavar="P", help=choices)


def chosen_precision(arguments: argparse.Namespace, profile: Profile, arm: Arm) -> str:
    """What the run trains in; where ``auto`` was measured, one line on stderr says the result."""

    def fast() -> bool:
        import torch

        from repro.models.mixed_precision import FAST, speed_of_bfloat16

        device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
        times = speed_of_bfloat16(device)
        taken = "bf16-mixed" if times >= FAST else "float32"
        print(
            f"repro: a bfloat16 convolution takes 1/{times:.1f} of float32's time here: {taken}",
            file=sys.stderr,
        )
        return times >= FAST

    return precision_of(arm, profile, arguments.precision, fast)


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.federated.parallel.distributed import RanksLost, SaidElsewhere, join

    try:
        with join() as ranks:
            record = _train(arguments, ranks)
            shown = ranks.first
    except RanksLost as loss:
        print(f"repro run: {loss}", file=sys.stderr)
        return Outcome({}, "", status=EXIT_RANKS_LOST, shown=False)
    except SaidElsewhere as ended:
        return Outcome({}, "", status=ended.status, shown=False)
    return Outcome(record.as_dict(), describe(record, Path(arguments.out)), shown=shown)


def _train(arguments: argparse.Namespace, ranks: Ranks) -> RunRecord:
    from repro.federated import execute as run_module
    from repro.federated.parallel import preflight as checks

    def prepare() -> tuple[RunSettings, Dataset, RunStore, str | None]:
        profile = get_profile(arguments.profile)
        settings = compose(
            get_arm(arguments.arm),
            profile,
            hospitals=arguments.hospitals,
            seed=arguments.seed,
            rounds=arguments.rounds,
            precision=chosen_precision(arguments, profile, get_arm(arguments.arm)),
        )
        if settings.secagg is not None:
            secagg = replace(settings.secagg, field_bits=arguments.field_bits)
            settings = replace(settings, secagg=secagg)
        elif arguments.field_bits != 31:
            raise InputError("field-bits", arguments.field_bits, "31 without secure aggregation")
        if not 0 <= arguments.extend <= 1_000_000:
            raise InputError("extend", arguments.extend, "an integer from 0 to 1,000,000")
        store = RunStore(arguments.out)
        device = checks.check_device(ranks.device(arguments.device))
        dataset = load_dataset(arguments.data, arguments.dataset)
        checks.check_synthetic(dataset, profile, arguments.data)
        checks.check_ranks(settings, ranks)
        return settings, dataset, store, device

    settings, dataset, store, device = ranks.agree(
        prepare, lambda ready: _facts(ready[0], ready[1], arguments.extend)
    )
    quiet = arguments.quiet or (arguments.json and not sys.stderr.isatty())
    return run_module.execute(
        settings, dataset, store, device=device, quiet=quiet, ranks=ranks, extend=arguments.extend
    )


@dataclass(frozen=True, repr=False)
class _Unshown:
    """Compared between ranks and never printed."""

    value: str

    def __repr__(self) -> str:
        return "‹not shown of a private run›"


def _facts(settings: RunSettings, dataset: Dataset, extend: int) -> dict[str, Any]:
    """What has to be the same on every rank, for one run to come out."""
    from repro.federated.recording import run_name

    data = dataset.fingerprint
    return {
        "code": "{version}, sources {fingerprint}".format(**code_version()),
        "data": _Unshown(data) if settings.private else data,
        "settings": run_name(settings, dataset),
        "extend": extend,
    }


def _privacy_first(record: RunRecord) -> list[str]:
    """What the arm promises and what this run's ledger makes of it; the views stand below."""
    unit, target = protected_unit(record.arm), target_epsilon(record.arm)
    if unit is None:
        return ["  no privacy: nothing is promised (ε = ∞)"]
    total = total_epsilon(record, unit)
    found = f"ε = {total:.4g} for a {unit} that contributes or not"
    if target is None:
        return [f"  privacy     {found}"]
    return [f"  promised    {promise(record.arm)}; by this run's ledger {found}"]


def describe(record: RunRecord, out: Path) -> str:
    """A finished run in a few lines."""
    lines = [
        f"{record.arm}, {record.hospitals} hospitals, seed {record.seed}, {record.profile}:",
        *_privacy_first(record),
        f"  last round  {100 * record.final_accuracy:6.2f} %  (round {record.rounds})",
        f"  best round  {100 * record.best_accuracy:6.2f} %  (round {record.best_round})",
    ]
    lines += [
        f"  ε = {entry['epsilon_total']:.4g} at δ = {entry['delta']:g} per {entry['unit']}, "
        f"{entry['relation']}{' (zero-out)' * bool(entry.get('equivalent'))}, {entry['view']}"
        for entry in record.privacy
    ]
    lines += [f"  {warning}" for warning in warnings_of([record])]
    if record.privacy and record.diagnostics:
        lines.append("  the record's `diagnostics` are counts without noise, which no ε covers")
    lines += [f"  {record.dataset['caption']}", f"  record: {out / 'runs' / record.run_id}"]
    return "\n".join(lines)
