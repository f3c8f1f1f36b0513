"""DP-FTRL with a banded matrix: the noise is C⁻¹ z, a record's pull is what the event says, and one
whose participation the proof does not allow is measured to pull more.
"""

import copy
import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from torch import nn
from torch.utils.data import TensorDataset

from repro.accounting import PLDAccountant, banded_event, event_from_dict, gaussian_epsilon
from repro.errors import InputError
from repro.privacy import AdaptiveClipping, NoisySum, prefix_sum_error
from repro.privacy.banded_noise import BandedNoise, banded_coefficients
from repro.privacy.noise import gaussian_noise
from repro.privacy.noise_key import noise_keys
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed
from tests.privacy.models import finish, refused, take, through_a_file
from tests.privacy.test_private_training import RECORDS, planned, summed_by_hand, weights


def matrix(bands, steps, coefficients=None):
    """C, dense: float64 (steps, steps), its whole columns of norm 1."""
    found = banded_coefficients(bands, steps) if coefficients is None else coefficients
    column = np.zeros(steps)
    column[:bands] = 1, *found
    return np.tril(toeplitz(column)) / np.linalg.norm(column)


@pytest.mark.parametrize(("bands", "steps"), [(1, 7), (2, 2), (3, 40), (16, 100), (9, 9)])
def test_the_matrix_has_the_smallest_error_among_its_neighbours(bands, steps):
    """By dense float64 algebra; moved by 1 % in 20 directions, no matrix is better."""

    def error(coefficients):
        inverse = np.linalg.inv(matrix(bands, steps, coefficients))
        return np.linalg.norm(np.tril(np.ones((steps, steps))) @ inverse) / np.sqrt(steps)

    best = banded_coefficients(bands, steps)
    assert prefix_sum_error(bands, steps) == pytest.approx(error(best), rel=1e-10)
    draws = np.random.default_rng(0)
    for _ in range(20 if bands > 1 else 0):
        direction = draws.standard_normal(bands - 1)
        assert error(np.array(best) + 0.01 * direction / np.linalg.norm(direction)) > error(best)
    if bands == 1:
        assert error(()) == pytest.approx(((steps + 1) / 2) ** 0.5)
    else:
        assert error(best) < prefix_sum_error(bands - 1, steps)


def stream(banded, steps, seed=5, std=2.0):
    """w_t as it comes: sums of zero, with fresh noise of deviation ``std``."""
    for step in steps:
        fresh = gaussian_noise(6, std=std, seed=seed, step=step, dtype=torch.float64)
        parts = {"a": fresh[:4].view(2, 2), "b": fresh[4:].bfloat16()}  # b is a copy
        noisy = NoisySum(parts, fresh, "vmap", 0, 0, 0)
        yield banded.less_the_past(noisy, std=std, seed=seed, step=step)


@pytest.mark.parametrize(("bands", "steps"), [(1, 5), (2, 9), (5, 12), (8, 8)])
def test_the_stream_is_the_solution_of_the_dense_system(bands, steps):
    banded = BandedNoise(bands, steps)
    found = list(stream(banded, range(steps)))
    fresh = [gaussian_noise(6, std=2.0, seed=5, step=t, dtype=torch.float64) for t in range(steps)]
    c = matrix(bands, steps)
    assert banded.fresh == pytest.approx(1 / c[0, 0], rel=1e-12)
    dense = np.linalg.solve(c, c[0, 0] * torch.stack(fresh).numpy())
    np.testing.assert_allclose(torch.stack([s.flat for s in found]), dense, rtol=0, atol=1e-12)
    for summed in found:
        assert torch.equal(summed.gradient["a"].flatten(), summed.flat[:4])
        assert torch.equal(summed.gradient["b"], summed.flat[4:].bfloat16())


def test_a_step_tried_again_takes_the_same_back():
    """An exception after the noise was drawn, before the release: that step is taken anew."""
    banded = BandedNoise(3, 9)
    first = [s.flat for s in stream(banded, [0, 1, 2])]
    again = [s.flat for s in stream(banded, [2, 3])]
    assert torch.equal(first[2], again[0])
    assert torch.equal(again[1], list(stream(BandedNoise(3, 9), range(4)))[3].flat)


