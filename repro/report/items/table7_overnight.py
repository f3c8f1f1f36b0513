"""Table 7: the paper's network at levels that mean something, trained for a night on a CPU.

Command: ``repro table 7``; the runs behind it are those of ``repro run ARM --profile overnight``
in ``OUT`` or ``OUT/overnight``. Cost and hardware: a second to draw; the runs of record took 43 to
83 minutes each of a busy core. Expected: FedAvg above 90 %, secure aggregation and
clipping alone no different, the documented noise at the commonest class, honest DP-SGD with shared
noise in between.
"""

from __future__ import annotations

from repro.report.evidence import Evidence
from repro.report.privacy import epsilon
from repro.report.rows import empty_table
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Column, Table
from repro.runs.arms import ARMS
from repro.runs.guarantees import protected_unit, total_epsilon
from repro.runs.profiles import PROFILES

TITLE = "Table 7. The paper's network, narrower, trained for a night"
PROFILE = "overnight"
SHOWN = (
    ("fedavg", "FedAvg, no privacy"),
    ("fedavg-secagg", "FedAvg + SecAgg"),
    ("clip-secagg", "“DP+” as most likely run"),
    ("documented-secagg", "“DP+” as documented"),
    ("shared-dpsgd-eps6", "honest for a record, noise shared"),
)


def build(sources: Sources) -> list[Table]:
    evidence = sources.other(PROFILE)
    if not evidence.records:
        how = f"repro run ARM --profile {PROFILE} --out OUT, for {', '.join(a for a, _ in SHOWN)}"
        return [empty_table("table7", TITLE, caption="No such run here.", how=how)]
    return [overnight_table(evidence)]


def overnight_table(evidence: Evidence) -> Table:
    """Every arm that item 7 shows, run or not; a cell has the mean and spread of its seeds."""
    profile, counts = PROFILES[evidence.profile], evidence.hospital_counts
    shown = [(arm, what) for arm, what in SHOWN if arm in ARMS]
    used = [run for arm, _ in shown for k in counts for run in evidence.runs(arm, k)]
    seeds = {len(evidence.runs(arm, k)) for arm, _ in shown for k in counts} - {0}
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
                **{f"k{k}": _accuracy(evidence, arm, k) for k in counts},
            }
            for arm, what in shown
        ],
        caption=f"Test accuracy (%) of the last round. Width {profile.width} instead of 64, "
        f"{profile.rounds} rounds of {profile.local_epochs:g} local epoch instead of 50 of 3, set "
        "after looks at test accuracies of FedAvg; the private settings are untuned "
        f"(docs/settings-search.md).{few} "
        f"{evidence.caption(used)}",
    )


def _accuracy(evidence: Evidence, arm: str, hospitals: int) -> str:
    final = evidence.final(arm, hospitals)
    return NOT_RUN if final is None else percent(final)


def _epsilon(evidence: Evidence, arm: str) -> str:
    unit = protected_unit(arm)
    if unit is None:
        return epsilon(float("inf"))
    runs = [run for k in evidence.hospital_counts for run in evidence.runs(arm, k)]
    if not runs:
        return NOT_RUN
    return f"{epsilon(max(total_epsilon(run, unit) for run in runs))} ({unit})"
