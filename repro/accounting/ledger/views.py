"""Views: who sees what of a run, and what has to be trusted for it.

One spend is stated once for every view. A view sees the event as it was spent, or the event with
another share of its noise: an adversary who knows some hospitals' noise sees less of it, one who
sees only a sum sees more.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.accounting import checks
from repro.accounting.checks import Number
from repro.accounting.events import PrivacyEvent

PLAIN = "plain"
SECURE = "secure"
#: Name of the view of arms that rest on secure aggregation for their noise, in case it fails.
UNPROTECTED = "server, were secure aggregation broken"


@dataclass(frozen=True)
class View:
    """An observer of the run.

    key: short and unique; what ``spend(seen={key: event})`` and saved states call it.
    name: as rows of a run's record call it, "coalition of 2 hospitals".
    trust: the assumption a statement for this view rests on; "" if it rests on none.
    multiplier: noise in this view ÷ noise of the event that was spent, above 0. What a single
    round shows may differ (drop-outs): then give ``seen`` for that round.
    """

    key: str
    name: str
    trust: str = ""
    multiplier: Number = 1.0

    def __post_init__(self) -> None:
        checks.positive(f"multiplier of view {self.key}", self.multiplier)

    def of(self, event: PrivacyEvent) -> PrivacyEvent:
        """``event`` as this view sees it, where nothing else was said of it."""
        return event.scaled(self.multiplier)


PLAIN_VIEW = View(PLAIN, "server, plain aggregation")
SECURE_VIEW = View(SECURE, "server, after secure aggregation")
UPDATES_IN_SUM = (
    "holds against the server if every hospital counted really adds its noise and secure "
    "aggregation is not broken; fixed-point rounding before the sum is taken as exact"
)

#: Aggregation → the views its ledger states, weakest trust first. A securely aggregated run is
#: stated in both: what the server learns if the protocol holds, and if it does not.
STANDARD_VIEWS = {PLAIN: (PLAIN_VIEW,), SECURE: (PLAIN_VIEW, SECURE_VIEW)}
