"""What a round of private sums costs whom, as entries of the ledger.

One release, three adversaries (docs/shared-noise.md): whoever sees the public model, or the server
that keeps the protocol, faces all survivors' shares; a coalition subtracts its own t. Were secure
aggregation broken, a hospital's sum would be seen under its own share alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from repro.accounting import ComposedEvent, PrivacyEvent, RepeatedEvent
from repro.accounting.ledger import FederatedLedger
from repro.federated.shared.noise_plan import NoisePlan
from repro.privacy.validation import Number

Releases = Mapping[tuple[int, ...], int]  # survivors -> sums


def spend_releases(
    ledger: FederatedLedger, plan: NoisePlan, sample_rate: Number, releases: Releases
) -> None:
    """Charge every hospital for the sums its records were in; a round without one costs nothing."""
    for hospital in sorted({one for survivors in releases for one in survivors}):
        alone: dict[int, int] = {}
        honest: dict[int, int] = {}
        for survivors, count in releases.items():
            if hospital in survivors:
                alone[1] = alone.get(1, 0) + count
                shares = len(survivors) - plan.colluders
                honest[shares] = honest.get(shares, 0) + count
        ledger.spend(
            hospital,
            composed(plan, sample_rate, alone),
            in_sum=composed(plan, sample_rate, honest),
        )


def composed(plan: NoisePlan, sample_rate: Number, shares: Mapping[int, int]) -> PrivacyEvent:
    """shares in a sum that the adversary does not know -> how many such sums, as one event."""
    parts = [
        RepeatedEvent(plan.event(number, sample_rate), count)
        for number, count in sorted(shares.items())
    ]
    return parts[0] if len(parts) == 1 else ComposedEvent(parts)
