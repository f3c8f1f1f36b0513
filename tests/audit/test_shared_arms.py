"""Audits of noise shared inside the secure sum, and of second-order runs: honest and broken."""

import json
from dataclasses import replace

import numpy as np
import pytest

from repro.audit.canaries import SIZE, linear_model
from repro.audit.claim import claim_of, full_batch_mu, private_arms
from repro.audit.coalition import Coalition, CoalitionSum
from repro.audit.controls import Actual, actual
from repro.audit.procedure import AuditPlan, as_record, audit
from repro.audit.second_order import WatchedSecondOrder, second_order_trial
from repro.audit.shared_noise import watched_trainer
from repro.cli.audit import CONTROLLED, describe
from repro.federated.shared import second_order
from repro.federated.shared import sum as private_sum
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs.arms import ARMS, get_arm
from repro.runs.composition import compose
from repro.runs.profiles import get_profile

# False alarm of an honest audit: 1e-2 by the confidence, and seeds are fixed. Power: at ε = 12,
# μ is 2.32; with half the noise 99.0 % of runs are told right, and 116 of 120 each way show more.
PLAN = AuditPlan(trials=120, canaries=100, confidence=0.99)
SEED = RootSeed.from_user(3)
MODEL = linear_model(SIZE, 1)
LABELS = np.random.default_rng(0).integers(0, 8, 400)
ARM = {"shared": "scattering-shared-eps6", "second order": "scattering-newton-eps6"}


def settings_of(kind, epsilon=12.0):
    """Four hospitals, of which one colludes and one is lost: two shares of the noise are left."""
    settings = compose(get_arm(ARM[kind]), get_profile("smoke"), hospitals=4, seed=0)
    record = replace(settings.record_privacy, epsilon=epsilon)
    rounds = 3 if settings.second_order else settings.rounds
    return replace(settings, record_privacy=record, rounds=rounds)


def claim(kind, epsilon=12.0):
    return claim_of(settings_of(kind, epsilon), LABELS)


@pytest.mark.parametrize(
    ("kind", "control"),
    [
        ("shared", None),
        ("shared", "halved"),
        ("shared", "unclipped"),
        ("second order", None),
        ("second order", "halved"),
    ],
)
def test_honest_runs_are_not_refuted_and_controls_are(kind, control):
    found = audit(claim(kind), PLAN, control=control)
    assert found.exceeded == (control is not None)
    assert found.as_expected
    record = as_record(found, settings_of(kind), PLAN, 0, {})
    said = describe(json.loads(json.dumps(record)))
    assert "stated for a record against the server and 1 colluding, 1 lost hospital" in said
    assert ("mean, second moments and 1 full-batch steps" in said) == (kind == "second order")
    assert ("REFUTED" in said) == (control is not None)
    bounds = [found.one.epsilon] + [found.many.epsilon] * (found.claim.sample_rate == 1)
    assert record["epsilon_lower"] == max(bounds)


def test_shares_that_are_not_made_are_caught(monkeypatch):
    """The fault in the product, not in the audit's settings."""

    def none(count, width, *, seed, step):
        return np.zeros(count, dtype=np.int64)

    monkeypatch.setattr(private_sum, "integer_gaussian", none)
    assert audit(claim("shared"), PLAN).exceeded


def of_both_worlds(trial):
    """The scores with and without the canary, of the same noise."""
    present = trial(SEED, True)
    noise_keys.clear()  # two worlds with frozen noise, not two uses of its keys
    return present, trial(SEED, False)


def test_without_noise_a_whole_run_says_exactly_mu_squared_over_two():
    """log p/p′ of a Gaussian mechanism without its noise: ± Σ 1/2z², to the grid's rounding."""
    claimed = claim("second order", 6.0)
    trial = second_order_trial(claimed, claimed.sharing, Actual(0.0, 1.0))
    half = full_batch_mu(claimed, claimed.steps) ** 2 / 2
    present, absent = of_both_worlds(trial)
    assert present == pytest.approx(half, rel=1e-3)
    assert absent == pytest.approx(-half, rel=1e-3)


