"""Lower bounds on ε from the outcomes of membership tests, each with its confidence.

NumPy and SciPy only. All confidences are one-sided coverage of the bound: an (ε, δ)-DP mechanism
gets a bound above its ε with probability at most 1 − confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro.checks import Number, check_count, check_fraction, check_not_negative, check_real
from repro.errors import InputError

Scores = np.ndarray  # (trials,) float64: larger speaks for the canary
_HIGHEST = 60.0  # no audit here can show more; bisection ends there
_HALVINGS = 40


@dataclass(frozen=True)
class Rates:
    """A threshold test's outcome: simultaneous bounds on its two rates."""

    threshold: float
    true_positive: float  # lower bound
    false_positive: float  # upper bound
    confidence: float  # that both hold


def clopper_pearson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """(lower, upper) one-sided bounds on a probability, each holding with ``confidence``.

    Clopper and Pearson 1934: quantiles of Beta(v, n − v + 1) and Beta(v + 1, n − v).
    """
    from scipy import stats

    n = _check_trials("trials", trials, least=1)
    v = check_count("successes", successes, least=0)
    if v > n:
        raise InputError("successes", successes, f"0 to the number of trials, {trials}")
    alpha = 1 - check_fraction("confidence", confidence, zero=False)
    lower = 0.0 if v == 0 else float(stats.beta.ppf(alpha, v, n - v + 1))
    upper = 1.0 if v == n else float(stats.beta.ppf(1 - alpha, v + 1, n - v))
    return lower, upper


def rates(with_canary: Scores, without: Scores, threshold: float, confidence: float) -> Rates:
    """Bounds on P[score > threshold] with and without the canary; 1 − confidence is halved.

    threshold: must not depend on these scores.
    """
    threshold = check_real("threshold", threshold, lambda x: x == x, "a number")
    confidence = check_fraction("confidence", confidence, zero=False)
    each = 1 - (1 - confidence) / 2
    hits, alarms = int((with_canary > threshold).sum()), int((without > threshold).sum())
    return Rates(
        threshold,
        clopper_pearson(hits, len(with_canary), each)[0],
        clopper_pearson(alarms, len(without), each)[1],
        confidence,
    )


def epsilon_from_rates(found: Rates, delta: float) -> float:
    """log((TPR − δ) / FPR), at least 0: (ε, δ)-DP gives TPR ≤ e^ε·FPR + δ (Kairouz et al. 2015)."""
    delta = check_fraction("delta", delta, zero=True)
    if found.true_positive <= delta:
        return 0.0
    return max(0.0, math.log((found.true_positive - delta) / found.false_positive))


def mu_from_rates(found: Rates) -> float:
    """Φ⁻¹(TPR) − Φ⁻¹(FPR), at least 0: the least μ whose Gaussian trade-off allows both rates.

    Dong, Roth, Su 2022 (arXiv 1905.02383), definition 2.6; as an audit Nasr et al. 2023
    (arXiv 2302.07956), section 4.
    """
    from scipy import stats

    if not found.true_positive or found.false_positive >= 1:
        return 0.0
    gap = stats.norm.ppf(found.true_positive) - stats.norm.ppf(found.false_positive)
    return max(0.0, float(gap))


def epsilon_and_mu(
    pilot: tuple[Scores, Scores], counted: tuple[Scores, Scores], delta: float, confidence: float
) -> tuple[float, float]:
    """Lower bounds on ε and on μ from scores (with the canary, without), both at ``confidence``.

    pilot: scores that choose the thresholds, and are not counted.
    """
    half = (1 + confidence) / 2  # the two bounds fail together no more often than 1 − confidence
    extreme = rates(*counted, best_threshold(*pilot, delta), half)
    middle = rates(*counted, middle_threshold(*pilot), half)
    return epsilon_from_rates(extreme, delta), mu_from_rates(middle)


def best_threshold(with_canary: Scores, without: Scores, delta: float) -> float:
    """The threshold with the largest bound on ε on these scores, which may not be used again."""
    candidates = np.unique(np.quantile(np.concatenate([with_canary, without]), _GRID))
    found = [rates(with_canary, without, float(t), 0.9) for t in candidates]
    values = [(epsilon_from_rates(r, delta), mu_from_rates(r)) for r in found]
    return float(candidates[max(range(len(values)), key=values.__getitem__)])


def middle_threshold(with_canary: Scores, without: Scores) -> float:
    """Half-way between the two medians, where a Gaussian's μ is estimated best."""
    return float(np.median(with_canary) + np.median(without)) / 2


# Quantiles tried, finer where false alarms are rare.
_GRID = np.concatenate([np.linspace(0.02, 0.9, 45), 1 - np.geomspace(0.1, 0.002, 35)])


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Chance that an (ε, δ)-DP run gets ``right`` of ``guesses`` memberships right, at most.

    Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), theorem 5.2 with W ~ Bin(r, e^ε/(1 + e^ε)):

        P[right ≥ v] ≤ P[W ≥ v] + 2mδ · max over i ≥ 1 of P[v > W ≥ v − i] / i

    canaries: m, each in the run with probability ½, independently; guesses: r, the others are
    abstained from. The number of guesses must not depend on the outcome.
    """
    from scipy import stats

    canaries = _check_trials("canaries", canaries, least=0)
    guesses = check_count("guesses", guesses, least=0)
    right = check_count("right", right, least=0)
    epsilon = check_not_negative("epsilon", epsilon)
    delta = check_fraction("delta", delta, zero=True)
    if not right <= guesses <= canaries:
        raise InputError("right", right, f"at most {guesses} guesses of {canaries} canaries")
    likely = 1 / (1 + math.exp(-epsilon))
    tail = float(stats.binom.sf(right - 1, guesses, likely))
    if right == 0 or delta == 0:
        return min(1.0, tail)
    # P[v > W ≥ v − i], i = 1, 2, …
    below = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, likely))
    worst = float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)


def one_run_epsilon(
    canaries: int, guesses: int, right: int, delta: float, confidence: float
) -> float:
    """The largest ε that ``right`` of ``guesses`` refutes at ``confidence``; 0 if there is none.

    The p-value rises with ε, so every smaller ε is refuted too.
    """
    allowed = 1 - check_fraction("confidence", confidence, zero=False)
    if one_run_p_value(canaries, guesses, right, 0.0, delta) > allowed:
        return 0.0
    low, high = 0.0, _HIGHEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if one_run_p_value(canaries, guesses, right, middle, delta) <= allowed:
            low = middle
        else:
            high = middle
    return low


def _check_trials(field: str, value: Number, least: int) -> int:
    number = check_count(field, value, least)
    if number > 2**53:  # quantiles are computed in floating point
        raise InputError(field, value, "at most 2^53")
    return number
