"""Random stopping: the best of a number of private trials that was drawn at random.

Formal guarantee. Let one trial be private with the Rényi divergence ρ(λ) (add/remove or whatever
relation its events are proved for), trials independent given the data. Draw the number of trials
N ≥ 1 from the truncated negative binomial distribution D(η, γ) before looking at any of them, run
N trials, release only the best by any rule that looks at their outputs (Papernot and Steinke
2022, arXiv 2110.03620, Theorem 2; Liu and Talwar 2019 for the case η = 1). That release has the
divergence ``best_of_trials_rdp`` states. It says nothing of a search whose number of trials was
fixed beforehand or was stopped when somebody was content; for those only the composition of all
trials is proved, which costs far more when trials are many (of two or three it may cost less).

η = 0 is the logarithmic distribution, η = 1 the geometric one. A smaller η costs less, and more
often draws a single trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number, Orders
from repro.accounting.orders import minimise
from repro.errors import InputError

_UP = 1 + 1e-9  # more than γ's bisection and a dozen rounded operations are off by
_SMALLEST = 1e-300  # of γ
_LARGEST_ETA = 1e3

Curve = Callable[[np.ndarray], np.ndarray]  # orders λ (m,) in (1, ∞) → divergences (m,), nats


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


def best_of_trials_rdp(trial: Curve, orders: Orders, trials: Number, eta: Number) -> Orders:
    """Rényi divergence of the best of N trials, N ~ D(η, γ) with E[N] = ``trials``.

    trial: ρ of one. orders λ (m,) in (1, ∞) → (m,) nats, rounded up. Theorem 2:
    ρ'(λ) = ρ(λ) + (1 + η)(1 − 1/λ̂) ρ(λ̂) + (1 + η) log(1/γ)/λ̂ + log E[N]/(λ − 1),
    for every λ̂ > 1; the smallest that a search over λ̂ finds is taken.
    """
    return divergence(trial, orders, *choosing(trial, trials, eta))


def choosing(trial: Curve, trials: Number, eta: Number) -> tuple[float, float]:
    """The theorem's terms in λ̂, at the best λ̂ found; and E[N], not below ``trials``."""
    mean = checks.trials(trials)
    expected = "a number above −1 (0: logarithmic, 1: geometric)"
    eta = checks.real("eta", eta, lambda x: -1 < x <= _LARGEST_ETA, expected)
    gamma = gamma_of(eta, mean)

    def objective(orders: Orders) -> Orders:
        return (1 - 1 / orders) * trial(orders) - math.log(gamma) / orders

    with np.errstate(over="ignore", invalid="ignore"):
        return (1 + eta) * minimise(objective)[0], mean_trials(eta, gamma)


def divergence(trial: Curve, orders: Orders, extra: float, drawn: float) -> Orders:
    """ρ' of Theorem 2 from what ``choosing`` found."""
    return (trial(orders) + extra + math.log(drawn) / (orders - 1)) * _UP
