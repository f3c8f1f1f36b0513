"""The fast integer Gaussian: its table exactly, its draws statistically, its widths by algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from repro.errors import InputError
from repro.privacy import integer_gaussian as module
from repro.privacy.integer_gaussian import BASE, LOG_RATIO, Width, integer_gaussian


def probability(width: Width, x: np.ndarray) -> np.ndarray:
    """Pr[x] of N_Z(0, σ²), by definition."""
    span = np.arange(-12 * int(width.deviation), 12 * int(width.deviation) + 1)
    return np.exp(-(x**2) / 2 / width.variance) / np.exp(-(span**2) / 2 / width.variance).sum()


def test_thresholds_are_the_discrete_gaussians_cumulative_sums():
    table = module._table()
    cumulative = np.array([float(t) / 2**160 for t in table.thresholds])
    k = np.arange(-15 * BASE, 15 * BASE)
    exact = np.cumsum(probability(Width(()), k))
    assert np.abs(cumulative - exact).max() < 1e-13
    assert all(a <= b for a, b in zip(table.thresholds, table.thresholds[1:], strict=False))


@given(st.integers(0, 2**32 - 1))
def test_guide_and_search_agree_with_the_thresholds_by_hand(word):
    table = module._table()
    low, high = word << 128, (word + 1 << 128) - 1
    least = sum(t <= low for t in table.thresholds) - 15 * BASE
    most = sum(t <= high for t in table.thresholds) - 15 * BASE
    (drawn,) = module._looked_up(np.array([word]), key=3)
    assert least <= drawn <= most


def test_words_on_a_threshold_take_more_bits_and_split_as_they_should():
    """At a word that one threshold cuts, both sides come up, in the right proportion (1e-6)."""
    table = module._table()
    place = next(
        i for i in range(15 * BASE, len(table.high)) if (table.high == table.high[i]).sum() == 1
    )
    word = int(table.high[place])
    share = (table.thresholds[place] - (word << 128)) / 2**128  # below the threshold
    drawn = module._looked_up(np.full(20_000, word), key=11)
    below = int((drawn == place - 15 * BASE).sum())
    assert set(drawn) == {place - 15 * BASE, place + 1 - 15 * BASE}
    assert stats.binomtest(below, 20_000, share).pvalue > 1e-6


@pytest.mark.parametrize("multipliers", [(), (1,), (7,), (2, 5)])
def test_draws_have_the_stated_distribution(multipliers):
    """χ² over bins of 1/40 of the mass, 200,000 draws; false alarm 1e-6 a case."""
    width = Width(multipliers)
    drawn = integer_gaussian(200_000, width, seed=1, step=2)
    k = np.arange(-9 * int(width.deviation), 9 * int(width.deviation) + 1)
    cumulative = np.cumsum(probability(width, k))
    edges = k[np.searchsorted(cumulative, np.arange(1, 40) / 40)]
    mass = np.diff(np.concatenate([[0], cumulative[edges - k[0]], [1]]))
    seen = np.bincount(np.searchsorted(edges, drawn, side="left"), minlength=40)
    assert stats.chisquare(seen, mass * len(drawn)).pvalue > 1e-6
    assert stats.kstest(drawn[::2] - drawn[1::2], "norm", (0, width.deviation * 2**0.5))[1] > 1e-6


def test_convolution_is_the_discrete_gaussian():
    """The exact convolution of a small instance, and Poisson summation's bound on the rest."""
    b, m = 6, 1  # ς = s·b/σ = 4.2 steps
    k = np.arange(-90, 91)
    base = np.exp(-(k**2) / 2 / b**2)
    base /= base.sum()
    made = np.convolve(base, base)  # x + m·y
    z = np.arange(-180, 181)
    exact = np.exp(-(z**2) / 2 / (b**2 * (1 + m**2)))
    exact /= exact.sum()
    inner = np.abs(z) < 40
    assert np.abs(np.log(made[inner] / exact[inner])).max() < 1e-12
    for multipliers in ((64,), (64, 64), (1, 64), (64, 1)):
        s, sigma = Width(multipliers[1:]).deviation, Width(multipliers).deviation
        theta = 2 * math.exp(-2 * math.pi**2 * (s * BASE / sigma) ** 2) * 1.001
        assert 3 * 2 * theta < LOG_RATIO


@given(st.floats(BASE, 1e10))
def test_the_largest_width_below(deviation):
    width = Width.at_most(deviation)
    assert width.deviation <= deviation
    if deviation < 2.0**26:
        assert width.deviation > 0.49 * deviation


def test_same_key_same_numbers_and_no_other():
    one = integer_gaussian(5000, Width((9,)), seed=5, step=6)
    assert (one == integer_gaussian(5000, Width((9,)), seed=5, step=6)).all()
    for seed, step in ((5, 7), (6, 6)):
        other = integer_gaussian(5000, Width((9,)), seed=seed, step=step)
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.08
    assert len(integer_gaussian(0, Width(()), seed=0, step=0)) == 0


def test_widths_that_cannot_be_are_refused():
    for multipliers in ((65,), (0,), (1, 1, 1, 1)):
        with pytest.raises(InputError, match="multipliers"):
            Width(multipliers)
    with pytest.raises(InputError, match="deviation"):
        Width.at_most(255)
    with pytest.raises(InputError, match="deviation"):
        Width.at_most(float("nan"))


@pytest.mark.parametrize("chunk", [1, 3, 64, 1000])
def test_numbers_do_not_depend_on_how_many_are_made_at_once(chunk, monkeypatch):
    whole = integer_gaussian(500, Width((3, 64)), seed=5, step=6)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    np.testing.assert_array_equal(integer_gaussian(500, Width((3, 64)), seed=5, step=6), whole)
