"""One private training by two processes: its sum, its noise, its bits, and what ends it."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

import repro.privacy.step
from repro.errors import InputError
from repro.privacy import AdaptiveClipping, RankFailed
from repro.privacy.gate import Voided
from repro.privacy.noise import gaussian_noise
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed
from tests import forked
from tests.federated.jobs import torchrun
from tests.privacy.models import (
    clipped,
    cross_entropy,
    flat,
    looped_gradients,
    small_training,
    take,
)

RANKS, RECORDS, BATCH, SIGMA, CLIP = 2, 41, 12, 1.5, 0.7


def network(seed=0, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3))


def records(seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(RECORDS, 5, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 3, (RECORDS,), generator=generator))


class Broken(TensorDataset):
    """Records of which one cannot be read in this process."""

    broken = False

    def __getitem__(self, index):
        if self.broken:
            raise RuntimeError("a disk that cannot be read")
        return super().__getitem__(index)


def planned(model=None, data=None, **options):
    model = network() if model is None else model
    usual = {"noise_multiplier": SIGMA, "clip_norm": CLIP, "batch_size": BATCH, "seed": 7}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    data = records() if data is None else data
    return small_training(model, data, optimizer, **usual | options)


def released(training):
    """The next step's noisy sum, as the ranks hand it out."""
    training.backward()
    gradient = torch.cat([p.grad.flatten() for p in training.model.parameters()])
    training.optimizer.step()
    training.optimizer.zero_grad()
    return gradient * float(training._source.plan.sampler.expected_batch)


def said(call):
    try:
        call()
    except (InputError, RankFailed, RuntimeError) as problem:
        return f"{type(problem).__name__}: {problem}"
    return "nothing"


