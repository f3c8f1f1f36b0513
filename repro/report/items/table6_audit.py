"""Table 6: what attacks found of each private arm's ε, and whether broken versions were caught.

Command: ``repro table 6``; the findings are those of ``repro audit all`` and ``repro audit
controls``, kept in ``OUT/audit/``. Cost and hardware: a second to draw; an audit takes one to
three minutes on one core. Expected: no arm refuted, every control caught.
"""

from __future__ import annotations

from typing import Any

from repro.report.privacy import audit_terms
from repro.report.sources import Sources
from repro.report.table import NOT_RUN, Column, Table, cell, empty_table
from repro.runs.arm import Arm
from repro.runs.arms import ARMS

TITLE = "Table 6. Audit: lower bounds on ε"
CONTROLS = ("halved", "discarded", "unclipped")  # repro.audit.controls, which needs torch's parts
COLUMNS = {
    "stated": "ε stated, whole run",
    "lower": "ε found, whole run",
    "independent": "the same, canaries independent",
    "steps_stated": "ε stated, audited steps",
    "steps_lower": "ε found, audited steps",
    "gaussian": "the same, Gaussian noise",
}


def build(sources: Sources) -> list[Table]:
    """Every private arm has a row, audited or not; a broken version only where it was audited."""
    rows, found = [], []
    for arm in ARMS.values():
        if not arm.private:
            continue
        record = sources.side(f"audit/{arm.name}")
        rows.append(_row(arm.name, "as it is", record))
        broken = {name: sources.side(f"audit/{arm.name}-{name}") for name in CONTROLS}
        rows += [_row(arm.name, name, it) for name, it in broken.items() if it is not None]
        found += [it for it in (record, *broken.values()) if it is not None]
    if not found:
        how = "repro audit all --out OUT; repro audit controls --out OUT"
        return [empty_table("table6", TITLE, caption="Nothing was audited here.", how=how)]
    return [
        Table(
            name="table6",
            title=TITLE,
            columns=[
                Column("arm", "arm"),
                Column("version", "version"),
                *(Column(key, label, number=True) for key, label in COLUMNS.items()),
                Column("verdict", "verdict"),
            ],
            rows=rows,
            caption=_caption(found),
            notes=NOTES,
            data=found,
        )
    ]


# Kinds of mechanism, by an arm's trainer; arms whose mechanism is on updates come first.
UPDATES = "a hospital's noise on its update"
KINDS = {
    "dpsgd": "DP-SGD, noise of each alone",
    "shared-dpsgd": "DP-SGD, noise shared in the secure sum",
    "shared-newton": "second-order steps, noise shared",
    "searched-newton": "best of a random number of trainings, noise shared",
}


def audit_summary(sources: Sources) -> Table:
    """Table 6 in short, for the report: a row for every kind of mechanism."""
    full = build(sources)[0]
    records = {(one["arm"], one["control"]): one for one in full.data or ()}
    rows = []
    others = (_kind(arm) for arm in ARMS.values() if arm.private)
    for kind in dict.fromkeys((UPDATES, *KINDS.values(), *others)):
        arms = [arm.name for arm in ARMS.values() if arm.private and _kind(arm) == kind]
        honest = [records[arm, None] for arm in arms if (arm, None) in records]
        broken = [one for (arm, control), one in records.items() if arm in arms and control]
        if honest or broken:
            rows.append(
                {
                    "kind": kind,
                    "arms": f"{len(honest)} of {len(arms)}",
                    "found": _nearest(honest),
                    "refuted": str(sum(one["exceeded"] for one in honest)),
                    "caught": f"{sum(one['exceeded'] for one in broken)} of {len(broken)}",
                }
            )
    if not rows:
        return full
    return Table(
        name="audit",
        title="Audit: what attacks found of ε (Table 6 in short)",
        columns=[
            Column("kind", "mechanism"),
            Column("arms", "arms audited", number=True),
            Column("found", "nearest: ε found (if Gaussian) of stated, audited steps", number=True),
            Column("refuted", "refuted", number=True),
            Column("caught", "broken versions caught", number=True),
        ],
        rows=rows,
        caption=f"Lower bounds {audit_terms(records.values())}, on steps that draw every record; "
        "an arm's own in Tables 1b and 6. Versions broken on purpose (half the noise, none, no "
        "clipping) have to be caught.",
    )


def _kind(arm: Arm) -> str:
    return UPDATES if arm.noise != "none" else KINDS.get(arm.trainer, arm.trainer)


def _nearest(honest: list[dict[str, Any]]) -> str:
    """The arm whose bound comes nearest to what is stated of its audited steps."""
    if not honest:
        return NOT_RUN
    found = max(honest, key=lambda one: _share(one["many_run"]))
    many = found["many_run"]
    bounds = f"{cell(many['epsilon'])} ({cell(many['gaussian_epsilon'])})"
    return f"{found['arm']}: {bounds} of {cell(many['claimed_epsilon'])}"


def _share(many: dict[str, Any]) -> float:
    return float(many["gaussian_epsilon"] / many["claimed_epsilon"])


NOTES = (
    "A bound below what is stated refutes nothing and proves nothing; one above it refutes the "
    "statement. Versions other than “as it is” are broken on purpose and have to be refuted: "
    "halved noise, noise computed and discarded, clipping left out.",
    "Whole run: one run with many canaries (Steinke, Nasr, Jagielski 2023), which assumes nothing "
    "on the mechanism and can't go far at this δ; and from the same run, if its canaries are "
    "taken as independent trials. Audited steps: many runs of a few steps that draw every record, "
    "with and without one canary, which are exactly Gaussian by the claim.",
    "Noise of a hospital's own is audited before any sum, at the hospital with the fewest images. "
    "Noise shared inside the secure sum is audited as the planned coalition sees the sum: decoded, "
    "with the planned drop-outs lost and the colluders' shares subtracted.",
    "Second-order arms: the audited steps are a whole run (mean, second moments, every step), so "
    "that bound is of the whole run too; the run with many canaries is of the steps alone.",
)


def _row(arm: str, version: str, record: dict[str, Any] | None) -> dict[str, str]:
    row = {"arm": arm, "version": version}
    if record is None:
        return row | dict.fromkeys(COLUMNS, NOT_RUN) | {"verdict": NOT_RUN}
    many, one = record["many_run"], record["one_run"] or {}
    values = {
        "stated": record["epsilon_stated"],
        "lower": record["epsilon_lower"],
        "independent": one.get("independent_epsilon"),
        "steps_stated": many["claimed_epsilon"],
        "steps_lower": many["epsilon"],
        "gaussian": many["gaussian_epsilon"],
    }
    return row | {key: cell(value) for key, value in values.items()} | {"verdict": _verdict(record)}


def _verdict(record: dict[str, Any]) -> str:
    if record["control"] is None:
        return "REFUTED" if record["exceeded"] else "not refuted"
    return "caught" if record["exceeded"] else "NOT caught"


def _caption(found: list[dict[str, Any]]) -> str:
    def every(*keys: str) -> str:
        values = []
        for record in found:
            value: Any = record
            for key in keys:
                value = value[key]
            values.append(str(value))
        return "/".join(dict.fromkeys(values))

    return (
        f"Data sizes: {every('dataset', 'source')}. Profile: {every('profile')}, "
        f"{every('hospitals')} hospitals. Confidence: {every('confidence')} for all of "
        f"a row, {every('plan', 'trials')} runs each way, {every('plan', 'canaries')} canaries. "
        f"Seeds: {every('seed')}."
    )
