"""``repro ablate NAME``: change one decision of the setting, run, and draw the comparison."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.ablations import ABLATIONS, NAMES, get_ablation
from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.cli.reproduce import integers
from repro.cli.run import add_common
from repro.errors import InputError
from repro.progress import progress
from repro.runs.profiles import Profile, get_profile

if TYPE_CHECKING:
    from repro.ablations.base import Ablation

ALL = "all"


def configure(parser: OneLineParser) -> None:
    questions = {name: one.question for name, one in ABLATIONS.items()}
    parser.explain(ablations=questions | {ALL: "each of them, one after the other"})
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"see below; {ALL}: every one")
    parser.add_argument("--list", action="store_true", help="explain every ablation, run nothing")
    add_common(parser)
    parser.add_argument("--hospitals", metavar="K", type=int, default=10, help="default 10")
    parser.add_argument("--seeds", metavar="S,T", help="default: the profile's")


def execute(arguments: argparse.Namespace) -> Outcome:
    if arguments.list:
        return _explain(get_profile(arguments.profile or "quick"))
    chosen = _chosen(arguments.names)
    profile = get_profile(arguments.profile)
    seeds = integers("seeds", arguments.seeds)
    for ablation in chosen:
        ablation.variants(profile, arguments.hospitals)  # refuses impossible settings at once

    from repro.ablations.running import run_ablation
    from repro.data import load_dataset
    from repro.federated.parallel.preflight import check_device, check_synthetic
    from repro.report.ablation import draw_ablation
    from repro.runs.store import RunStore

    out = Path(arguments.out)
    store = RunStore(out)
    device = check_device(arguments.device)
    dataset = load_dataset(arguments.data, arguments.dataset)
    check_synthetic(dataset, profile, arguments.data)
    done = []
    for ablation in progress(chosen, desc="ablations", unit="ablation", quiet=len(chosen) == 1):
        cells, conclusion = run_ablation(
            ablation,
            profile,
            dataset,
            store,
            hospitals=arguments.hospitals,
            seeds=seeds or None,
            device=device,
        )
        # Drawn one by one, so that what is finished can be looked at while the rest is running.
        paths = draw_ablation(ablation, profile, cells, conclusion, out)
        done.append(
            {
                "name": ablation.name,
                "question": ablation.question,
                "paths": [str(path) for path in paths],
                "conclusion": conclusion.data if conclusion else None,
            }
        )
    return _outcome(done, profile)


def _chosen(names: Sequence[str]) -> list[Ablation]:
    """The named ablations, each once, in their own order where all are asked for."""
    if not names:
        raise InputError("ablation", "nothing", f"a NAME, {ALL}, or --list")
    return [get_ablation(name) for name in (NAMES if ALL in names else dict.fromkeys(names))]


def _outcome(done: list[dict[str, Any]], profile: Profile) -> Outcome:
    """``path`` and ``paths`` of everything; what a single ablation found stands at the top too."""
    paths = [path for one in done for path in one["paths"]]
    data = {"path": paths[0], "profile": profile.name, "ablations": done}
    data |= done[0] if len(done) == 1 else {}
    data["paths"] = paths
    tables = [Path(one["paths"][0]).read_text(encoding="utf-8") for one in done]
    return Outcome(data, "\n".join([*tables, *paths]))


def _explain(profile: Profile) -> Outcome:
    rows, lines = [], []
    for name, ablation in ABLATIONS.items():
        said = ablation.about()
        seeds = len(ablation.seeds or profile.seeds)
        runs = seeds * len(ablation.variants(profile, 10))
        rows.append(
            {
                "name": name,
                "question": ablation.question,
                "command": said["Command"].strip("`."),
                "cost": said["Cost and hardware"],
                "runs": runs,
                "expected": said["Expected"],
            }
        )
        lines += [f"{name}: {ablation.question}", f"  runs      {runs} in {profile.name}"]
        lines += [f"  {key:<9} {rows[-1][key]}" for key in ("cost", "expected")] + [""]
    text = "\n".join(lines).rstrip()
    return Outcome({"ablations": rows}, text.replace("`", ""))  # a terminal shows no code
