r"""RDP bound for Gaussian steps on fixed-size batches drawn without replacement (replace-one).

Wang, Balle, Kasiviswanathan 2019 (arXiv 1808.00087): with sample rate γ and, for the unsampled
Gaussian of noise multiplier σ (noise ÷ *replace-one* sensitivity), ε(j) = j/(2σ²),

    (α−1)·RDP(α) ≤ log(1 + Σ_{j=2}^{α} C(α,j)·γ^j·T_j)       for integer α,
    T_j = min{ 4·√(B(2⌊j/2⌋)·B(2⌈j/2⌉)),  2·e^{(j−1)·ε(j)} },

the second term from Theorem 9 (ε(∞) = ∞ for a Gaussian), the first from Theorem 27, where B(l)
is the l-th forward difference of e^{(j−1)ε(j)} at 0. For the Gaussian that difference is
B(l) = E_{x∼N(0,1)}[(e^{x/σ − 1/(2σ²)} − 1)^l], non-negative for even l, so it is integrated
rather than differenced: nothing cancels. Between integers the moment is bounded by the chord
(Corollary 10), since log-moments are convex.
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number, Orders
from repro.accounting.subsampled_gaussian import rdp_gaussian

_UP = 1 + 1e-10
_LARGEST_ORDER = 2048  # the sum is O(α); beyond, the unsampled bound is used
_LARGEST_DIFFERENCE = 128  # forward differences above this order: Theorem 9's term alone
_STEP = 0.25


def rdp_fixed_batch_gaussian(
    noise_multiplier: Number, sample_rate: Number, orders: Orders
) -> Orders:
    """Upper bound on the RDP of one step under replace-one.

    noise_multiplier: σ ÷ replace-one sensitivity, ≥ 0. sample_rate: batch ÷ units, in [0, 1].
    orders: (m,) float64 in (1, ∞). Returns (m,) float64, in nats; never above the unsampled
    Gaussian's α/(2σ²), which always holds (a mixture over batches, by quasi-convexity).
    """
    sigma = checks.noise_multiplier(noise_multiplier)
    gamma = checks.sample_rate(sample_rate)
    orders = checks.orders(orders)
    if gamma == 0:
        return np.zeros_like(orders)
    unsampled = rdp_gaussian(sigma, orders)
    small = orders <= _LARGEST_ORDER
    if gamma == 1 or not small.any() or not np.all(np.isfinite(unsampled)):
        return unsampled
    chosen = orders[small]
    floor = np.floor(chosen)
    moments = _log_moments(sigma, gamma, int(np.ceil(chosen.max())))
    below = moments[floor.astype(np.int64)]
    above = moments[np.ceil(chosen).astype(np.int64)]
    result = unsampled.copy()
    result[small] = (below + (chosen - floor) * (above - below)) / (chosen - 1) * _UP
    return np.minimum(result, unsampled)


def _log_moments(sigma: float, gamma: float, largest: int) -> np.ndarray:
    """Bounds on log A_n for n = 0 … largest (the first two are 0)."""
    log_terms = _log_terms(sigma, largest)
    j = np.arange(largest + 1, dtype=np.float64)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])
    moments = np.zeros(largest + 1)
    for n in range(2, largest + 1):
        k = slice(2, n + 1)
        log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - 2 :: -1]
        logs = log_choose + j[k] * math.log(gamma) + log_terms[k]
        peak = float(logs.max())
        log_sum = peak + math.log(float(np.exp(logs - peak).sum()))
        # log(1 + e^s) without overflow and without losing a small s.
        moments[n] = np.logaddexp(0.0, log_sum) if log_sum > -30 else math.exp(log_sum)
    return moments


def _log_terms(sigma: float, largest: int) -> np.ndarray:
    """log T_j for j = 0 … largest (the first two entries are unused)."""
    j = np.arange(largest + 1, dtype=np.float64)
    terms = math.log(2) + j * (j - 1) / 2 / sigma / sigma
    differences = _log_even_differences(sigma, min(largest + 1, _LARGEST_DIFFERENCE))
    for k in range(2, min(largest, _LARGEST_DIFFERENCE - 1) + 1):
        product = differences[k // 2] + differences[(k + 1) // 2]
        terms[k] = min(terms[k], math.log(4) + product / 2)
    return terms


def _log_even_differences(sigma: float, largest: int) -> np.ndarray:
    """log B(2i) for i = 0 … ⌈largest/2⌉, by the trapezoidal rule on an entire function."""
    half = np.arange((largest + 1) // 2 + 1, dtype=np.float64)
    power = 2 * half[:, None]
    x = np.arange(-16.0, largest / sigma + 16.0 + math.sqrt(largest), _STEP)
    t = x / sigma - 0.5 / sigma / sigma
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        size = np.where(t > 30, t, np.log(np.abs(np.expm1(np.minimum(t, 40.0)))))
        logs = np.where(power == 0, 0.0, power * size) - 0.5 * x * x
        peak = logs.max(axis=1, keepdims=True)
        total = np.exp(logs - peak).sum(axis=1)
    return peak[:, 0] + np.log(total * (_STEP / math.sqrt(2 * math.pi)))
