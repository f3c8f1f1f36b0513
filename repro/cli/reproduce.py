"""``repro reproduce``: every run of a profile, every table and figure, the report, the verdicts.

Whatever is finished is kept: only missing runs are trained and only what changed is redrawn.
Exit status 1: a number of ours left its expected band.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from repro.cli.output import Outcome, say
from repro.cli.run import add_common, add_precision, chosen_precision
from repro.errors import InputError
from repro.files import write_whole
from repro.formatting import to_json
from repro.runs.arm import Arm
from repro.runs.arms import ARMS, get_arm
from repro.runs.profiles import Profile, get_profile

EXIT_OUT_OF_BAND = 1


def configure(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    add_precision(parser)
    add = parser.add_argument
    add("--arms", metavar="A,B", help="only these arms (default: the profile's, else all)")
    add("--seeds", metavar="S,T", help="these seeds instead of the profile's")
    add("--hospitals", metavar="K,L", help="these K instead of 10,20")


def execute(arguments: argparse.Namespace) -> Outcome:
    profile = get_profile(arguments.profile)
    arms = _arms(arguments.arms, profile)
    seeds = integers("seeds", arguments.seeds) or profile.seeds
    hospitals = integers("hospitals", arguments.hospitals) or profile.hospitals
    out = Path(arguments.out)

    from repro.data import load_dataset
    from repro.federated.parallel.campaign import matrix, run_all
    from repro.federated.parallel.preflight import check_device, check_synthetic
    from repro.runs.store import RunStore

    store = RunStore(out)
    device = check_device(arguments.device)
    precision = {arm.name: chosen_precision(arguments, profile, arm) for arm in arms}
    runs = matrix(profile, arms, hospitals, seeds, precision)
    dataset = load_dataset(arguments.data, arguments.dataset)
    check_synthetic(dataset, profile, arguments.data)
    say(f"profile {profile.name}: {profile.summary}\n{dataset.caption()}")
    if not (arguments.arms or profile.arms):  # said when nothing can be refused any more
        missing = {arm.missing for arm in ARMS.values() if arm.missing}
        for one in sorted(missing):
            say(f"not run: {one}")
    _write_partitions(arguments, profile, out)
    _write_models(out)
    run_all(runs, dataset, store, device=device)
    return _draw(out, profile, dataset.fingerprint)


def _arms(text: str | None, profile: Profile) -> list[Arm]:
    """Those asked for, the profile's, or all that can run here."""
    if text or profile.arms:
        return [get_arm(name) for name in (text.split(",") if text else profile.arms)]
    return [arm for arm in ARMS.values() if not arm.missing]


def integers(field: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(field, text, "whole numbers with commas between") from None


def _write_partitions(arguments: argparse.Namespace, profile: Profile, out: Path) -> None:
    """The hospitals of the whole train split, for the figures: ``OUT/partition/kK.json``."""
    from repro.cli import OneLineParser, partition

    for count in profile.hospitals:
        parser = OneLineParser()
        partition.configure(parser)
        words = ["--hospitals", str(count), "--data", arguments.data]
        outcome = partition.execute(parser.parse_args([*words, "--dataset", arguments.dataset]))
        write_whole(out / "partition" / f"k{count}.json", to_json(outcome.data) + "\n")


def _write_models(out: Path) -> None:
    """Table 5 is counted on the modules themselves, once: ``OUT/models.json``."""
    if (out / "models.json").exists():
        return
    from repro.models.compare import compare

    write_whole(out / "models.json", to_json({"rows": compare()}) + "\n")


def _draw(out: Path, profile: Profile, fingerprint: str) -> Outcome:
    from repro.report.answer import answer
    from repro.report.content import write_report
    from repro.report.expected import check_expected
    from repro.report.sources import Sources
    from repro.report.verdicts import judge, verdict_lines

    say("drawing tables and figures")
    sources = Sources.of(out, profile=profile.name, fingerprint=fingerprint)
    paths = write_report(sources)
    verdicts = judge(sources)
    violations = check_expected(sources.evidence)
    text = "\n".join(
        [
            *verdict_lines(verdicts),
            *(f"LEFT ITS BAND: {violation}" for violation in violations),
            "",
            *(f"{i}. {line}" for i, line in enumerate(answer(sources, verdicts).short, start=1)),
            f"report: {paths[0]}",
        ]
    )
    data = {
        "path": str(paths[0]),
        "paths": [str(path) for path in paths],
        "profile": profile.name,
        "verdicts": [verdict.__dict__ for verdict in verdicts],
        "violations": [str(violation) for violation in violations],
    }
    return Outcome(data, text, EXIT_OUT_OF_BAND if violations else 0)
