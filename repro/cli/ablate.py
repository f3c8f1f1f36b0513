"""``repro ablate NAME``: change one decision of the setting, run, and draw the comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro.cli.output import Outcome
from repro.cli.reproduce import integers
from repro.cli.run import add_common
from repro.errors import InputError
from repro.experiments.ablations import NAMES, about, get_ablation
from repro.profiles import Profile, get_profile


def configure(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, NAMES))
    listing = "\n".join(f"  {name:<{width}}  {get_ablation(name).question}" for name in NAMES)
    parser.epilog = (
        f"ablations:\n{listing}\n\n"
        "Runs go to the same store as `repro reproduce`'s, which neither repeats what the other\n"
        "has made nor mixes them: tables of the matrix leave out runs with other settings.\n\n"
        "example: repro ablate clip-norm --profile quick --seeds 0"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="see below")
    parser.add_argument("--list", action="store_true", help="explain every ablation, run nothing")
    add_common(parser)
    parser.add_argument("--hospitals", metavar="K", type=int, default=10, help="default 10")
    parser.add_argument("--seeds", metavar="S,T", help="default: the profile's")


def execute(arguments: argparse.Namespace) -> Outcome:
    if arguments.list:
        return _explain(get_profile(arguments.profile or "quick"))
    if arguments.name is None:
        raise InputError("ablation", "nothing", "a NAME, or --list")
    ablation = get_ablation(arguments.name)
    profile = get_profile(arguments.profile)
    seeds = integers("seeds", arguments.seeds)
    ablation.variants(profile, arguments.hospitals)  # refuses impossible settings at once

    from repro.data import load_dataset
    from repro.experiments.ablations.running import draw_ablation, run_ablation
    from repro.federated.checks import check_device, check_synthetic
    from repro.results.store import RunStore

    out = Path(arguments.out)
    store = RunStore(out)
    device = check_device(arguments.device)
    dataset = load_dataset(arguments.data, arguments.dataset)
    check_synthetic(dataset, profile, arguments.data)
    cells, conclusion = run_ablation(
        ablation,
        profile,
        dataset,
        store,
        hospitals=arguments.hospitals,
        seeds=seeds or None,
        device=device,
    )
    paths = draw_ablation(ablation, profile, cells, conclusion, out)
    shown = [str(path) for path in paths]
    data = {
        "path": shown[0],
        "paths": shown,
        "name": ablation.name,
        "question": ablation.question,
        "profile": profile.name,
        "conclusion": conclusion.data if conclusion else None,
    }
    return Outcome(data, paths[0].read_text(encoding="utf-8") + "\n" + "\n".join(shown))


def _explain(profile: Profile) -> Outcome:
    rows, lines = [], []
    for name in NAMES:
        ablation, said = get_ablation(name), about(name)
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
        lines += [
            f"{name}: {ablation.question}",
            f"  runs      {runs} in {profile.name}",
            f"  cost      {said['Cost and hardware']}",
            f"  expected  {said['Expected']}",
            "",
        ]
    return Outcome({"ablations": rows}, "\n".join(lines).rstrip())
