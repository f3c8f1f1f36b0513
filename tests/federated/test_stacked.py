"""Hospitals trained at once: the numbers of one after the other, up to rounding."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repro.cli import main
from repro.errors import InputError
from repro.federated import images, rounds
from repro.federated.execute import execute
from repro.federated.images import LabelledImages
from repro.federated.parallel.preflight import check_ranks
from repro.federated.parallel.ranks import Ranks, groups_of
from repro.federated.training.plain import ConcurrentTrainer, HospitalData, PlainTrainer
from repro.federated.vector import load_vector, to_vector
from repro.models import DPResNet, ResNet9
from repro.random import RootSeed
from repro.runs.settings import LocalSettings
from repro.runs.store import RunStore
from tests.federated.small import small_dataset, small_settings

SEED = RootSeed.from_user(4)


def hospitals(sizes, pixels=8):
    stream = torch.Generator().manual_seed(0)
    return [
        HospitalData(
            number,
            LabelledImages(
                torch.randint(0, 256, (size, 3, pixels, pixels), generator=stream).to(torch.uint8),
                torch.randint(0, 4, (size,), generator=stream),
            ),
        )
        for number, size in enumerate(sizes)
    ]


def small_model(dtype=torch.float32):
    torch.manual_seed(0)
    return DPResNet(width=2, num_classes=4).to(memory_format=torch.channels_last, dtype=dtype)


def one_after_the_other(trainer, model, own, round_number):
    start = to_vector(model)
    vectors, losses = [], []
    for hospital in own:
        load_vector(model, start)
        report = trainer.train(model, hospital, seed=SEED, round_number=round_number)
        vectors.append(to_vector(model))
        losses.append(report.loss)
    load_vector(model, start)
    return torch.stack(vectors), losses


@pytest.fixture
def double(monkeypatch):
    """Inputs in float64, so that rounding cannot hide a mistake."""
    usual = images.normalise
    monkeypatch.setattr(images, "normalise", lambda pixels: usual(pixels).double())


def both_ways(sizes, epochs, batch, dtype, round_number=1):
    trainer = PlainTrainer(LocalSettings(epochs=epochs, batch_size=batch))
    model, own = small_model(dtype), hospitals(sizes)
    alone, losses = one_after_the_other(trainer, model, own, round_number)
    before = to_vector(model)
    together, reports = trainer.train_together(model, own, seed=SEED, round_number=round_number)
    assert torch.equal(to_vector(model), before)
    assert [report.loss for report in reports] == pytest.approx(losses, rel=1e-5)
    moved = (alone - before).abs().amax(1)
    assert (moved > 1e-4).all()  # everybody has trained
    return alone, together


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 19), min_size=2, max_size=4),
    epochs=st.sampled_from([0.3, 1, 1.5]),
    batch=st.sampled_from([3, 8]),
)
def test_any_sizes_together_equal_one_after_the_other(sizes, epochs, batch):
    """In float64 to 1e-10, though Adam divides by roots of squared gradients: sizes from one
    image on, last batches of any length, other numbers of steps for everybody."""
    usual = images.normalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "normalise", lambda pixels: usual(pixels).double())
        alone, together = both_ways(sizes, epochs, batch, torch.float64)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_float32_differs_by_rounding():
    """Ten steps of 1e-3 each: coordinates agree to 2e-5 at worst and 1e-7 on average.

    (1.2e-7 and 1.2e-9 were seen. What a coordinate with a gradient near zero can differ by is
    more, as Adam scales any gradient up to a whole step.)
    """
    alone, together = both_ways([20, 17, 4], 2, 4, torch.float32)
    difference = (together - alone).abs()
    assert float(difference.max()) < 2e-5
    assert float(difference.mean()) < 1e-7


def test_a_hospitals_numbers_do_not_depend_on_who_is_beside_it(double):
    own = hospitals([5, 19])
    other = hospitals([5, 19, 11])
    trainer = PlainTrainer(LocalSettings(epochs=1, batch_size=8))
    model = small_model(torch.float64)
    two, _ = trainer.train_together(model, own, seed=SEED, round_number=1)
    three, _ = trainer.train_together(
        model, [*own, HospitalData(2, other[2].train)], seed=SEED, round_number=1
    )
    torch.testing.assert_close(three[:2], two, rtol=0, atol=1e-12)


@given(
    st.dictionaries(st.integers(0, 50), st.integers(1, 9), min_size=1),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_groups_are_the_same_on_any_number_of_ranks(cost, together, size):
    """Every id in one group, groups whole on one rank, and of like cost."""
    everybody = groups_of(cost, together)
    assert sorted(one for group in everybody for one in group) == sorted(cost)
    assert all(len(group) == together for group in everybody[:-1])
    falling = [cost[one] for group in everybody for one in group]
    assert falling == sorted(falling, reverse=True)
    shared = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        mine = ranks.groups(cost, together)
        assert sorted(one for group in mine for one in group) == ranks.share(cost, together)
        shared += mine
    assert sorted(shared) == sorted(everybody)


@pytest.fixture(scope="module")
def dataset():
    return small_dataset()


def at_once(arm="fedavg", count=3, **more):
    return dataclasses.replace(small_settings(arm, **more), concurrent=count)


def run(settings, dataset, folder):
    return execute(settings, dataset, RunStore(folder), device="cpu", quiet=True)


@pytest.mark.parametrize(
    "arm",
    ["fedavg", "fedavg-secagg", "calibrated-secagg", "dpsgd-eps6-secagg", "scattering-fedavg",
     "scattering-dpsgd-eps6"],
)  # fmt: skip
def test_runs_agree_with_one_at_a_time(arm, dataset, tmp_path):
    """Five hospitals by three: losses to 1e-3. (Any number of ranks: ``test_distributed``.)"""
    usual = run(small_settings(arm), dataset, tmp_path)
    together = run(at_once(arm), dataset, tmp_path)
    assert together.run_id != usual.run_id
    for ours, theirs in zip(together.history, usual.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_stopped_run_goes_on_bit_for_bit(dataset, tmp_path, monkeypatch):
    whole = run(at_once(rounds=3), dataset, tmp_path / "whole")
    save = rounds.save_checkpoint

    def stopping(folder, state):
        save(folder, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "save_checkpoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(at_once(rounds=3), dataset, tmp_path / "cut")
    monkeypatch.setattr(rounds, "save_checkpoint", save)
    resumed = run(at_once(rounds=3), dataset, tmp_path / "cut")
    assert (resumed.resumed, resumed.stable()) == (1, whole.stable())


def test_models_that_cannot_be_stacked_are_named():
    trainer = PlainTrainer(LocalSettings(epochs=1))
    assert isinstance(trainer, ConcurrentTrainer)
    with_buffer = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with_buffer.register_buffer("scale", torch.ones(1))
    dropout = nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(192, 4))
    for model, text in [
        (ResNet9(width=2), "BatchNorm2d"),
        (with_buffer, "buffer scale"),
        (dropout, "dropout 0"),
    ]:
        with pytest.raises(InputError, match=text):
            trainer.train_together(model, hospitals([3, 3]), seed=SEED, round_number=1)
    kept = PlainTrainer(LocalSettings(epochs=1, keep_optimizer=True))
    with pytest.raises(InputError, match="optimizers are kept"):
        kept.train_together(small_model(), hospitals([3, 3]), seed=SEED, round_number=1)


def test_more_ranks_than_groups():
    three = Ranks()
    three.size = 3
    check_ranks(at_once(count=2), three)
    with pytest.raises(InputError, match="at most 2, the groups of 3 hospitals"):
        check_ranks(at_once(count=3), three)


def test_the_command_takes_several_at_once(tmp_path, capsys):
    words = "run fedavg --hospitals 4 --seed 0 --profile smoke --data synthetic --rounds 1 --json"
    out = str(tmp_path)
    assert main([*words.split(), "--device", "cpu", "--concurrent", "2", "--out", out]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["concurrent"] == 2