def job(rank, port, folder):
    """Everything that two ranks do in these tests; what they found goes to a file each."""
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    group, found = {"process_group": dist.group.WORLD}, {}
    torch.manual_seed(rank)  # nothing may hang on it

    training = planned(**group)
    found["first sum"] = released(training)
    training.train_epoch()
    found["weights"], found["state"] = flat(training.model), training.state_dict()
    found["statement"] = training.statement()

    exact = planned(**group, noise="discrete_gaussian", seed=11)
    take(2, exact)
    found["discrete"] = flat(exact.model)

    wide = network(width=2000)
    found["wide before"] = [p.detach().clone() for p in wide.parameters()]
    secret = planned(wide, seed=None, batch_size=RECORDS, epochs=2, **group)
    found["secret sum"] = released(secret)
    found["secret source"] = secret.statement().rpartition(": ")[2]

    found["alone"] = said(planned)
    found["wrapped"] = said(
        lambda: planned(nn.parallel.DistributedDataParallel(network()), **group)
    )
    found["other model"] = said(lambda: planned(network(seed=rank), **group))
    found["other data"] = said(lambda: planned(data=records(seed=rank), **group))
    found["other plan"] = said(lambda: planned(epochs=1 + rank, **group))
    found["bad on one"] = said(lambda: planned(clip_norm=1.0 if rank == 0 else -1.0, **group))
    found["adaptive"] = said(lambda: planned(adaptive_clipping=AdaptiveClipping(), **group))

    data = Broken(*records().tensors)
    training = planned(data=data, seed=8, **group)
    training.step()
    before = flat(training.model)
    data.broken = rank == 1
    found["broken record"] = said(training.step)
    found["nothing of it"] = torch.equal(flat(training.model), before)
    training = planned(seed=12, **group)
    with torch.no_grad():
        next(training.model.parameters()).add_(rank)
    found["drifted"] = said(training.step)

    training = planned(seed=9, **group)
    training.step()
    watched = repro.privacy.step.watched_sum
    if rank == 1:
        repro.privacy.step.watched_sum = lambda *_: (_ for _ in ()).throw(Voided("a", "b", "c"))
    found["void"] = said(training.step)
    found["void epsilon"] = training.epsilon()
    repro.privacy.step.watched_sum = watched

    training = planned(seed=10, **group)
    training.step()
    found["weights of a step"] = flat(training.model)
    if rank == 1:
        torch.save(found, folder / "1.pt")
        os._exit(1)  # as if killed: no goodbye
    found["death"] = said(training.step), said(training.step)
    found["weights after"] = flat(training.model)
    torch.save(found, folder / "0.pt")
    os._exit(0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = forked.get_context("spawn")
    processes = [context.Process(target=job, args=(rank, port, folder)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 1]
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def test_both_ranks_keep_the_same_bits_those_of_one_process_but_for_rounding(found):
    assert torch.equal(found[0]["weights"], found[1]["weights"])
    alone = planned()
    alone.train_epoch()
    torch.testing.assert_close(found[0]["weights"], flat(alone.model), rtol=1e-4, atol=1e-5)
    assert found[0]["statement"] == found[1]["statement"] == alone.statement()
    resumed = planned()  # the plan is the same, so a state goes on with any number of ranks
    resumed.load_state_dict(found[0]["state"])
    assert torch.equal(flat(resumed.model), found[0]["weights"])


def test_with_discrete_noise_the_bits_are_those_of_one_process(found):
    """Sums are of integers there: how many ranks add them up leaves no trace."""
    alone = planned(noise="discrete_gaussian", seed=11)
    alone.step()
    assert not torch.equal(found[0]["discrete"], flat(alone.model))
    alone.step()
    for rank in range(RANKS):
        assert torch.equal(found[rank]["discrete"], flat(alone.model))


def reference(model, batch):
    """Σ clip(g_i) over these records, looped in float64."""
    inputs, targets = (tensor[batch] for tensor in records().tensors)
    return clipped(looped_gradients(model, cross_entropy, inputs, targets), CLIP)


def test_the_release_is_the_float64_sum_of_the_whole_batch_and_one_known_noise(found):
    root, model = RootSeed.from_user(7), network()
    drawn = PoissonSampler.with_expected_batch(RECORDS, BATCH)
    drawn = drawn.sample(root, party=0, round=0, step=0)
    assert len(drawn) > RANKS
    total = found[0]["first sum"]
    noise = gaussian_noise(
        len(total), std=SIGMA * CLIP, seed=root.derive("make-private noise"), step=0
    )
    torch.testing.assert_close(
        (total - noise).double(), reference(model, drawn), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(total, found[1]["first sum"])


def test_noise_that_nobody_knows_has_the_planned_deviation(found):
    """18,003 numbers of a secret seed, all records drawn. The deviation's own is 1 ÷ √(2P) = 0.53 %
    of it; five of these: a false alarm in 1.7 million. Two noises would be 41 % too much, a half
    of it 29 % too little."""
    model = network(width=2000)
    for mine, theirs in zip(model.parameters(), found[0]["wide before"], strict=True):
        assert torch.equal(mine, theirs)
    total = found[0]["secret sum"]
    assert torch.equal(total, found[1]["secret sum"])
    assert found[0]["secret source"] == "operating system entropy"
    noise = (total.double() - reference(model, torch.arange(RECORDS))) / (SIGMA * CLIP)
    bound = 5 / (2 * len(noise)) ** 0.5
    assert abs(float(noise.square().mean().sqrt()) - 1) < bound


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("alone", "InputError: process_group: got None; expected dist.group.WORLD"),
        ("wrapped", "InputError: layer (the model itself): got 'DistributedDataParallel"),
        ("other model", "InputError: model of rank 1: got"),
        ("other data", "InputError: data of rank 1: got"),
        ("other plan", "InputError: plan of rank 1: got"),
        ("adaptive", "InputError: adaptive_clipping: got 'on'"),
        ("drifted", "InputError: model of rank 1: got"),
        ("void", "Voided: a: got 'b'; expected c"),
    ],
)
def test_what_is_refused_is_refused_on_every_rank(found, what, words):
    for rank in range(RANKS):
        assert found[rank][what].startswith(words)
        assert "\n" not in found[rank][what]


def test_what_fails_on_one_rank_is_released_by_none(found):
    assert found[0]["bad on one"].startswith("InputError: clip_norm (on rank 1): got '-1.0'")
    assert found[1]["bad on one"].startswith("InputError: clip_norm: got -1.0")
    assert "rank 1 of 2 failed: RuntimeError: a disk that cannot" in found[0]["broken record"]
    assert "a disk that cannot be read" in found[1]["broken record"]
    assert found[0]["nothing of it"]
    assert found[1]["nothing of it"]
    assert [one["void epsilon"] for one in found] == [float("inf")] * RANKS


def test_a_dead_rank_ends_the_training_and_releases_nothing(found):
    first, again = found[0]["death"]
    assert first.startswith("RankFailed: rank 0 of 2 cannot reach the others: is one dead?")
    assert again.startswith("RankFailed: rank 0 of 2 cannot reach the others")
    assert torch.equal(found[0]["weights after"], found[0]["weights of a step"])


def test_under_torchrun_the_sums_and_bits_are_those_of_one_process(tmp_path):
    """As a user starts it: nothing but ``torchrun``'s environment says who the ranks are.

    Discrete noise, whose sums are integers: every bit of two steps' sums and of the model.
    """

    def run(ranks, words, module):
        line = torchrun(ranks, words, module)
        return forked.run(line, timeout=300)

    done = run(RANKS, [str(tmp_path)], "tests.privacy.torchrun_job")
    if done.returncode and (starts := run(1, ["-n", "1", "pass"], "timeit")).returncode:
        pytest.skip(f"torchrun cannot start here: {starts.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    alone = planned(noise="discrete_gaussian", seed=13)
    sums = [released(alone), released(alone)]
    assert not torch.equal(*sums)
    for rank in range(RANKS):
        one = torch.load(tmp_path / f"{rank}.pt")
        assert one["size"] == RANKS
        for mine, expected in zip(one["sums"], sums, strict=True):
            assert torch.equal(mine, expected)
        assert torch.equal(one["weights"], flat(alone.model))
