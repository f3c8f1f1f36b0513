"""Figure 3: test accuracy against round, per arm and number of hospitals.

Command: ``repro figure accuracy``. Cost and hardware: seconds; the runs are Table 1's.
Expected: FedAvg with and without secure aggregation lie on each other; clipping without noise
stays close; the documented noise falls to the majority class within the first round.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from repro.report.items.curves import build_curves
from repro.report.sources import Sources


def build(sources: Sources) -> Figure:
    return build_curves(
        sources,
        key="accuracy",
        title="Figure 3. Test accuracy against round",
        label="test accuracy (%)",
        scale=100.0,
        limits=(0.0, 100.0),
    )
