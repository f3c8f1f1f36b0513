"""Arguments that are objects: one of another kind is named in one line, by every public call.

What is a number is tried in ``tests/test_arguments.py``.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from repro.errors import InputError
from repro.privacy import (
    add_lora,
    check_engine,
    clipped_noisy_sum,
    fix,
    make_private,
    merge_lora,
    per_sample_gradients,
    prefix_sum_error,
)

CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")
X, Y = torch.randn(40, 6), torch.randint(0, 3, (40,))
OTHERS = {
    **{"0": 0, "nan": float("nan"), "True": True, "text": "x", "empty": "", "bytes": b"x"},
    **{"None": None, "list": [1], "dict": {}, "object": object(), "class": nn.Linear},
    **{"numpy": np.float64(0.5), "torch": torch.tensor(0.5), "function": lambda *given: 1},
    **{"module": nn.ReLU(), "data": TensorDataset(X, Y)},
}
RECORDS = {"inputs": X, "targets": Y}


def trained(**given):
    model = nn.Linear(6, 3)
    usual = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    usual |= {"data": TensorDataset(X, Y), "loss_fn": CROSS_ENTROPY, "noise_multiplier": 1.0}
    usual |= {"target_delta": 1e-3, "epochs": 1, "clip_norm": 1.0, "batch_size": 8}
    return make_private(**usual | given)


def summed(**given):
    usual = {"model": nn.Linear(6, 3), "loss_fn": CROSS_ENTROPY, **RECORDS, "clip_norm": 1.0}
    usual |= {"noise_multiplier": 0.0, "seed": 0, "step": 0}
    return clipped_noisy_sum(**usual | given)


def on_model(call):
    usual = {"model": nn.Linear(6, 3), "loss_fn": CROSS_ENTROPY, **RECORDS}
    return lambda **given: call(**usual | given)


def adapted(**given):
    return add_lora(**{"model": nn.Linear(6, 3), "rank": 2} | given)


# Argument -> what of the above it may be (no name: the model itself).
CALLS = {
    trained: {
        "model": (),
        "optimizer": (),
        "data": ("data",),
        "loss_fn": (),
        "scheduler": ("None",),
        "adaptive_clipping": ("None",),
        "process_group": ("None",),
    },
    summed: {"model": (), "loss_fn": (), "inputs": (), "targets": (), "engine": ()},
    on_model(per_sample_gradients): {"model": (), "loss_fn": (), "inputs": (), "targets": ()},
    on_model(check_engine): {"model": (), "loss_fn": (), "inputs": (), "targets": (), "engine": ()},
    adapted: {"model": (), "layers": ("None", "empty")},
    fix: {"model": ("module",)},
    merge_lora: {"model": ("module",)},
}
# Whether a function is a loss, and a module the right one, shows when it is called.
CALLED = ("function", "module", "class", "data")


pytestmark = pytest.mark.usefixtures("as_users_call_it")


@pytest.mark.parametrize(
    ("call", "argument", "may"),
    [(call, name, may) for call, names in CALLS.items() for name, may in names.items()],
)
def test_what_is_of_another_kind_is_named(call, argument, may):
    for kind, value in OTHERS.items():
        if kind in may:
            call(**{argument: value})
            continue
        with pytest.raises(InputError) as problem:
            call(**{argument: value})
        assert "\n" not in str(problem.value), kind
        if kind not in CALLED:
            assert argument in problem.value.field, (kind, str(problem.value))


def test_a_table_of_bands_takes_whole_numbers_that_memory_can_hold():
    assert prefix_sum_error(2.0, np.int64(10)) == prefix_sum_error(2, 10)
    for bad in ([2], {}, "2", None):
        with pytest.raises(InputError, match="bands"):
            prefix_sum_error(bad, 10)
        with pytest.raises(InputError, match="steps"):
            prefix_sum_error(2, bad)
    with pytest.raises(InputError, match="steps"):
        prefix_sum_error(1, 1e308)
    with pytest.raises(InputError, match=r"steps: .* with bands"):
        trained(epochs=1e9, bands=2)


def test_another_parameter_in_the_place_of_one_is_refused():
    """The optimizer would go on with the old one, and the model would not be trained."""
    model = nn.Linear(6, 3)
    training = trained(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    training.step()
    model.weight = nn.Parameter(model.weight.detach().clone())
    with pytest.raises(InputError, match="other parameters"):
        training.step()
    assert training.steps == 1
