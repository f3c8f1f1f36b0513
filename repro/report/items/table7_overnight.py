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
from repro.report.privacy import epsilon_of_arm
from repro.report.shown import runs_shown, shown
from repro.report.sources import PAPER, Sources
from repro.report.statistics import Summary, percent
from repro.report.table import Column, Table, empty_table
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
                "epsilon": epsilon_of_arm(arm, evidence.all_runs(arm)),
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
    rows, whole = [], PROFILES[PAPER]
    names = {arm.name: name for arm, name in shown("overnight")}
    for arm, rounds in sorted({(run.arm, run.rounds) for run in wide}):
        runs = [run for run in wide if (run.arm, run.rounds) == (arm, rounds)]
        name = f"{names.get(arm, arm)}, width {whole.width}, {rounds} of {whole.rounds} rounds"
        row = {"what": name, "epsilon": epsilon_of_arm(arm, runs)}
        for k in counts:
            finals = [run.final_accuracy for run in runs if run.hospitals == k]
            row[f"k{k}"] = percent(Summary.of(finals))
        rows.append(row)
    return rows


def _unequal(wide: Sequence[RunRecord]) -> str:
    if not wide:
        return ""
    seeds = ", ".join(map(str, sorted({run.seed for run in wide if run.seed is not None})))
    return (
        f" Last: the paper's own setting (profile {PAPER}), cut short, seed {seeds}; it trained "
        "less than the rows above."
    )
