"""Figure 8: ε against round, and the noise an ε needs.

Command: ``repro figure epsilon``. Cost and hardware: seconds; no runs, accounting only (the
curves are computed in ``figure_privacy``). Expected: every reading of the documented noise passes
ε = 6 within the first rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.results.drawing import Sources
from repro.results.style import new_figure, say_not_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = "Computed by the accountant; independent of data, profile and seeds."


def build(sources: Sources) -> Figure:
    figure = new_figure(10.2, 4.6, "Figure 8. ε against round, and the noise an ε needs", CAPTION)
    say_not_run(figure.subplots(), "the accountant is not available in this installation")
    return figure