def test_every_step_is_the_one_private_sum_less_past_noise():
    """By hand with the public path: the band's Poisson batch, σ √(1 + Σ r²), and C⁻¹ of the rest.
    One band gives the bits of the path itself."""
    for bands in (1, 3):
        noise_keys.clear()
        training = planned(bands=bands)
        key = RootSeed.from_user(7).derive("make-private noise")
        multiplier = training.noise_multiplier / matrix(bands, 12)[0, 0]
        size = weights(training).numel()
        past = [gaussian_noise(size, std=multiplier, seed=key, step=t) for t in range(4)]
        taken = torch.stack(past).numpy() - np.linalg.solve(
            matrix(bands, 12)[:4, :4] / matrix(bands, 12)[0, 0], torch.stack(past).numpy()
        )
        for step in range(4):
            model = copy.deepcopy(training.model)
            by_hand = summed_by_hand(model, step, multiplier, bands=bands).flat
            training.backward()
            got = torch.cat([p.grad.flatten() for p in training.model.parameters()])
            if bands == 1:
                assert torch.equal(got, by_hand.div_(10.0))
            else:
                expected = (by_hand - torch.from_numpy(taken[step])).float() / 10
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
            training.optimizer.step()
            training.optimizer.zero_grad()


SIGMA, CLIP, BANDS, STEPS, WIDE = 1.5, 2.0, 4, 12, 20_000


def released(gradient, *, every_step=False):
    """Σ clip(g) + w of all 12 steps, (12, 20000), of a linear model on 8 records whose gradients
    are 0 but for record 0's: ``gradient`` times the first unit vector. Batches are whole bands."""
    noise_keys.clear()
    inputs = torch.zeros(8, WIDE)
    inputs[0, 0] = gradient
    model = nn.Linear(WIDE, 1, bias=False)
    training = planned(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        TensorDataset(inputs, torch.zeros(8)),
        loss_fn=lambda outputs, targets: outputs[:, 0],
        target_epsilon=None,
        noise_multiplier=SIGMA,
        epochs=3,
        clip_norm=CLIP,
        batch_size=2,
        bands=BANDS,
    )
    if every_step:  # broken on purpose: all records may join every step
        plan = replace(training._source.plan, sampler=PoissonSampler(8, 1.0))
        training._source = replace(training._source, plan=plan)
    sums = []
    while not training.finished:
        training.backward()
        sums.append(model.weight.grad[0].double() * training._source.plan.sampler.expected_batch)
        training.optimizer.step()
        training.optimizer.zero_grad()
    return torch.stack(sums).numpy(), training


def separation(joins, **broken):
    """Of the most powerful linear statistic on all releases, with record 0 against without: shift ÷
    deviation, the deviation over the 19,999 coordinates that nobody's gradient has."""
    c = matrix(BANDS, STEPS)
    (present, training), (absent, _) = released(9.0, **broken), released(0.0, **broken)
    statistic = c.T @ c @ joins
    shift = statistic @ (present - absent)[:, 0]
    return shift / (statistic @ absent[:, 1:]).std(), training, absent


def test_a_records_pull_on_all_releases_is_the_accounted_one():
    """Record 0 in steps 0, 4, 8, whole bands: one Gaussian release of μ = √3 ÷ σ, exactly. The
    deviation over 20,000 draws is within 2.7 % but for 1 in 10⁷. The control, where the record is
    in every step, has to be caught by the same measure. C times the noise is white: each of the 78
    covariances is within 5.5 deviations, all of them but for 1 in 10⁵."""
    once = np.isin(np.arange(STEPS) % BANDS, 0).astype(float)
    measured, training, noise = separation(once)
    accounted = 3**0.5 / SIGMA
    assert training.epsilon() == pytest.approx(
        gaussian_epsilon(SIGMA, 1.0, 3, training.delta), rel=1e-6
    )
    assert measured == pytest.approx(accounted, rel=0.027)
    white = matrix(BANDS, STEPS) @ noise / (SIGMA * CLIP)
    off = np.abs(white @ white.T / WIDE - np.eye(STEPS)) / np.sqrt((1 + np.eye(STEPS)) / WIDE)
    assert off.max() < 5.5
    caught, _, _ = separation(np.ones(STEPS), every_step=True)
    assert caught > 1.5 * accounted


