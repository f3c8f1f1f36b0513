"""What a lying hospital does to a secure sum, and what sums of few hospitals make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.errors import InputError
from repro.federated.bounded import BoundedAggregation
from repro.federated.parallel.ranks import Ranks
from repro.federated.robust import GroupedAggregation
from repro.randomness import RootSeed
from repro.runs.arms import get_arm
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.settings import Robustness, SecAggParameters

WEIGHTS = {0: 90, 1: 120, 2: 60, 3: 110, 4: 100}
CLIP = 1.0
EXACT = 1e-4  # far above what the encoding rounds


@pytest.fixture
def updates():
    """About one direction, of unlike lengths up to the clip norm."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=50)
    found = {}
    for one in WEIGHTS:
        vector = common + 0.3 * generator.normal(size=50)
        found[one] = torch.tensor(vector / np.linalg.norm(vector) * (0.6 + 0.08 * one)).float()
    return found


def aggregated(updates, weights=WEIGHTS, secagg=None, **settings):
    aggregator = GroupedAggregation(
        Robustness(**settings),
        *(secagg or SecAggParameters(), weights, CLIP, RootSeed.from_user(1), Ranks()),
    )
    aggregator.start(1, weights, torch.zeros(50))
    for one, update in updates.items():
        aggregator.add(one, update)
    return aggregator.finish()


def mean_of(updates, hospitals):
    return sum(WEIGHTS[h] * updates[h] for h in hospitals) / sum(WEIGHTS[h] for h in hospitals)


@pytest.mark.parametrize("alarm", [False, True])
@pytest.mark.parametrize("group", [None, 2, 3, 4, 9])
def test_honest_hospitals_make_the_weighted_mean_in_any_groups(updates, group, alarm):
    found = aggregated(updates, group=group, alarm=alarm)
    torch.testing.assert_close(found.mean, mean_of(updates, WEIGHTS), rtol=0, atol=EXACT)
    assert found.survivors == tuple(WEIGHTS)
    facts = found.facts["secagg"]
    assert (facts["sums"], facts["left_out"]) == ({None: 1, 2: 2, 3: 1, 4: 1, 9: 1}[group], 0)
    assert facts["survivors"] == 5
    assert facts["up_bytes"]["masked"] > 0


def test_the_largest_lie_moves_the_mean_beyond_all_that_is_honest(updates):
    assert aggregated(updates, hostile=1).mean.norm() > 10 * CLIP


def test_the_alarm_on_one_sum_leaves_nothing_of_the_round(updates):
    found = aggregated(updates, hostile=1, alarm=True)
    assert not found.mean.any()
    assert found.survivors == ()
    assert found.facts["secagg"]["left_out"] == 1


def test_in_pairs_the_largest_lie_costs_its_own_sum_only(updates):
    found = aggregated(updates, hostile=1, alarm=True, group=2)
    assert found.survivors == (2, 3, 4)
    torch.testing.assert_close(found.mean, mean_of(updates, (2, 3, 4)), rtol=0, atol=EXACT)


def test_the_reversed_lie_turns_its_own_sum_round_and_is_not_noticed(updates):
    whole = aggregated(updates, hostile=1, lie="reversed", alarm=True)
    assert whole.facts["secagg"]["left_out"] == 0
    assert torch.cosine_similarity(whole.mean, updates[0], dim=0) < -0.9
    pairs = aggregated(updates, hostile=1, lie="reversed", alarm=True, group=2)
    assert pairs.facts["secagg"]["left_out"] == 0
    assert torch.cosine_similarity(pairs.mean, mean_of(updates, WEIGHTS), dim=0) > 0.5


def test_a_sum_twice_as_long_as_most_is_left_out_within_the_clip_norm(updates):
    """Five sums would be needed for a median of honest ones; two pairs and a rest show the rule."""
    short = {one: update * (1.0 if one < 2 else 0.1) for one, update in updates.items()}
    assert aggregated(short, group=2, alarm=True).facts["secagg"]["left_out"] == 0
    even = dict.fromkeys(range(10), updates[0] * 0.1) | {0: updates[0]}
    found = aggregated(even, dict.fromkeys(even, 100), alarm=True, group=2)
    assert found.survivors == tuple(range(2, 10))


