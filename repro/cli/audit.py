"""``repro audit``: attack an arm's private mechanism and bound its ε from below."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repro.audit.controls import CONTROLS
from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.cli.run import add_common
from repro.data import Dataset, load_dataset
from repro.errors import InputError
from repro.files import write_whole
from repro.formatting import to_json
from repro.progress import Progress, progress
from repro.runs.arms import get_arm
from repro.runs.composition import compose
from repro.runs.profiles import get_profile
from repro.runs.settings import RunSettings

EXIT_UNEXPECTED = 1
# Arms whose broken versions `controls` audits, one of every mechanism: a record's noise (with two
# models), a hospital's, noise shared inside the secure sum, and second-order steps.
CONTROLLED = (
    "scattering-dpsgd-eps6",
    "dpsgd-eps6",
    "calibrated-secagg",
    "scattering-shared-eps6",
    "scattering-newton-eps6",
)


def configure(parser: OneLineParser) -> None:
    parser.explain(controls=CONTROLS)
    add = parser.add_argument
    arms = "a private arm; `all` of them; `controls`, on some of them; or `options`"
    add("arm", metavar="ARM", help=arms)
    add("--hospitals", metavar="K", type=int, default=10, help="default 10")
    add("--seed", metavar="S", type=int, default=0, help="of the audit (default 0)")
    add_common(parser)
    add("--control", choices=list(CONTROLS), help="audit a broken version; see below")
    add("--trials", metavar="N", type=int, default=2000, help="runs each way (default 2000)")
    add("--canaries", metavar="M", type=int, default=40_000, help="of one run (default 40,000)")
    sure = "of the findings (default 0.95)"
    add("--confidence", metavar="C", type=float, default=0.95, help=sure)
    add("--quiet", action="store_true", help="no progress bar")


_Task = tuple[RunSettings, str | None]  # and its control


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.audit.procedure import AuditPlan

    plan = AuditPlan(arguments.trials, arguments.canaries, arguments.confidence)
    if arguments.arm == "options":
        return _options(arguments)
    tasks = _tasks(arguments)
    dataset = load_dataset(arguments.data, arguments.dataset)
    records = [_audit(task, plan, dataset, arguments) for task in tasks]
    status = 0 if all(record["as_expected"] for record in records) else EXIT_UNEXPECTED
    data = records[0] if len(records) == 1 else {"audits": records}
    return Outcome(data, "\n".join(describe(record) for record in records), status=status)


def _options(arguments: argparse.Namespace) -> Outcome:
    """What `make_private` offers beside plain DP-SGD, each as it is and broken."""
    from repro.audit.options import OPTIONS, audit_option
    from repro.runs.provenance import code_version

    if arguments.control is not None:
        raise InputError("control", arguments.control, "none beside `options`, which has its own")
    found = [
        audit_option(
            option,
            control=control,
            trials=arguments.trials,
            confidence=arguments.confidence,
            seed=arguments.seed,
        )
        for option in OPTIONS
        for control in (False, True)
    ]
    audits = [
        asdict(one) | {"exceeded": one.exceeded, "as_expected": one.as_expected} for one in found
    ]
    data = {"audits": audits, "seed": arguments.seed, "code": code_version()}
    path = Path(arguments.out) / "audit" / "options.json"
    write_whole(path, to_json(data) + "\n")
    lines = [
        f"{one.option}{', ' + OPTIONS[one.option] if one.control else ''}: "
        f"ε = {one.claimed_epsilon:.3g} stated, at least {one.epsilon:.3g} found; "
        f"μ = {one.claimed_mu:.4g} stated, at least {one.mu:.4g} found, "
        f"{'REFUTED' if one.exceeded else 'not refuted'} at confidence {one.confidence}"
        for one in found
    ]
    as_expected = all(one.as_expected for one in found)
    return Outcome(data, "\n".join(lines), status=0 if as_expected else EXIT_UNEXPECTED)


def _tasks(arguments: argparse.Namespace) -> list[_Task]:
    from repro.audit.claim import private_arms

    wanted: list[tuple[str, str | None]]
    if arguments.arm == "controls":
        if arguments.control is not None:
            raise InputError("control", arguments.control, "none beside `controls`, which is all")
        wanted = [(arm, control) for arm in CONTROLLED for control in CONTROLS]
    elif arguments.arm == "all":
        wanted = [(arm.name, arguments.control) for arm in private_arms()]
    else:
        get_arm(arguments.arm)
        wanted = [(arguments.arm, arguments.control)]
    profile = get_profile(arguments.profile)
    given = {"hospitals": arguments.hospitals, "seed": arguments.seed}
    return [(compose(get_arm(arm), profile, **given), control) for arm, control in wanted]


def _audit(
    task: _Task, plan: Any, dataset: Dataset, arguments: argparse.Namespace
) -> dict[str, Any]:
    from repro.audit import procedure
    from repro.audit.claim import claim_of
    from repro.federated.division import subset

    settings, control = task
    claim = claim_of(settings, subset(dataset, settings)["train"].labels)
    name = settings.arm + ("" if control is None else f", {control}")
    bar: Progress[None] = progress(
        total=procedure.work(claim, plan), desc=f"audit {name}", quiet=arguments.quiet
    )
    with bar:
        found = procedure.audit(
            claim,
            plan,
            control=control,
            seed=arguments.seed,
            progress=lambda done: _advance(bar, done),
        )
    record = procedure.as_record(found, settings, plan, arguments.seed, dataset.facts())
    procedure.write(record, Path(arguments.out))
    return record


def describe(record: dict[str, Any]) -> str:
    """One audit in two to four lines."""
    many, one, claim = record["many_run"], record["one_run"], record["claim"]
    name = record["arm"] + (f", {record['control']}" if record["control"] else "")
    verdict = "REFUTED" if record["exceeded"] else "not refuted"
    sharing = claim["sharing"]
    against = "" if sharing is None else f" against {_adversary(sharing['noise'])}"
    before = "mean, second moments and " if sharing is not None and sharing["second"] else ""
    lines = [
        f"{name}: ε = {record['epsilon_stated']:.4g} stated for a {claim['unit']}{against}, "
        f"{verdict} at confidence {record['confidence']}",
        f"  many runs: {before}{many['steps']} full-batch steps, "
        f"ε = {many['claimed_epsilon']:.3g} stated, "
        f"at least {many['epsilon']:.3g} found ({many['gaussian_epsilon']:.3g} if Gaussian)",
    ]
    if one is not None:
        lines.append(
            f"  one run: {one['right']:,} of {one['guesses']:,} guesses right, "
            f"ε at least {one['epsilon']:.3g} (never above {one['ceiling']:.3g}); "
            f"{one['independent_epsilon']:.3g} if canaries are independent"
        )
    if not record["as_expected"]:
        lines.append(
            "  a control was NOT caught" if record["control"] else "  an honest arm was REFUTED"
        )
    return "\n".join(lines)


def _advance(bar: Progress[None], done: int) -> None:
    bar.update(done)


def _adversary(noise: dict[str, Any]) -> str:
    return (
        f"the server and {noise['colluders']} colluding, {noise['drop_outs']} lost "
        f"hospital{'s' * (noise['drop_outs'] != 1)}"
    )
