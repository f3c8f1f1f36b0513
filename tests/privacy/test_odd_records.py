"""Records, targets and losses of odd kinds: one line that names what is odd, or the right step.

Nothing of torch's own reaches the user raw.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from repro.errors import InputError
from repro.privacy import per_sample_gradients, private_step
from repro.privacy.engines import ENGINES
from tests.privacy.models import noiseless, refused, small_training

COUNT = 40
CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")
INPUTS = torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.randint(0, 3, (COUNT,), generator=torch.Generator().manual_seed(1))


class Made(Dataset):
    """Record i is ``make(i)``."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return self.make(index)


def planned(records, loss_fn=CROSS_ENTROPY, outputs=3, model=None, **options):
    model = nn.Linear(6, outputs) if model is None else model
    return small_training(model, records, loss_fn=loss_fn, **options)


def with_targets(targets):
    return TensorDataset(INPUTS, targets)


@pytest.mark.parametrize(
    ("records", "loss_fn", "field", "said"),
    [
        (Made(lambda i: (INPUTS[i], np.array([0]))), CROSS_ENTROPY, "targets", "(16, 1)"),
        (with_targets(CLASSES.int()), CROSS_ENTROPY, "targets", "int64"),
        (with_targets(CLASSES.to(torch.uint8)), CROSS_ENTROPY, "targets", "uint8"),
        (with_targets(CLASSES + 5), CROSS_ENTROPY, "targets", "out of bounds"),
        (with_targets(CLASSES), lambda o, t: (CROSS_ENTROPY(o, t), o), "loss_fn", "tuple"),
        (with_targets(CLASSES), lambda o, t: None, "loss_fn", "NoneType"),
        (with_targets(CLASSES), lambda o, t: o.missing, "targets", "AttributeError"),
        (with_targets(CLASSES), lambda o, t: CROSS_ENTROPY(o, t)[:, None], "loss_fn", "(16, 1)"),
        (TensorDataset(INPUTS.double(), CLASSES), CROSS_ENTROPY, "inputs", "float64"),
        (TensorDataset(INPUTS[:, :5], CLASSES), CROSS_ENTROPY, "inputs", "(16, 5)"),
        (Made(lambda i: (INPUTS[i, : 3 + i % 3], 0)), CROSS_ENTROPY, "data", "pad or cut"),
        (Made(lambda i: (INPUTS[i], None)), CROSS_ENTROPY, "data", "TypeError"),
        (Made(lambda i: (INPUTS[i], "a")), CROSS_ENTROPY, "data", "(input, target)"),
        (Made(lambda i: {"x": INPUTS[i], "y": 0}), CROSS_ENTROPY, "data", "(input, target)"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(records, loss_fn, field, said):
    with refused(said, field):
        planned(records, loss_fn)


@pytest.mark.parametrize(
    "targets", [torch.where(CLASSES > 1, -100, CLASSES), CLASSES.double(), CLASSES.bool()]
)
def test_other_targets_that_have_one_meaning_are_taken(targets):
    """``ignore_index``, float64 and truth values, each for a loss that is made for it."""
    squared = targets.dtype != torch.int64
    loss = (lambda o, t: (o[:, 0] - t.to(o)) ** 2) if squared else CROSS_ENTROPY
    training = planned(with_targets(targets), loss)
    before = training.model.weight.detach().clone()
    training.train_epoch()
    assert not torch.equal(before, training.model.weight)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_a_record_unlike_those_tried_stops_the_step_in_one_line(engine):
    """A class out of range in the last records: nothing is released, so no step is counted."""
    targets = CLASSES.clone()
    targets[20:] = 7
    training = planned(with_targets(targets), batch_size=COUNT, engine=engine)
    before = training.model.weight.detach().clone()
    with refused("out of bounds", "inputs and targets"):
        training.step()
    assert (training.steps, training.epsilon()) == (0, 0.0)
    assert torch.equal(before, training.model.weight)


@pytest.mark.parametrize(
    ("inputs", "targets", "said"),
    [
        (INPUTS, CLASSES[:, None], "target tensor expected"),
        (INPUTS, CLASSES.int(), "target dtype"),
        (INPUTS, torch.cat([CLASSES[:-1], torch.tensor([7])]), "out of bounds"),
        (INPUTS.double(), CLASSES, "same dtype"),
        (INPUTS[:, :5], CLASSES, "cannot be multiplied"),
        (INPUTS.to_sparse(), CLASSES, "dense"),
    ],
)
def test_the_calls_beneath_say_it_in_one_line_too(inputs, targets, said):
    model = nn.Linear(6, 3)
    calls = (
        lambda: per_sample_gradients(model, CROSS_ENTROPY, inputs, targets),
        lambda: noiseless(model, inputs, targets, loss_fn=CROSS_ENTROPY),
    )
    for call in calls:
        with pytest.raises(InputError) as problem:
            call()
        assert said in str(problem.value)
        assert "\n" not in str(problem.value)
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_an_engine_taken_on_trust_says_it_in_one_line(engine):
    with pytest.raises(InputError, match=r"inputs and targets: got .*out of bounds"):
        noiseless(nn.Linear(6, 3), INPUTS, CLASSES + 5, loss_fn=CROSS_ENTROPY, engine=engine)


def test_running_out_of_memory_is_said_as_torch_says_it(monkeypatch):
    """It is no fault of the records, and smaller chunks mend it."""

    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    training = planned(with_targets(CLASSES))
    monkeypatch.setattr(private_step, "clipped_noisy_sum", full)
    with pytest.raises(torch.OutOfMemoryError):
        training.step()
