"""Update mechanisms: clipping, noise, LocalDpMod's formula, non-finite updates."""

import math

import pytest
import torch

from repro.errors import InputError
from repro.privacy import ClipAndNoiseUpdate, ClipUpdate, Identity, local_dp_mod_sigma
from repro.randomness import RootSeed

SEED = RootSeed.from_user(1)
PLACE = {"seed": SEED, "party": 2, "round": 3}
EVERY = [Identity(), ClipUpdate(7.0), ClipAndNoiseUpdate(7.0, 0.5)]


def test_local_dp_mod_to_the_digit():
    assert f"{local_dp_mod_sigma(6.0, 1.9e-4, 1.0):.6f}" == "0.698873"
    assert local_dp_mod_sigma(3.0, 1e-5, 2.0) == pytest.approx(
        math.sqrt(2 * math.log(1.25e5)) * 2 / 3
    )


@pytest.mark.parametrize("mechanism", EVERY)
def test_the_given_update_is_not_changed(mechanism):
    update = torch.full((100,), 2.0)
    sent, _ = mechanism(update, **PLACE)
    assert torch.equal(update, torch.full((100,), 2.0))
    assert sent.data_ptr() != update.data_ptr()


def test_clip_bounds_the_norm_and_leaves_small_updates_alone():
    torch.manual_seed(0)
    small, large = torch.randn(50) * 0.1, torch.randn(50) * 10
    sent, report = ClipUpdate(7.0)(small, **PLACE)
    assert torch.equal(sent, small)
    assert not report.clipped
    sent, report = ClipUpdate(7.0)(large, **PLACE)
    assert report.clipped
    torch.testing.assert_close(sent, large * (7.0 / large.norm()))
    huge, _ = ClipUpdate(7.0)(torch.full((4,), 3e38), **PLACE)  # squares overflow float32
    torch.testing.assert_close(huge, torch.full((4,), 3.5))


def test_the_noise_is_added():
    """The bug of Flower before 1.14: noise logged, and thrown away.

    200,000 coordinates: the measured deviation is within 5 standard errors (chance 6e-7).
    """
    update = torch.zeros(200_000)
    sent, report = ClipAndNoiseUpdate(7.0, 0.698873)(update, **PLACE)
    assert report.noise_std == 0.698873
    deviation = float(sent.double().std())
    assert abs(deviation / 0.698873 - 1) < 5 / math.sqrt(2 * len(sent))


def test_noise_differs_by_party_round_and_seed_and_repeats_for_the_same():
    mechanism, update = ClipAndNoiseUpdate(1.0, 1.0), torch.zeros(8)
    sent = {
        tuple(mechanism(update, seed=seed, party=h, round=r)[0].tolist())
        for seed in (SEED, RootSeed.from_user(2))
        for h in (0, 1)
        for r in (0, 1)
        for _ in range(2)
    }
    assert len(sent) == 8


@pytest.mark.parametrize("mechanism", EVERY)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_non_finite_update_becomes_zero_and_is_counted(mechanism, poison):
    update = torch.ones(10)
    update[3] = poison
    sent, report = mechanism(update, **PLACE)
    expected, _ = mechanism(torch.zeros(10), **PLACE)
    assert report.non_finite
    assert torch.equal(sent, expected)


def test_sensitivity():
    assert ClipUpdate(7.0).sensitivity() == 7.0
    assert ClipAndNoiseUpdate(7.0, 1.0).sensitivity("replace_one") == 14.0
    with pytest.raises(InputError, match="relation"):
        ClipUpdate(7.0).sensitivity("swap")


@pytest.mark.parametrize(
    "call",
    [
        lambda: ClipUpdate(0.0),
        lambda: ClipUpdate(math.nan),
        lambda: ClipAndNoiseUpdate(1.0, -1.0),
        lambda: local_dp_mod_sigma(0.0, 1e-5, 1.0),
        lambda: local_dp_mod_sigma(1.0, 1.0, 1.0),
    ],
)
def test_bad_settings_are_one_line(call):
    with pytest.raises(InputError, match="got"):
        call()
