"""Beside other accountants: agreement within their documented looseness."""

import math
import warnings

import numpy as np
import pytest

from repro.accounting import (
    FixedBatchGaussianEvent,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    RDPAccountant,
)
from repro.accounting.subsampled_gaussian import rdp_poisson_gaussian
from repro.bench.pld import pld_epsilon
from tests.accounting.oracles import rdp_quadrature, relative

dp_accounting = pytest.importorskip("dp_accounting")

CASES = [(1.1, 64 / 11959, 9342, 1e-5), (0.7, 0.01, 1000, 1e-6), (4.0, 0.2, 500, 1e-4)]


def theirs(event, relation, delta):
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=relation)
    accountant.compose(event)
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("sigma", "q", "steps", "delta"), CASES)
def test_poisson_steps(sigma, q, steps, delta):
    """Never above dp-accounting's RDP (its orders are a subset of ours), within 1 % of it."""
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    reference = theirs(dp_accounting.SelfComposedDpEvent(event, steps), relation, delta)
    step = PoissonSampledGaussianEvent(sigma, q)
    ours, _ = RDPAccountant().compose(step, steps).epsilon(delta)
    assert reference * 0.99 <= ours <= reference * (1 + 1e-7)


@pytest.mark.parametrize(("sigma", "q", "steps", "delta"), CASES)
def test_close_above_the_tight_accountant(sigma, q, steps, delta):
    """RDP never falls below the privacy loss distribution's ε, and gives away less than 25 %."""
    step = PoissonSampledGaussianEvent(sigma, q)
    ours, _ = RDPAccountant().compose(step, steps).epsilon(delta)
    tight = pld_epsilon({step: steps}, delta)
    assert tight <= ours <= tight * 1.25


def test_the_anchor_of_the_tight_accountant():
    """q = 64/11959, σ = 1.1, 9,342 steps, δ = 1e-5: 2.455."""
    step = PoissonSampledGaussianEvent(1.1, 64 / 11959)
    assert pld_epsilon({step: 9342}, 1e-5) == pytest.approx(2.455, abs=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 6.0])
def test_fixed_batches(sigma):
    """Without replacement: never above dp-accounting's bound, within 1 % of it.

    Its noise multiplier is relative to the replace-one sensitivity, ours to the clip norm.
    """
    event = dp_accounting.SampledWithoutReplacementDpEvent(
        10_000, 100, dp_accounting.GaussianDpEvent(sigma / 2)
    )
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    reference = theirs(dp_accounting.SelfComposedDpEvent(event, 300), relation, 1e-5)
    step = FixedBatchGaussianEvent(sigma, 0.01)
    ours, _ = RDPAccountant("replace_one").compose(step, 300).epsilon(1e-5)
    assert reference * 0.99 <= ours <= reference * (1 + 1e-7)


def test_their_fractional_orders_are_looser():
    """Where dp-accounting answers at fractional orders it is above the 50-digit value."""
    from dp_accounting.rdp import rdp_privacy_accountant

    for q, sigma, order in [(0.01, 1.0, 2.5), (0.001, 2.0, 7.3)]:
        reference = float(
            rdp_privacy_accountant._compute_rdp_poisson_subsampled_gaussian(q, sigma, [order])[0]
        )
        ours = float(rdp_poisson_gaussian(sigma, q, np.array([order]))[0])
        assert relative(ours, rdp_quadrature(q, sigma, order)) >= 0
        assert ours <= reference * (1 + 1e-10)


def test_opacus_where_it_has_the_order():
    """Opacus's RDP agrees to 1e-6 at its own orders (it may be below the truth: ours may not)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rdp = pytest.importorskip("opacus.accountants.analysis.rdp", exc_type=ImportError)
        for q, sigma in [(0.01, 1.0), (64 / 11959, 1.1), (0.2, 4.0)]:
            orders = [2.5, 3.7, 8.0, 33.0]
            reference = rdp.compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=orders)
            ours = rdp_poisson_gaussian(sigma, q, np.array(orders))
            np.testing.assert_allclose(ours, reference, rtol=1e-6)


def test_the_cross_check_is_optional(monkeypatch):
    """Without dp-accounting: one line that says what to install."""
    import sys

    from repro.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    with pytest.raises(MissingDependency, match="dp-accounting"):
        pld_epsilon({GaussianEvent(1.0): 1}, 1e-5)


def test_the_cross_check_of_no_noise():
    assert pld_epsilon({GaussianEvent(0.0): 1}, 1e-5) == math.inf