def test_a_second_order_run_without_clipping_is_beyond_doubt():
    """Ten times the mean, a hundred times the moments and unclipped gradients, for one record."""
    claimed = claim("second order", 6.0)
    unclipped = actual(claimed.noise_multiplier, "unclipped")
    present, absent = of_both_worlds(second_order_trial(claimed, claimed.sharing, unclipped))
    mean, moments = claimed.sharing.statistics
    ten, hundred = 9 * mean**-2, 90 * moments**-2
    assert present - absent > ten + hundred > 20 * full_batch_mu(claimed, claimed.steps) ** 2 / 2


@pytest.mark.parametrize(("place", "statistic"), [(0, "_sum_of_vectors"), (1, "_sum_of_products")])
def test_a_record_that_counts_twice_in_a_statistic_shows_there(place, statistic, monkeypatch):
    """The product's own sums are seen: a canary's second time adds 1/z² of that release alone."""
    claimed = claim("second order", 6.0)
    right = getattr(second_order, statistic)
    monkeypatch.setattr(second_order, statistic, lambda *of: 2 * right(*of))
    trial = second_order_trial(claimed, claimed.sharing, Actual(0.0, 1.0))
    more = 1 / claimed.sharing.statistics[place] ** 2
    whole = full_batch_mu(claimed, claimed.steps) ** 2
    present, absent = of_both_worlds(trial)
    assert present - absent == pytest.approx(whole + more, rel=2e-2)


def honestly_watched(claimed):
    honest = actual(claimed.noise_multiplier, None)
    model = linear_model(SIZE, 1)
    return watched_trainer(claimed, claimed.sharing, honest, model=model, seed=SEED)


def test_the_coalition_sees_the_records_and_the_honest_shares_alone():
    claimed = claim("shared")
    trainer, watched = honestly_watched(claimed)
    coalition, plan = watched.coalition, watched.plan
    assert claimed.hospital in coalition.honest
    assert len(coalition.honest) == plan.shares == 2
    assert len(coalition.survivors) == plan.least_survivors
    sums = {one: np.full(SIZE, 0.01 * one) for one in coalition.survivors}
    watched.release(sums, round=1)
    grid = sum(np.rint(values / plan.granularity) for values in sums.values())
    grid += sum(trainer.sum.noise(one, round=1, step=0) for one in coalition.honest)
    np.testing.assert_allclose(watched.seen[0], grid * plan.granularity, rtol=1e-12)


def test_half_the_noise_is_half_of_every_share():
    claimed = claim("shared")
    _, whole = honestly_watched(claimed)
    half = CoalitionSum(whole, whole.coalition, seed=SEED, secagg=None, noise_part=0.5)
    for hospital in whole.coalition.survivors:
        shares = [one.noise(hospital, round=1, step=0) for one in (whole, half)]
        assert np.abs(shares[0] / 2 - shares[1]).max() <= 0.5


@pytest.mark.parametrize("arm", [arm.name for arm in private_arms() if "secagg" not in arm.name])
def test_every_private_arm_states_something_to_audit(arm):
    """What the claim says is what the arm's own trainers plan; no backbone is needed."""
    settings = compose(get_arm(arm), get_profile("smoke"), hospitals=5, seed=0)
    claimed = claim_of(settings, LABELS)
    assert claimed.epsilon == pytest.approx(ARMS[arm].epsilon)
    sharing, honest = claimed.sharing, actual(claimed.noise_multiplier, None)
    if sharing is None:
        return
    assert len(Coalition.planned(claimed, sharing).honest) == 5 - 1 - 1
    if sharing.second is None:
        trainer, _ = honestly_watched(claimed)
        assert trainer.plan.sample_rate == claimed.sample_rate
        assert trainer.steps == claimed.steps_per_round
    else:
        whole = WatchedSecondOrder(claimed, sharing, honest, features=4, classes=3, seed=SEED)
        planned = [whole._sums[number].plan.noise_multiplier for number in (1, 2)]
        assert planned == pytest.approx(sharing.statistics)
        assert full_batch_mu(claimed, claimed.steps) == pytest.approx(whole._mu)
        trainer, _ = whole.steps
    assert trainer.plan.noise_multiplier == pytest.approx(claimed.noise_multiplier)
    assert trainer.plan.sensitivity == pytest.approx(claimed.clip_norm, rel=1e-4)


def test_controls_cover_every_kind_of_private_arm():
    assert {ARMS[name].trainer for name in CONTROLLED} == {arm.trainer for arm in private_arms()}