@pytest.mark.parametrize(
    "arm", ["fedavg", "calibrated-secagg", "documented-secagg", "dpsgd-eps6-secagg",
            "shared-dpsgd-eps6", "turned-newton-eps6"],
)  # fmt: skip
def test_only_secure_sums_without_noise_have_it(arm):
    """Sums of groups show more than the one sum of all that a ledger accounts for."""
    settings = compose(get_arm(arm), PROFILES["smoke"], hospitals=5, seed=0)
    with pytest.raises(InputError, match=r"robustness.*without noise"):
        replace(settings, robustness=Robustness(group=2))


def test_a_failed_sum_is_told_and_no_reason_to_leave_out_another(updates):
    """A group that loses too many has no mean, and its zero is not taken for a short one."""
    alike, lossy = dict.fromkeys(range(6), updates[0]), SecAggParameters(drop_rate=0.5)
    found = aggregated(alike, dict.fromkeys(alike, 100), lossy, alarm=True, group=2)
    assert found.survivors == ()
    assert not found.mean.any()
    assert (found.facts["secagg"]["left_out"], found.facts["secagg"]["survivors"]) == (0, 0)
    assert found.facts["secagg"]["failed"]


def test_one_process_only():
    class Two(Ranks):
        size = 2

    with pytest.raises(InputError, match=r"ranks.*one process"):
        GroupedAggregation(
            Robustness(), SecAggParameters(), WEIGHTS, CLIP, RootSeed.from_user(1), Two()
        )
    with pytest.raises(InputError, match=r"ranks.*one process"):
        BoundedAggregation(Robustness(norm=1.0), SecAggParameters(), WEIGHTS, Two())


def bounded(updates, **settings):
    aggregator = BoundedAggregation(
        Robustness(norm=CLIP, **settings), SecAggParameters(), WEIGHTS, Ranks()
    )
    aggregator.start(1, WEIGHTS, torch.zeros(50))
    for one, update in updates.items():
        aggregator.add(one, update)
    return aggregator.finish()


def test_bounded_updates_make_the_weighted_mean(updates):
    found = bounded(updates)
    assert found.survivors == tuple(WEIGHTS)
    error = found.facts["secagg"]["max_error_bound"]
    assert (found.mean - mean_of(updates, WEIGHTS)).abs().max() <= error + 1e-7
    assert found.facts["secagg"]["excluded"] == {}


@pytest.mark.parametrize("lie", ["largest", "reversed"])
def test_a_lie_beyond_the_bound_is_named_and_left_out(updates, lie):
    found = bounded(updates, hostile=1, lie=lie)
    assert found.survivors == (1, 2, 3, 4)
    assert set(found.facts["secagg"]["excluded"]) == {"0"}
    torch.testing.assert_close(found.mean, mean_of(updates, (1, 2, 3, 4)), rtol=0, atol=EXACT)


def test_a_lie_within_the_bound_passes_and_moves_the_mean_by_no_more(updates):
    found = bounded(updates, hostile=1, lie="within")
    assert found.survivors == tuple(WEIGHTS)
    others = sum(WEIGHTS[one] * updates[one] for one in WEIGHTS if one)
    lie = found.mean * sum(WEIGHTS.values()) - others
    assert lie.norm() == pytest.approx(CLIP * max(WEIGHTS.values()), rel=1e-3)
    assert torch.cosine_similarity(lie, -updates[0], dim=0) > 0.999


def test_too_many_lies_leave_the_model_as_it_is(updates):
    found = bounded(updates, hostile=4)
    assert not found.mean.any()
    assert "3 that pass" in found.facts["secagg"]["failed"]


def test_longer_updates_are_cut_to_the_norm(updates):
    longer = {one: 3 * update for one, update in updates.items()}
    cut = {one: update / update.norm() for one, update in updates.items()}
    torch.testing.assert_close(bounded(longer).mean, mean_of(cut, WEIGHTS), rtol=0, atol=EXACT)


def test_bounds_have_what_they_need():
    lossy = SecAggParameters(drop_rate=0.2)
    with pytest.raises(InputError, match="drop_rate"):
        BoundedAggregation(Robustness(norm=1.0), lossy, WEIGHTS, Ranks())
    with pytest.raises(InputError, match="norm"):
        Robustness(norm=1.0, group=2)
    with pytest.raises(InputError, match="lie"):
        Robustness(1, "within")
    with pytest.raises(InputError, match="norm"):
        Robustness(norm=0.0)
