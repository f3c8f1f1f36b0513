"""Adaptive clipping: both releases together cost the planned event, carry the noise it says, and
the clip norm finds its quantile.
"""

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from repro.errors import InputError
from repro.privacy import AdaptiveClipping, NoisySum
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from tests.privacy.models import finish, refused, take
from tests.privacy.test_private_training import summed_by_hand, weights
from tests.privacy.test_training_as_people_use_it import planned

FOLLOW = AdaptiveClipping(quantile=0.3, rate=0.5, count_noise=2.0)


@pytest.mark.parametrize(("z", "count"), [(1.0, 0.6), (0.4, 3.0), (2.5, None), (1.0, None)])
@pytest.mark.parametrize("batch", [10, 200])
def test_the_two_releases_of_a_step_are_the_planned_event(z, count, batch):
    """By an accountant that is not ours: it composes the sum at z_Δ and the count, of sensitivity
    ½, both on one Poisson batch, and gets what a single release at z costs."""
    dp_accounting = pytest.importorskip("dp_accounting")
    from dp_accounting.rdp import RdpAccountant

    of_sum, of_count = AdaptiveClipping(count_noise=count).noises(z, batch)
    assert of_sum > z
    assert of_count == (count or max(batch / 20, 2 * z))
    both = dp_accounting.ComposedDpEvent(
        [dp_accounting.GaussianDpEvent(of_sum), dp_accounting.GaussianDpEvent(of_count / 0.5)]
    )
    spent = [
        RdpAccountant()
        .compose(dp_accounting.PoissonSampledDpEvent(0.1, event), 30)
        .get_epsilon(1e-3)
        for event in (both, dp_accounting.GaussianDpEvent(z))
    ]
    assert spent[0] == pytest.approx(spent[1], rel=1e-9)


def test_the_sums_noise_grows_little_unless_asked():
    assert AdaptiveClipping().noises(1.5, 10)[0] < 1.034 * 1.5
    assert AdaptiveClipping().noises(1.0, 4000)[0] < 1.0001
    for count in (0.5, 0.4):
        with pytest.raises(InputError, match=r"count_noise: got .* half the noise multiplier"):
            AdaptiveClipping(count_noise=count).noises(1.0, 10)


def counted(records, clipped, non_finite):
    return NoisySum({}, torch.zeros(0), "vmap", non_finite, clipped, records)


def following(summed, step, count_noise, clip_norm=3.0, expected_batch=8.0, seed=1):
    how = {"count_noise": count_noise, "expected_batch": expected_batch, "step": step}
    return FOLLOW.next_clip_norm(clip_norm, summed, **how, seed=RootSeed.from_user(seed))


def test_the_clip_norm_moves_by_the_count_and_its_noise():
    """5 drawn, 2 clipped, 1 not finite: Σ (b − ½) = 2 − 5/2. 4000 draws of noise have the variance
    they should within 12 %, but for 1 in 10⁷ (5.3 standard errors of χ²)."""
    summed = counted(5, 2, 1)
    exact = 3 * math.exp(-0.5 * (0.5 - 0.5 / 8 - 0.3))
    assert following(summed, 0, 1e-12) == pytest.approx(exact, rel=1e-9)
    noise_keys.clear()
    moved = torch.tensor([following(summed, step, 2.0) for step in range(4000)]).double()
    noise = -(moved / exact).log() / 0.5 * 8
    assert float(noise.var()) == pytest.approx(4.0, rel=0.12)
    assert abs(float(noise.mean())) < 5.3 * 2 / math.sqrt(4000)


def test_a_key_covers_one_count():
    following(counted(5, 2, 1), 0, 2.0)
    following(counted(5, 2, 1), 0, 2.0)  # a replay
    for other in ((counted(5, 3, 1), 2.0, 3.0), (counted(5, 2, 1), 2.5, 3.0)):
        with pytest.raises(InputError, match="noise key"):
            following(other[0], 0, *other[1:])


def test_the_clip_norm_stays_in_the_range_of_a_clip_norm():
    assert following(counted(1000, 0, 0), 0, 2.0, 2e-15) == 1e-15
    assert following(counted(1000, 1000, 0), 1, 2.0, 9e14) == 1e15


