"""From the run store to what people read: tables, figures, verdicts and the report.

Nothing here trains or imports torch: whatever is drawn comes from run records alone.
"""

from repro.results.record import RunRecord
from repro.results.store import RunStore

__all__ = ["RunRecord", "RunStore"]
