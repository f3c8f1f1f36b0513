"""Table 7: the paper's network at levels that mean something, trained for a night on a CPU.

Command: ``repro table 7``; the runs behind it are those of ``repro run ARM --profile overnight``
in ``OUT`` or ``OUT/overnight``, and in a last row ``repro run fedavg --profile paper --rounds R``
in ``OUT`` or ``OUT/paper``. Cost and hardware: a second to draw; the runs of record took 15 to
37 minutes each of one core (AMD EPYC). Expected: FedAvg above 92 %, secure aggregation and clipping
alone no different, the documented noise no better than guessing (on record 7 to 47 % from round to
round), honest DP-SGD with shared noise in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from repro.report.evidence import Evidence
from repro.report.privacy import epsilon, true_epsilon
from repro.report.shown import runs_shown, shown
from repro.report.sources import PAPER, Sources
from repro.report.statistics import Summary, percent
from repro.report.table import NOT_RUN, Column, Table, empty_table
from repro.runs.guarantees import protected_unit
from repro.runs.profiles import PROFILES
from repro.runs.record import RunRecord

TITLE = "Table 7. The paper's network, narrower, trained for a night"
PROFILE = "overnight"


def build(sources: Sources) -> list[Table]:
    evidence = sources.other(PROFILE)
    if not evidence.records:
        arms = ", ".join(arm.name for arm, _ in shown("overnight"))
        how = f"repro run ARM --profile {PROFILE} --out OUT, for {arms}"
        return [empty_table("table7", TITLE, caption="No such run here.", how=how)]
    return [overnight_table(evidence, sources.cut_short)]


def overnight_table(evidence: Evidence, wide: Sequence[RunRecord] = ()) -> Table:
    """Every arm that item 7 shows, run or not; a cell has the mean and spread of its seeds.

    wide: runs in the paper's own setting, for fewer rounds; a row for each arm and length.
    """
    profile, counts = PROFILES[evidence.profile], evidence.hospital_counts
    rows = [(arm.name, what) for arm, what in shown("overnight")]
    wide = [run for run in wide if run.hospitals in counts]
    used = runs_shown(evidence, "overnight")
    seeds = {len(evidence.runs(arm, k)) for arm, _ in rows for k in counts} - {0}
    few = " One seed a cell: differences of a point or two decide nothing." if seeds == {1} else ""
    return Table(
        name="table7",
        title=TITLE,
        columns=[
            Column("what", "training"),
            Column("epsilon", "true ε", number=True),
            *(Column(f"k{k}", f"{k} hospitals", number=True) for k in counts),
        ],
        rows=[
            {
                "what": what,
                "epsilon": _epsilon(evidence, arm),
                **{f"k{k}": percent(evidence.final(arm, k)) for k in counts},
            }
            for arm, what in rows
        ]
        + _wide_rows(wide, counts),
        caption=f"Test accuracy (%) of the last round. Width {profile.width} instead of 64, "
        f"{profile.rounds} rounds of {profile.local_epochs:g} local epoch instead of 50 of 3, set "
        "after looks at test accuracies of FedAvg; the private settings are untuned "
        f"(docs/settings-search.md).{few}{_unequal(wide)} "
        f"{evidence.caption(used)}",
    )


def _wide_rows(wide: Sequence[RunRecord], counts: Sequence[int]) -> list[dict[str, str]]:
    rows = []
    names = {arm.name: name for arm, name in shown("overnight")}
    for arm, rounds in sorted({(run.arm, run.rounds) for run in wide}):
        runs = {k: [r for r in wide if (r.arm, r.rounds, r.hospitals) == (arm, rounds, k)]
                for k in counts}  # fmt: skip
        finals = {k: Summary.of([run.final_accuracy for run in runs[k]]) for k in counts}
        whole = PROFILES[PAPER]
        unit = protected_unit(arm)
        every = [run for group in runs.values() for run in group]
        rows.append(
            {
                "what": f"{names.get(arm, arm)}, width {whole.width}, {rounds} of {whole.rounds} "
                "rounds",
                "epsilon": true_epsilon(every, unit) if unit else epsilon(float("inf")),
                **{f"k{k}": percent(finals[k]) for k in counts},
            }
        )
    return rows


def _unequal(wide: Sequence[RunRecord]) -> str:
    if not wide:
        return ""
    seeds = ", ".join(map(str, sorted({run.seed for run in wide if run.seed is not None})))
    return (
        f" Last: the paper's own setting (profile {PAPER}), cut short, seed {seeds}; it trained "
        "less than the rows above."
    )


def _epsilon(evidence: Evidence, arm: str) -> str:
    unit = protected_unit(arm)
    if unit is None:
        return epsilon(float("inf"))
    runs = [run for k in evidence.hospital_counts for run in evidence.runs(arm, k)]
    if not runs:
        return NOT_RUN
    return true_epsilon(runs, unit)