def test_each_step_clips_at_its_own_norm_and_states_the_planned_epsilon():
    """By hand: the same Poisson batch, at the C of that step and z_Δ; then the next C."""
    training, plain = planned(adaptive_clipping=FOLLOW), planned()
    assert training.noise_multiplier == plain.noise_multiplier
    of_sum, of_count = FOLLOW.noises(training.noise_multiplier, 10)
    norms = [training.clip_norm]
    for step in range(3):
        model, before = copy.deepcopy(training.model), weights(training)
        by_hand = summed_by_hand(model, step, of_sum, norms[-1])
        training.step()
        moved = (before - weights(training)) / 0.1 * 10
        torch.testing.assert_close(moved, by_hand.flat, rtol=1e-4, atol=1e-4)
        noise_keys.clear()
        norms.append(following(by_hand, step, of_count, norms[-1], 10.0, seed=7))
        assert training.clip_norm == norms[-1]
    assert len(set(norms)) == 4
    for _ in range(3):
        plain.step()
        noise_keys.clear()
    assert training.epsilon() == plain.epsilon()
    assert "now 0." in training.statement() or "now 1." in training.statement()
    assert "now" not in plain.statement()


def test_the_noise_of_the_sum_is_the_larger_one():
    """Zero gradients: 20 steps of SGD at rate 1 move by noise alone, of deviation z_Δ·C, here 1.8
    times z·C. The variance of 20 · 100 values is within 17 % but for 1 in 10⁷."""
    model = nn.Linear(99, 1)
    training = planned(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        TensorDataset(torch.zeros(2, 99), torch.zeros(2)),
        loss_fn=lambda outputs, targets: 0.0 * outputs[:, 0],
        batch_size=2,
        epochs=20,
        noise_multiplier=2.0,
        target_delta=1e-2,
        adaptive_clipping=AdaptiveClipping(quantile=1.0, rate=0.01, count_noise=1.2),
    )
    moved = []
    while not training.finished:
        before, clip_norm = weights(training), training.clip_norm
        training.step()
        moved.append((weights(training) - before) / clip_norm)
    expected = 1 / (1 / 2.0**2 - 1 / 2.4**2)
    assert float(torch.stack(moved).var() * 4) == pytest.approx(expected, rel=0.17)


def test_the_clip_norm_finds_the_quantile():
    """Norms 1 … 40 that do not change, sought from 1: the median is 20.5. Noise moves log C by
    about 0.05 around it; the bounds are at six times that."""
    model = nn.Linear(40, 1, bias=False)
    inputs = torch.diag(torch.arange(1.0, 41.0))
    training = planned(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        TensorDataset(inputs, torch.zeros(40)),
        loss_fn=lambda outputs, targets: outputs[:, 0],
        batch_size=40,
        epochs=80,
        noise_multiplier=2.0,
        adaptive_clipping=AdaptiveClipping(),
    )
    training.train_epoch()
    assert 1 < training.clip_norm < 1.25, "a factor of e^0.1 and noise"
    finish(training)
    assert 15 < training.clip_norm < 28


def test_a_state_goes_on_with_its_clip_norm():
    new = functools.partial(planned, adaptive_clipping=FOLLOW)
    whole, cut, resumed = new(), new(), new()
    take(3, whole, cut)
    resumed.load_state_dict(cut.state_dict())
    assert resumed.clip_norm == cut.clip_norm != 1.0
    take(3, whole, resumed)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.clip_norm == resumed.clip_norm
    for other in (planned(), planned(adaptive_clipping=AdaptiveClipping())):
        with pytest.raises(InputError, match="state"):
            other.load_state_dict(cut.state_dict())
    with pytest.raises(InputError, match="state"):
        new().load_state_dict(planned().state_dict())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AdaptiveClipping(quantile=1.5), "quantile"),
        (lambda: AdaptiveClipping(quantile=float("nan")), "quantile"),
        (lambda: AdaptiveClipping(rate=-1), "rate"),
        (lambda: AdaptiveClipping(count_noise=0), "count_noise"),
        (lambda: planned(adaptive_clipping=FOLLOW, noise="discrete_gaussian"), "noise"),
        (lambda: planned(adaptive_clipping=AdaptiveClipping(count_noise=0.01)), "count_noise"),
    ],
)
def test_what_has_no_proof_is_refused(make, said):
    with refused("", said):
        make()
