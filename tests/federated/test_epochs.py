"""Local epochs that are a fraction: how much is trained on, and what it costs in privacy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import PoissonSampledGaussianEvent
from repro.accounting.checks import ADD_REMOVE, RECORD
from repro.accounting.composition import compose_epsilon
from repro.errors import InputError
from repro.federated.images import LabelledImages
from repro.federated.training.plain import HospitalData, PlainTrainer, images_per_pass
from repro.federated.training.private import plan
from repro.models import DPResNet
from repro.randomness import RootSeed
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.settings import LocalSettings, RecordPrivacy


@given(st.integers(1, 2000), st.floats(0.001, 8))
def test_passes_add_up_to_the_epochs(images, epochs):
    """No pass is longer than the data, only the last is shorter, none is empty, and the total
    is within half an image of the epochs (or one image, where they come to less)."""
    passes = images_per_pass(epochs, images)
    assert all(1 <= count <= images for count in passes)
    assert passes[:-1] == [images] * (len(passes) - 1)
    assert abs(sum(passes) - epochs * images) <= max(0.5, 1 - (epochs % 1) * images) + 1e-6


def test_whole_epochs_are_what_they_were():
    assert images_per_pass(3, 7) == images_per_pass(3.0, 7) == [7, 7, 7]
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="epochs"):
            images_per_pass(wrong, 7)


def test_a_fraction_takes_other_images_each_round():
    """A quarter of 40 images is one batch of 10; two rounds draw different ones."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 28, 28), generator=stream, dtype=torch.uint8)
    data = HospitalData(0, LabelledImages(pixels, torch.arange(40) % 8))
    trainer = PlainTrainer(LocalSettings(epochs=0.25, batch_size=10))
    losses = []
    for round_number in (1, 1, 2):
        torch.manual_seed(0)
        report = trainer.train(
            DPResNet(width=4), data, seed=RootSeed.from_user(0), round_number=round_number
        )
        losses.append(report.loss)
    assert losses[0] == losses[1] != losses[2]


@settings(max_examples=25)
@given(st.integers(40, 1500), st.sampled_from([0.01, 0.05, 0.3, 1, 3]), st.integers(1, 30))
def test_the_plan_spends_the_whole_epsilon_whatever_the_fraction(images, epochs, rounds):
    """The accountant confirms ε of all steps together, from the plan's numbers alone."""
    privacy = RecordPrivacy(epsilon=6.0, expected_batch=16)
    made = plan(privacy, images, epochs, rounds)
    assert made.steps_per_round >= 1
    event = PoissonSampledGaussianEvent(made.noise_multiplier, made.sampler.sample_rate)
    counts = {event: made.steps_per_round * rounds}
    assert 5.9 < compose_epsilon(counts, ADD_REMOVE, RECORD, privacy.delta).epsilon <= 6


@pytest.mark.parametrize("profile", PROFILES)
def test_arms_that_are_compared_train_equally_long(profile):
    """Of one model, at one number of hospitals, private or not."""
    for model in {arm.model for arm in ARMS.values()}:
        lengths = {
            run.local.epochs * run.rounds
            for arm in ARMS.values()
            # Solved to the end, no length; a search's one round is a number of whole trainings.
            if arm.model == model and arm.trainer != "logistic" and arm.search is None
            for run in [compose(arm, PROFILES[profile], hospitals=10, seed=0)]
        }
        assert len(lengths) == 1, model
