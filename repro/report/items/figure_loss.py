"""Figure 4: test loss against round, per arm and number of hospitals.

Command: ``repro figure loss``. Cost and hardware: seconds; the runs are Table 1's.
Expected: falls with accuracy's rise; the documented noise makes it explode, hence the log axis.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from repro.report.items.curves import build_curves
from repro.report.sources import Sources


def build(sources: Sources) -> Figure:
    return build_curves(
        sources,
        key="loss",
        title="Figure 4. Test loss against round",
        label="test cross-entropy (nats)",
        log=True,
    )
