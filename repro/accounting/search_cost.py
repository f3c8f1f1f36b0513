"""What choosing the best of several private trials costs: random stopping.

Formal guarantee. Let one trial be private with the Rényi divergence ρ(λ) (add/remove or whatever
relation its events are proved for), trials independent given the data. Draw the number of trials
N ≥ 1 from the truncated negative binomial distribution D(η, γ) before looking at any of them, run
N trials, release only the best by any rule that looks at their outputs (Papernot and Steinke
2022, arXiv 2110.03620, Theorem 2; Liu and Talwar 2019 for the case η = 1). That release has the
divergence ``random_stopping_rdp`` states. It says nothing of a search whose number of trials was
fixed beforehand or was stopped when somebody was content; for those only the composition of all
trials is proved, which costs far more when trials are many (of two or three it may cost less).

η = 0 is the logarithmic distribution, η = 1 the geometric one. A smaller η costs less, and more
often draws a single trial.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from repro.accounting import checks, conversion
from repro.accounting.accountant import RDPAccountant
from repro.accounting.checks import ADD_REMOVE, RECORD, Number
from repro.accounting.events import GaussianEvent, PrivacyEvent
from repro.accounting.orders import minimise
from repro.accounting.random_stopping import choosing, divergence
from repro.errors import InputError
from repro.typing import Float

_LARGEST_MULTIPLIER = 1e6


def trial_multiplier(epsilon: Number, delta: Number, trials: Number, eta: Number = 0.0) -> float:
    """The least noise multiplier of one Gaussian release a trial at which the best of N trials,
    E[N] = ``trials``, is (ε, δ)-DP for one record; by bisection of ``search_epsilon``, rounded up.

    Several releases of multipliers z_j are one of multiplier 1/√(Σ 1/z_j²).
    """
    epsilon = checks.positive("epsilon", epsilon)
    low, high = 0.0, 1.0
    while search_epsilon({GaussianEvent(high): 1}, delta, trials, eta) > epsilon:
        low, high = high, 2 * high
        if high > _LARGEST_MULTIPLIER:
            raise InputError("epsilon", epsilon, f"more: none is reached with {trials:g} trials")
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        reached = search_epsilon({GaussianEvent(middle): 1}, delta, trials, eta) <= epsilon
        low, high = (low, middle) if reached else (middle, high)
    return high


def random_stopping_rdp(
    accountant: RDPAccountant,
    orders: Float[np.ndarray, " orders"],
    trials: Number,
    eta: Number = 0.0,
) -> Float[np.ndarray, " orders"]:
    """Rényi divergence of the best of N trials, N ~ D(η, γ) with E[N] = ``trials``.

    accountant: what one trial spends. orders λ (m,) in (1, ∞) → (m,) nats, rounded up.
    Theorem 2: ρ'(λ) = ρ(λ) + (1 + η)(1 − 1/λ̂) ρ(λ̂) + (1 + η) log(1/γ)/λ̂ + log E[N]/(λ − 1),
    for every λ̂ > 1; the smallest that a search over λ̂ finds is taken.
    """
    extra, drawn = choosing(accountant.rdp, trials, eta)
    return divergence(accountant.rdp, orders, extra, drawn)


def search_epsilon(
    counts: Mapping[PrivacyEvent, int],
    delta: Number,
    trials: Number,
    eta: Number = 0.0,
    *,
    relation: str = ADD_REMOVE,
    unit: str = RECORD,
) -> float:
    """ε at ``delta`` of releasing the best of N trials, each of which spends ``counts``.

    counts: event → how often in ONE trial. trials: E[N] > 1. eta: shape of N's distribution.
    Infinite where a trial adds no noise. Raises ``InputError`` for what has no proof.
    """
    delta = checks.delta(delta)
    accountant = RDPAccountant(relation, unit)
    for event, times in counts.items():
        accountant.compose(event, times)
    extra, drawn = choosing(accountant.rdp, trials, eta)

    def objective(orders: Float[np.ndarray, " orders"]) -> Float[np.ndarray, " orders"]:
        rdp = divergence(accountant.rdp, orders, extra, drawn)
        return conversion.epsilon_from_rdp(orders, rdp, delta)

    with np.errstate(over="ignore", invalid="ignore"):
        return minimise(objective)[0]
