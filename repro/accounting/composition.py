"""What several events together cost, and what noise the sum of several hospitals carries.

Several proofs may cover the same events. Each gives a valid ε, so the smallest of them is one
too, and ``compose_epsilon`` names the method that gave it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from repro.accounting import checks
from repro.accounting.accountant import RDPAccountant
from repro.accounting.base import Accountant
from repro.accounting.checks import Number
from repro.accounting.events import (
    FixedBatchGaussianEvent,
    GaussianEvent,
    NonPrivateEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)
from repro.accounting.gaussian import compose_mu, epsilon_of_mu
from repro.accounting.pld import PLDAccountant, accounts_for
from repro.errors import InputError

GAUSSIAN, PLD, RDP, NONE = "gaussian", "pld", "rdp", "none"
BEST = "best"
CHOICES = (BEST, RDP, PLD)

#: Method → the accountant behind it, in words.
ACCOUNTANTS = {
    GAUSSIAN: "exact Gaussian (Balle & Wang 2018)",
    PLD: "privacy loss distribution (Doroshenko et al. 2022)",
    RDP: "RDP (Mironov et al. 2019; conversion of Canonne et al. 2020)",
    NONE: "none",
}


@dataclass(frozen=True)
class EpsilonBound:
    """One ε, and where it comes from.

    method: whose proof gave it, a key of ``ACCOUNTANTS``. order: Rényi order, of RDP's alone.
    by_method: every ε that was computed on the way; each is valid, ``epsilon`` is the smallest.
    """

    epsilon: float
    method: str
    order: float | None = None
    by_method: Mapping[str, float] = field(default_factory=dict)

    @property
    def accountant(self) -> str:
        return ACCOUNTANTS[self.method]


NO_BOUND = EpsilonBound(math.inf, NONE)


def compose_epsilon(
    counts: Mapping[PrivacyEvent, int],
    relation: str,
    unit: str,
    delta: float,
    *,
    accountant: str = BEST,
) -> EpsilonBound:
    """The smallest proved ε of events, each with its count.

    accountant: "best" is exact where every event is an unsampled Gaussian, else the smaller of
    RDP and, where it accounts for every event, the privacy loss distribution. "rdp" and "pld"
    ask for one alone; "pld" raises ``InputError`` for events it does not account for.
    """
    checks.one_of("accountant", accountant, CHOICES)
    relation, delta = checks.relation(relation), checks.delta(delta)
    leaves = elementary(counts)
    if any(isinstance(leaf, NonPrivateEvent) for leaf in leaves):
        return NO_BOUND
    if accountant == BEST and (mu := gaussian_mu(leaves, relation)) is not None:
        epsilon = epsilon_of_mu(mu, delta)
        return EpsilonBound(epsilon, GAUSSIAN, None, {GAUSSIAN: epsilon})
    asked: dict[str, Accountant] = {}
    if accountant != PLD:
        asked[RDP] = RDPAccountant(relation, unit)
    if accountant == PLD or (accountant == BEST and accounts_for(leaves, relation)):
        asked[PLD] = PLDAccountant(relation, unit)
    found, orders = {}, {}
    for method, one in asked.items():
        for event, times in leaves.items():
            one.compose(event, times)
        found[method], orders[method] = one.epsilon(delta)
    method = min(found, key=found.__getitem__)
    return EpsilonBound(found[method], method, orders[method], found)


def lower_epsilon(
    counts: Mapping[PrivacyEvent, int], relation: str, unit: str, delta: float
) -> float:
    """An ε that no proof can go below at ``delta``; 0 where none is known.

    For some data the events' true ε is at least this: only a bound from below makes a claim
    false. Exact where every event is an unsampled Gaussian, close where they have a privacy loss
    distribution. Fixed batches (replace-one): let all other records' gradients be 0, and exchange
    one whose gradient has the clip norm for one whose gradient is 0. The noised sum then moves
    exactly as under Poisson sampling at the same rate.
    """
    relation, delta = checks.relation(relation), checks.delta(delta)
    leaves = elementary(counts)
    if any(isinstance(leaf, NonPrivateEvent) for leaf in leaves):
        return math.inf
    if (mu := gaussian_mu(leaves, relation)) is not None:
        return epsilon_of_mu(mu, delta) * (1 - 1e-9)
    if any(isinstance(leaf, FixedBatchGaussianEvent) for leaf in leaves):
        leaves = _as_poisson(leaves)
        relation = checks.ZERO_OUT
    if not accounts_for(leaves, relation):
        return 0.0
    pld = PLDAccountant(relation, unit)
    for event, times in leaves.items():
        pld.compose(event, times)
    return pld.lower_epsilon(delta)


def _as_poisson(leaves: Mapping[PrivacyEvent, int]) -> dict[PrivacyEvent, int]:
    """Fixed batches as Poisson-sampled ones; what else there is stays."""
    found: dict[PrivacyEvent, int] = {}
    for leaf, times in leaves.items():
        event = leaf
        if isinstance(leaf, FixedBatchGaussianEvent):
            event = PoissonSampledGaussianEvent(
                leaf.noise_multiplier, leaf.sample_rate, unit=leaf.unit
            )
        found[event] = found.get(event, 0) + times
    return found


def elementary(counts: Mapping[PrivacyEvent, int]) -> dict[PrivacyEvent, int]:
    """The elementary events that did happen, each with its count."""
    leaves: dict[PrivacyEvent, int] = {}
    for event, times in counts.items():
        for leaf, inner in event.leaves():
            if inner * times:
                leaves[leaf] = leaves.get(leaf, 0) + inner * times
    return leaves


def gaussian_mu(leaves: Mapping[PrivacyEvent, int], relation: str) -> float | None:
    """μ of the composition if all is unsampled Gaussian noise, else None.

    A sample rate of 1 is no sampling: such a step is a plain Gaussian release.
    """
    mus = []
    for leaf, times in leaves.items():
        sampled = isinstance(leaf, PoissonSampledGaussianEvent) and leaf.sample_rate != 1
        if sampled or not isinstance(leaf, (GaussianEvent, PoissonSampledGaussianEvent)):
            return None
        mus.append(compose_mu(leaf.effective_multiplier(relation), 1.0, times))
    return math.hypot(*mus) if mus else None


def summed_multiplier(
    hospital: int,
    multipliers: Mapping[int, float],
    weights: Mapping[int, Number],
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
    if not set(multipliers) <= set(weights):
        raise InputError("weights", sorted(weights), f"one for each of {sorted(multipliers)}")
    weight = {h: checks.positive(f"weights[{h}]", weights[h]) for h in multipliers}
    noise = {h: weight[h] * checks.noise_multiplier(z) for h, z in multipliers.items()}
    others = sorted(noise[h] for h in noise if h != hospital)
    trusted = others[: max(0, len(others) - checks.count("colluding", colluding))]
    multiplier = math.hypot(noise[hospital], *trusted) / weight[hospital]
    if multiplier == math.inf:
        given = dict(sorted(weight.items()))
        raise InputError("weights", given, "such as do not overflow where noise is weighted")
    return multiplier