def test_the_sampled_mechanism_costs_what_its_event_says():
    """δ of x itself, not of the event, by 400,000 draws from densities that are written out: record
    0 may join steps 0, 2, 4 of 6 with probability ½ each, C⁻¹ is dense. At the ε of the event for δ
    = 0.05 it may not be above 0.05 and has to be near it: 5 standard errors are 0.002."""
    sigma, rate, steps, bands, delta = 0.8, 0.5, 6, 2, 0.05
    pld = PLDAccountant()
    pld.compose(banded_event(sigma, rate, bands, steps))
    epsilon, _ = pld.epsilon(delta)
    c, draws = matrix(bands, steps), np.random.default_rng(3)
    precision = c.T @ c / sigma**2
    joins = draws.random((400_000, steps)) < rate * (np.arange(steps) % bands == 0)
    x = joins + sigma * np.linalg.solve(c, draws.standard_normal((steps, len(joins)))).T
    ratio = np.zeros(len(x))  # density of x with record 0 ÷ without
    for pattern in itertools.product((0, 1), repeat=3):
        shift = np.zeros(steps)
        shift[::bands] = pattern
        ratio += rate**3 * np.exp(x @ precision @ shift - shift @ precision @ shift / 2)
    found = np.maximum(0, 1 - np.exp(epsilon) / ratio).mean()
    assert found == pytest.approx(delta, abs=0.002)


def test_the_event_is_its_blocks_also_of_unfinished_ones():
    training = planned(bands=3, batch_size=7)
    assert training.sample_rate == 21 / RECORDS
    assert training.planned_epsilon() == pytest.approx(3.0, rel=1e-3)
    assert training.planned_epsilon() <= 3.0
    for blocks in (1, 1, 1, 2):
        training.step()
        single = planned(
            batch_size=21, target_epsilon=None, noise_multiplier=training.noise_multiplier
        )
        assert training.epsilon() == single._bound(blocks, None).epsilon
    assert "in 3 bands" in training.statement()
    event = banded_event(1.2, 0.3, 4, 10)
    assert event_from_dict(event.as_dict()) == event
    assert [times for _, times in event.leaves()] == [3]
    dp_accounting = pytest.importorskip("dp_accounting")
    theirs = dp_accounting.pld.PLDAccountant().compose(
        dp_accounting.PoissonSampledDpEvent(0.3, dp_accounting.GaussianDpEvent(1.2)), 3
    )
    ours = PLDAccountant()
    ours.compose(event)
    assert ours.epsilon(1e-4)[0] == pytest.approx(theirs.get_epsilon(1e-4), rel=1e-2)


def test_records_join_the_steps_of_their_band_alone():
    """2,000 times 3 steps: each count is within 5.5 deviations of the rate's but for 1 in 10⁵."""
    sampler = PoissonSampler.with_expected_batch(50, 8, 3)
    counts = np.zeros((3, 50))
    for step in range(6000):
        drawn = sampler.sample(RootSeed.from_user(1), party=0, round=0, step=step)
        counts[step % 3, drawn] += 1
    for step in range(3):
        mine = np.arange(50) % 3 == step
        assert not counts[step, ~mine].any()
        spread = (2000 * 0.48 * 0.52) ** 0.5
        assert np.abs(counts[step, mine] - 2000 * 0.48).max() < 5.5 * spread
    assert sampler.expected_batch == pytest.approx(8)
    assert sampler.steps_per_epoch() == 7


def test_a_state_goes_on_to_the_same_bits_and_a_private_one_holds_no_noise():
    new = functools.partial(planned, bands=3)
    whole, cut, resumed = new(), new(), new()
    take(4, whole, cut)
    resumed.load_state_dict(through_a_file(cut.state_dict()))
    finish(whole)
    finish(resumed)
    assert torch.equal(weights(whole), weights(resumed))
    for other in (planned(), new(bands=2)):
        with pytest.raises(InputError, match="state"):
            other.load_state_dict(cut.state_dict())
    private, later = new(seed=None), new(seed=None)
    take(4, private)
    state = private.state_dict()
    assert state["past_noise"] == {}, "with it, whoever has the state has the clipped sums"
    later.load_state_dict(state)
    later.step()
    assert list(later._source.banded._past) == [4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bands": 0}, "1"),
        ({"bands": 7}, "at most 6"),
        ({"bands": 3, "epochs": 0.3}, "at most the number of steps, 2"),
        ({"bands": 2, "noise": "discrete_gaussian"}, "discrete_gaussian noise"),
        ({"bands": 2, "adaptive_clipping": AdaptiveClipping()}, "adaptive clipping"),
    ],
)
def test_what_has_no_proof_is_refused(options, said):
    with refused(said, "bands"):
        planned(**options)
