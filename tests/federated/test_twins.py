"""Twins without privacy: what they compute, that they claim nothing, that no private arm gets one.

Their rounds are compared with an oracle in ``test_second_order``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.accounting import NonPrivateEvent
from repro.errors import InputError
from repro.federated import whitening
from repro.federated.assembly import ledger, round_protocol
from repro.federated.features import LabelledFeatures
from repro.federated.parallel.ranks import Ranks
from repro.federated.shared.exact import ExactSecondOrderTrainer, ExactSum
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.sum import PrivateSum
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training import logistic
from repro.federated.training.logistic import LogisticTrainer
from repro.federated.training.plain import HospitalData
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.runs.arms import ARMS
from repro.runs.settings import RecordPrivacy, RunSettings, UpdatePrivacy
from tests.federated.small import run, small_dataset, small_settings

SEED = RootSeed.from_user(3)
FEATURES, CLASSES, RIDGE = 5, 3, 1e-3
SHARED = [arm.name for arm in ARMS.values() if arm.private and arm.trainer.startswith("shared")]


def made(settings: RunSettings):
    """The arm's protocol, for a linear model, and its ledger."""
    weights = dict.fromkeys(range(settings.hospitals), 40)
    model = WhitenedLinear(FEATURES, CLASSES)
    protocol = round_protocol(settings, weights, model, SEED, Ranks())
    return protocol, ledger(settings, weights, SEED, protocol)


@pytest.mark.parametrize("arm", SHARED)
def test_a_private_arm_never_gets_an_exact_sum(arm):
    settings = small_settings(arm, rounds=4)
    protocol, kept = made(settings)
    assert kept is not None
    if isinstance(protocol, SharedNoiseTrainer):
        sums = [protocol.sum]
    else:
        assert type(protocol) is SecondOrderTrainer
        sums = [*protocol._sums.values(), protocol._steps.sum]
        assert len(sums) == 3
    assert {type(one) for one in sums} == {PrivateSum}
    with pytest.raises(InputError, match="twin_of"):
        replace(settings, twin_of=settings.record_privacy)


@pytest.mark.parametrize("claim", [{"record_privacy": RecordPrivacy()},
                                   {"update_privacy": UpdatePrivacy()}])  # fmt: skip
@pytest.mark.parametrize("arm", ["turned-newton", "turned-logistic"])
def test_settings_without_privacy_cannot_be_given_an_epsilon(arm, claim):
    with pytest.raises(InputError, match=r"twin_of|logistic_ridge"):
        replace(small_settings(arm, rounds=4), **claim)


def test_the_twin_claims_nothing():
    settings = small_settings("turned-newton", rounds=4)
    protocol, kept = made(settings)
    assert kept is None
    assert type(protocol) is ExactSecondOrderTrainer
    assert not replace(settings, seed=None).private
    shares = {0: np.ones(FEATURES), 2: np.arange(5.0)}
    total = ExactSum(protocol.sum_in(1).plan).add_up(shares, round=1)
    np.testing.assert_array_equal(total.total, np.arange(1.0, 6.0))
    assert isinstance(total.event(), NonPrivateEvent)


def test_the_twin_takes_the_steps_that_the_private_arm_takes():
    twin, private = (
        small_settings(arm, hospitals=5, rounds=4)
        for arm in ("turned-newton", "turned-newton-eps6")
    )
    assert twin.twin_of == private.record_privacy
    kept = ("second_order", "shared", "model", "partition", "local", "rounds", "test_stride")
    assert all(getattr(twin, name) == getattr(private, name) for name in kept)
    floors = [made(settings)[0]._sums[2].plan.share_deviation for settings in (twin, private)]
    assert floors[0] == floors[1]


@pytest.mark.parametrize(
    ("arm", "rounds"), [("turned-newton", 4), ("turned-logistic", 1)]
)  # fmt: skip
def test_a_run_learns_and_states_no_epsilon(arm, rounds, tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "IMAGES", 8)
    record = run(small_settings(arm, rounds=rounds), small_dataset(), tmp_path)
    assert record.final_accuracy > 0.4  # of four classes
    assert record.privacy == []
    assert arm == "turned-logistic" or record.secagg is None


def records() -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(7)
    labels = stream.integers(0, CLASSES, 90)
    values = 0.3 * stream.normal(size=(90, FEATURES)) + 0.2 * np.eye(CLASSES, FEATURES)[labels]
    return values.astype(np.float32), labels


def by_newtons_method(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The minimum by full Newton steps with the Hessian written out; (CLASSES, FEATURES)."""
    weight, truth = np.zeros(CLASSES * FEATURES), np.eye(CLASSES)[labels]
    for _ in range(30):
        scores = vectors @ weight.reshape(CLASSES, FEATURES).T
        chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        gradient = ((chances - truth).T @ vectors).ravel() / len(labels) + RIDGE * weight
        hessian = RIDGE * np.eye(len(weight))
        for v, p in zip(vectors, chances, strict=True):
            hessian += np.kron(np.diag(p) - np.outer(p, p), np.outer(v, v)) / len(labels)
        weight = weight - np.linalg.solve(hessian, gradient)
    return weight.reshape(CLASSES, FEATURES)


def test_logistic_regression_is_solved():
    values, labels = records()
    model = WhitenedLinear(FEATURES, CLASSES)
    nn.init.normal_(model.linear.weight)  # where it begins does not matter
    data = HospitalData(0, LabelledFeatures.of(values, labels, "cpu"))
    report = LogisticTrainer(RIDGE).train(model, data, seed=SEED, round_number=1)

    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    vectors = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected = by_newtons_method(vectors, labels)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(model.linear.weight.detach(), expected, rtol=1e-4, atol=1e-4)

    inputs, targets = torch.from_numpy(vectors), torch.from_numpy(labels)
    found = logistic.solved(inputs, targets, CLASSES, RIDGE).requires_grad_()
    loss = F.cross_entropy(inputs @ found.T, targets)
    assert report.loss == pytest.approx(loss.item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(loss + RIDGE / 2 * found.square().sum(), found)
    assert gradient.abs().max() <= 10 * logistic.GRADIENT
    np.testing.assert_allclose(found.detach(), expected, atol=1e-4)


def test_what_cannot_be_solved_is_refused(monkeypatch):
    values, labels = records()
    data = HospitalData(0, LabelledFeatures.of(values, labels, "cpu"))
    with pytest.raises(InputError, match="model"):
        LogisticTrainer(RIDGE).train(nn.Linear(FEATURES, CLASSES), data, seed=SEED, round_number=1)
    with pytest.raises(InputError, match="ridge"):
        LogisticTrainer(0.0)
    monkeypatch.setattr(logistic, "_ITERATIONS", 1)
    with pytest.raises(InputError, match="ridge"):
        LogisticTrainer(RIDGE).train(
            WhitenedLinear(FEATURES, CLASSES), data, seed=SEED, round_number=1
        )
