"""What several events together cost, and what noise the sum of several hospitals carries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from repro.accounting import checks
from repro.accounting.accountant import RDPAccountant
from repro.accounting.checks import RELATIONS, Number
from repro.accounting.events import GaussianEvent, NonPrivateEvent, PrivacyEvent
from repro.accounting.gaussian import compose_mu, epsilon_of_mu
from repro.errors import InputError

EXACT = "exact Gaussian (Balle & Wang 2018)"
RENYI = "RDP (Mironov et al. 2019; conversion of Canonne et al. 2020)"
NO_ACCOUNTANT = "none"


def compose_epsilon(
    counts: Mapping[PrivacyEvent, int], relation: str, unit: str, delta: float
) -> tuple[float, float | None, str]:
    """(ε, Rényi order or None, accountant): exact where every event is Gaussian, else RDP."""
    leaves = [(leaf, n * times) for e, times in counts.items() for leaf, n in e.leaves()]
    if any(isinstance(leaf, NonPrivateEvent) and times for leaf, times in leaves):
        return math.inf, None, NO_ACCOUNTANT
    if leaves and all(isinstance(leaf, GaussianEvent) for leaf, _ in leaves):
        mus = []
        for leaf, times in leaves:
            assert isinstance(leaf, GaussianEvent)
            mus.append(compose_mu(leaf.effective_multiplier(relation), 1.0, times))
        return epsilon_of_mu(math.hypot(*mus), delta), None, EXACT
    accountant = RDPAccountant(relation, unit)
    for event, times in counts.items():
        accountant.compose(event, times)
    return (*accountant.epsilon(delta), RENYI)


def summed_multiplier(
    hospital: int,
    multipliers: Mapping[int, float],
    weights: Mapping[int, Number] | None = None,
    *,
    colluding: int = 0,
) -> float:
    """Noise multiplier of ``hospital`` in the secure sum Σ wⱼ·(updateⱼ + noiseⱼ).

    multipliers: surviving hospital → its own noise multiplier, all at one clip norm C. The
    hospital moves the sum by at most wᵢ·C, and independent noise adds up in variance:
    √Σ(wⱼ·zⱼ)² / wᵢ. colluding: how many of the *other* hospitals may tell the server their
    noise; the noisiest ones are left out, since nobody knows which they are.
    """
    if hospital not in multipliers:
        raise InputError("hospital", hospital, f"a survivor, one of {sorted(multipliers)}")
    if weights is not None and not set(multipliers) <= set(weights):
        raise InputError("weights", sorted(weights), f"one for each of {sorted(multipliers)}")
    weight = {
        h: 1.0 if weights is None else checks.positive(f"weights[{h}]", weights[h])
        for h in multipliers
    }
    noise = {h: weight[h] * checks.noise_multiplier(z) for h, z in multipliers.items()}
    others = sorted(noise[h] for h in noise if h != hospital)
    trusted = others[: max(0, len(others) - checks.count("colluding", colluding))]
    return math.hypot(noise[hospital], *trusted) / weight[hospital]


def common_relations(events: Iterable[PrivacyEvent]) -> tuple[str, ...]:
    """The relations every one of ``events`` is proved for (all of them, for no events)."""
    leaves = [leaf for event in events for leaf, _ in event.leaves()]
    return tuple(r for r in RELATIONS if all(r in leaf.proved_for() for leaf in leaves))
