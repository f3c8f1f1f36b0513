"""What a run is: its settings, profile and arm, the record it leaves, and the store that keeps it.

Nothing here trains or draws, and nothing imports torch: whoever trains writes a ``RunRecord``,
whoever draws reads one.
"""

from repro.runs.record import RunRecord
from repro.runs.store import RunStore

__all__ = ["RunRecord", "RunStore"]
