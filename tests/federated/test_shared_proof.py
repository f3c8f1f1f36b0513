"""The gaps between the shares' noise and the continuous Gaussian, against 60-digit arithmetic."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import pytest
from mpmath import mp, mpf

from repro.errors import InputError
from repro.federated.shared import NoisePlan, noise_plan
from repro.federated.shared.noise_plan import SMOOTHING
from repro.privacy.integer_gaussian import BASE, Width

FEW = {"hospitals": 10, "colluders": 1, "drop_outs": 1}
SUMS = {"dimension": 95_264, "sensitivity": 0.5, "largest_sum": 6000.0}
PLAN = NoisePlan(**FEW, **SUMS, noise_multiplier=1.3)


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(60):
        yield


def masses(variance, reach):
    """N_Z(0, variance) on −reach … reach, by definition."""
    half = [mpmath.exp(-(mpf(k) ** 2) / (2 * variance)) for k in range(reach + 1)]
    whole = half[0] + 2 * sum(half[1:])
    return {k: half[abs(k)] / whole for k in range(-reach, reach + 1)}


def tau(shares, deviation):
    """Kairouz, Liu, Steinke 2021, Theorem 1."""
    return 10 * sum(
        mpmath.exp(-2 * mp.pi**2 * deviation**2 * mpf(k) / (k + 1)) for k in range(1, shares)
    )


@pytest.mark.parametrize("shares", [2, 3])
@pytest.mark.parametrize("deviation", ["0.5", "0.7", "1"])
def test_sums_of_discrete_gaussians_are_within_tau_of_one(shares, deviation):
    """Exact convolutions of narrow shares, out to 6 deviations of the sum; and τ is not idle."""
    deviation = mpf(deviation)
    reach = int(14 * deviation) + 1
    share = masses(deviation**2, reach)
    total = dict(share)
    for _ in range(shares - 1):
        longer: dict[int, mpf] = {}
        for x, p in total.items():
            for y, q in share.items():
                longer[x + y] = longer.get(x + y, mpf(0)) + p * q
        total = longer
    one = masses(shares * deviation**2, 5 * reach)
    seen = int(6 * deviation * mpmath.sqrt(shares))
    worst = max(abs(mpmath.log(total[x] / one[x])) for x in range(-seen, seen + 1))
    assert tau(shares, deviation) / 100 < worst <= tau(shares, deviation)


def test_tau_is_nothing_at_the_narrowest_share_there_is():
    """And no plan, and no width, is narrower."""
    hospitals = 1000
    assert tau(hospitals, mpf(BASE)) * 10**9 < mpf(10) ** -200_000
    assert tau(2, mpf(1)) > mpf(10) ** -4  # where shares are a step wide it is not
    assert PLAN.width.deviation >= BASE
    with pytest.raises(InputError, match="at least 256"):
        Width.at_most(BASE - 1e-9)
    with pytest.raises(InputError, match="leave fewer than 256 grid steps"):
        replace(PLAN, largest_sum=1e9)


def test_the_rounding_of_a_continuous_gaussian_is_as_even_as_stated():
    """Σ_y e^(−(y−x)²/2r²) over whole y hardly depends on x; a step's width would show."""

    def uneven(r):
        sums = [
            mpmath.fsum(mpmath.exp(-((y - x) ** 2) / (2 * mpf(r) ** 2)) for y in range(-40, 42))
            for x in (mpf(0), mpf("0.25"), mpf("0.5"))
        ]
        return max(abs(s / (r * mpmath.sqrt(2 * mp.pi)) - 1) for s in sums)

    bound = mpf("2.001") * mpmath.exp(-2 * mp.pi**2 * SMOOTHING**2)
    assert bound / 2 < uneven(SMOOTHING) <= bound
    assert uneven(1) > 1e-12
    assert PLAN.log_ratio >= 2 * PLAN.dimension * bound * (1 - mpf(10) ** -10)
    assert PLAN.log_ratio < 1e-12


def test_a_plan_whose_gap_would_show_is_refused(monkeypatch):
    monkeypatch.setattr(noise_plan, "_MOST_LOG_RATIO", PLAN.log_ratio / 2)
    with pytest.raises(InputError, match="dimension: got 95264"):
        replace(PLAN)
