"""What a round of private sums costs whom, as entries of the ledger.

One release, several adversaries (docs/shared-noise.md): whoever sees the public model, or the
server, faces all survivors' shares; a coalition subtracts its own t. Were secure aggregation
broken, a hospital's sum would be seen under its own share alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from repro.accounting import ComposedEvent, PrivacyEvent, RepeatedEvent
from repro.accounting.ledger import UNPROTECTED, View
from repro.federated.shared.noise_plan import NoisePlan

Releases = Mapping[tuple[int, ...], int]  # survivors -> sums
BROKEN, COALITION, SERVER, MODEL = "broken", "coalition", "server", "model"


def shared_views(colluders: int, hospitals: int) -> list[View]:
    """Who may learn what, the weakest assumption first. Of one hospital nothing is aggregated."""
    if hospitals == 1:
        return [View(MODEL, "public model", "the one place with all records adds the noise")]
    shares = "every hospital in a sum adds its share of the noise"
    others = "the other hospitals in a sum add their shares of the noise and keep them secret"
    return [
        View(BROKEN, UNPROTECTED, "a hospital adds its own share of the noise"),
        View(
            COALITION,
            f"coalition of {colluders} hospital{'s' * (colluders != 1)} with the server",
            f"{others}; secure aggregation withstands the coalition",
        ),
        View(
            SERVER,
            "server",
            f"{shares} and none colludes; secure aggregation withstands the server",
        ),
        View(MODEL, "public model", f"{shares}; neither server nor hospitals tell more"),
    ]


def spent_on(
    plan: NoisePlan, releases: Releases, failed: Releases
) -> tuple[list[tuple[int, PrivacyEvent, int]], dict[int, dict[str, PrivacyEvent]]]:
    """What a ledger's round is charged (``spend_round``): ``spent`` and ``seen``, of every hospital
    in a sum; a round without one costs nothing.

    failed: senders -> sums that came to nothing. None was unmasked, so they cost nothing while
    secure aggregation holds; were it broken, each showed its senders' inputs under one share.
    """
    everybody = plan.hospitals
    spent: list[tuple[int, PrivacyEvent, int]] = []
    views: dict[int, dict[str, PrivacyEvent]] = {}
    for hospital in sorted({one for sums in (releases, failed) for group in sums for one in group}):
        own, tried = (_of(hospital, sums) for sums in (releases, failed))

        def seen(known: int, own: Releases = own, tried: Releases | None = None) -> PrivacyEvent:
            """By an adversary who knows so many of the others' shares."""
            shares: dict[int, int] = {}
            for survivors, count in (*own.items(), *(tried or {}).items()):
                left = max(1, len(survivors) - known)  # the hospital's own is always left
                shares[left] = shares.get(left, 0) + count
            return composed(plan, shares)

        spent.append((hospital, seen(0), 1))
        if everybody > 1:
            views[hospital] = {
                BROKEN: seen(everybody, tried=tried),
                COALITION: seen(plan.colluders),
            }
    return spent, views


def _of(hospital: int, sums: Releases) -> Releases:
    return {group: count for group, count in sums.items() if hospital in group}


def composed(plan: NoisePlan, shares: Mapping[int, int]) -> PrivacyEvent:
    """shares in a sum that the adversary does not know -> how many such sums, as one event."""
    parts = [RepeatedEvent(plan.event(number), count) for number, count in sorted(shares.items())]
    return parts[0] if len(parts) == 1 else ComposedEvent(parts)
