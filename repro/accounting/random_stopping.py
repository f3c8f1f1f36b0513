"""The best of a random number of trials, as curves: from one trial's Rényi divergence to theirs.

What it is about, and what not: ``repro.accounting.search_cost``, which asks accountants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number
from repro.accounting.orders import minimise
from repro.errors import InputError
from repro.typing import Float

_UP = 1 + 1e-9  # more than γ's bisection and a dozen rounded operations are off by
_SMALLEST = 1e-300  # of γ
_LARGEST_ETA = 1e3
Curve = Callable[[Float[np.ndarray, " orders"]], Float[np.ndarray, " orders"]]  # order → nats


def mean_trials(eta: float, gamma: float) -> float:
    """E[N] of D(η, γ), for η > −1 and 0 < γ < 1 (Papernot and Steinke 2022, Definition 1).

    η = 0: (1/γ − 1) / log(1/γ); otherwise η(1 − γ) / (γ(1 − γ^η)).
    """
    log = math.log(gamma)
    # η/(1 − γ^η) → −1/log γ as η → 0, which expm1 keeps exact down to η = 0.
    scaled = -1 / log if eta == 0 else -eta / math.expm1(eta * log)
    return scaled * (1 / gamma - 1)


@lru_cache(maxsize=64)
def gamma_of(eta: float, mean: float) -> float:
    """γ at which D(η, γ) has at least the mean ``mean`` > 1; by bisection in log γ.

    Raises InputError where none in double precision does (η near −1).
    """
    low, high = math.log(_SMALLEST), math.log1p(-1e-12)  # means: huge, 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_trials(eta, math.exp(middle)) >= mean else (low, middle)
    if mean_trials(eta, math.exp(low)) < mean * (1 - 1e-9):
        raise InputError("eta", eta, f"larger: no γ above 1e-300 gives {mean:g} trials on average")
    return math.exp(low)


def number_of_trials(eta: Number, mean: Number, uniform: float) -> int:
    """N ~ D(η, γ) with E[N] = ``mean``, by inversion of ``uniform`` in [0, 1) (Definition 1).

    P(N = 1) = (1 − γ)·η/(γ^−η − 1), for η = 0 (1 − γ)/log(1/γ); P(k + 1)/P(k) is
    (1 − γ)(k + η)/(k + 1). A uniform number of 53 bits leaves out tails below 1e-16.
    """
    gamma = gamma_of(eta, mean)
    scale = -math.log(gamma) if eta == 0 else math.expm1(-eta * math.log(gamma)) / eta
    chance, count = (1 - gamma) / scale, 1
    reached = chance
    while reached <= uniform and chance > 1e-18:
        chance *= (1 - gamma) * (count + eta) / (count + 1)
        count += 1
        reached += chance
    return count


def choosing(trial: Curve, trials: Number, eta: Number) -> tuple[float, float]:
    """The theorem's terms in λ̂, at the best λ̂ found; and E[N], not below ``trials``."""
    mean = checks.positive("trials", trials)
    if not mean > 1:
        raise InputError("trials", trials, "a mean number of trials above 1")
    expected = "a number above −1 (0: logarithmic, 1: geometric)"
    eta = checks.real("eta", eta, lambda x: -1 < x <= _LARGEST_ETA, expected)
    gamma = gamma_of(eta, mean)

    def objective(orders: Float[np.ndarray, " orders"]) -> Float[np.ndarray, " orders"]:
        cost: Float[np.ndarray, " orders"] = (1 - 1 / orders) * trial(orders) - math.log(
            gamma
        ) / orders
        return cost

    with np.errstate(over="ignore", invalid="ignore"):
        return (1 + eta) * minimise(objective)[0], mean_trials(eta, gamma)


def divergence(
    trial: Curve, orders: Float[np.ndarray, " orders"], extra: float, drawn: float
) -> Float[np.ndarray, " orders"]:
    """Of the best trial, rounded up; extra, drawn: what ``choosing`` gave."""
    result: Float[np.ndarray, " orders"] = (
        trial(orders) + extra + math.log(drawn) / (orders - 1)
    ) * _UP
    return result
