"""What choosing the best of several private trials costs, in ε: ``random_stopping`` has the proof.

Of a search whose number of trials was fixed beforehand, or stopped when somebody was content, this
says what it would cost had the number been drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from repro.accounting import checks, conversion
from repro.accounting.accountant import RDPAccountant
from repro.accounting.checks import ADD_REMOVE, RECORD, Number, Orders
from repro.accounting.events import GaussianEvent, PrivacyEvent
from repro.accounting.orders import minimise
from repro.accounting.random_stopping import best_of_trials_rdp, choosing, divergence
from repro.errors import InputError

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
    accountant: RDPAccountant, orders: Orders, trials: Number, eta: Number = 0.0
) -> Orders:
    """Rényi divergence of the best of N trials, N ~ D(η, γ) with E[N] = ``trials``.

    accountant: what one trial spends; otherwise as ``best_of_trials_rdp``.
    """
    return best_of_trials_rdp(accountant.rdp, orders, trials, eta)


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

    def objective(orders: Orders) -> Orders:
        rdp = divergence(accountant.rdp, orders, extra, drawn)
        return conversion.epsilon_from_rdp(orders, rdp, delta)

    with np.errstate(over="ignore", invalid="ignore"):
        return minimise(objective)[0]
