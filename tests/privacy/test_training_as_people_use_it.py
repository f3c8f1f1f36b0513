"""``make_private`` in a loop of one's own: planned by σ, validated between steps, in chunks, and
with ``zero_grad``, ``backward``, ``step``; what would bring in a gradient without noise is refused.
"""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.accounting import PLDAccountant, PoissonSampledGaussianEvent
from repro.errors import InputError
from repro.privacy.noise_key import noise_keys
from tests.privacy.models import finish, refused, take
from tests.privacy.test_private_training import RECORDS, data, network, weights
from tests.privacy.test_private_training import planned as planned_by_epsilon


def planned(model=None, optimizer=None, records=None, **options):
    by_noise = {"target_epsilon": None, "noise_multiplier": 1.3}
    return planned_by_epsilon(model, optimizer, records, **by_noise | options)


def test_a_plan_by_noise_states_the_epsilon_that_is_composed():
    training = planned()
    assert training.noise_multiplier == 1.3
    assert training.planned_steps == 12
    step = PoissonSampledGaussianEvent(1.3, 10 / RECORDS)
    expected = PLDAccountant().compose(step, 12).epsilon(1e-3)[0]
    assert training.planned_epsilon() == pytest.approx(expected, rel=1e-12)
    assert training.epsilon() == 0
    finish(training)
    assert training.epsilon() == training.planned_epsilon()
    assert training.planned_epsilon(1e-5) > training.planned_epsilon()
    back = planned_by_epsilon(target_epsilon=training.epsilon())
    assert back.noise_multiplier == pytest.approx(1.3, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_epsilon": 3.0}, "exactly one"),
        ({"noise_multiplier": None}, "exactly one"),
        *(
            ({"noise_multiplier": wrong}, "noise_multiplier: got")
            for wrong in (0.0, -1.0, float("nan"), float("inf"), True)
        ),
    ],
)
def test_a_plan_is_by_one_of_the_two(options, said):
    with refused(said):
        planned(**options)


def test_a_validation_between_steps_changes_nothing():
    """It leaves the model in evaluation mode: the next step still has its dropout masks."""
    plain, validated = planned(network(dropout=0.5)), planned(network(dropout=0.5))
    for _ in range(3):
        plain.step()
        validated.step()
        validated.model.eval()
        validated.model(data().tensors[0])
    assert torch.equal(weights(plain), weights(validated))
    validated.step()
    assert all(module.training for module in validated.model.modules())
    noise_keys.clear()
    without = planned(network(dropout=0.5).eval())
    take(3, without)
    assert not any(module.training for module in without.model.modules()), "as it was planned"
    assert not torch.equal(weights(plain), weights(without)), "the masks matter"


def test_modes_come_back_as_they_were_planned_and_else_are_the_users():
    model = network(dropout=0.5)
    model[2].eval()  # no dropout, though the model trains
    training = planned(model)
    model.eval()
    training.step()
    assert [module.training for module in model] == [True, True, False, True]
    model.train()
    training.step()
    assert model[2].training, "a model in training mode is left alone"


def test_a_logical_batch_is_worked_off_in_chunks():
    """Of 3 records at once or all 10: one draw of noise, the same sum up to rounding."""
    whole, parts = planned(chunk_size=None), planned(chunk_size=3)
    take(4, whole)
    noise_keys.clear()
    take(4, parts)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-5, atol=1e-6)


def own_step(training):
    training.optimizer.zero_grad()
    training.backward()
    training.optimizer.step()


def with_scheduler(**options):
    model = network(dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    return planned(model, optimizer, scheduler=scheduler, **options)


def test_a_loop_of_ones_own_takes_the_same_steps():
    """Bit for bit, the scheduler's too; the last gradient is left where torch leaves it."""
    one, other = with_scheduler(), with_scheduler()
    while not one.finished:
        one.step()
        own_step(other)
    assert other.finished
    assert torch.equal(weights(one), weights(other))
    assert one.optimizer.param_groups[0]["lr"] == other.optimizer.param_groups[0]["lr"] < 0.1
    assert one.epsilon() == other.epsilon() == other.planned_epsilon()
    with pytest.raises(InputError, match="at most 12"):
        own_step(other)


def test_what_backward_leaves_is_the_private_gradient():
    """On a rate of 1 with SGD: the step it makes, and no other parameter has one."""
    model = network()
    model[0].bias.requires_grad_(False)
    training = planned(model, torch.optim.SGD(model.parameters(), lr=1.0))
    before = weights(training)
    assert training.backward() is None
    assert (training.steps, model[0].bias.grad) == (1, None)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    gradient = torch.cat([g.flatten() for g in gradients])
    assert torch.equal(weights(training), before)
    training.optimizer.step()
    torch.testing.assert_close(before - weights(training), gradient)


def leaking_loss(training):
    F.cross_entropy(training.model(data().tensors[0]), data().tensors[1]).backward()


def clipped_afterwards(training):
    nn.utils.clip_grad_norm_(training.model.parameters(), 1e-3)


def dropped(training):
    training.optimizer.zero_grad()


def zeroed(training):
    training.optimizer.zero_grad(set_to_none=False)


def replaced(training):
    first = training.model[0].weight
    first.grad = first.grad.clone() + 1


@pytest.mark.parametrize(
    "change",
    [leaking_loss, clipped_afterwards, dropped, zeroed, replaced],
    ids=lambda f: f.__name__,
)
def test_only_the_released_gradient_is_stepped_with(change):
    training = planned()
    training.backward()
    change(training)
    before = weights(training)
    with pytest.raises(InputError, match="another gradient than the one"):
        training.optimizer.step()
    assert torch.equal(weights(training), before)
    training.optimizer.zero_grad()
    own_step(training)
    assert training.steps == 2, "both were released, used or not"


def test_one_step_for_one_backward():
    training = planned()
    with pytest.raises(InputError, match="a call of one's own"):
        training.optimizer.step()
    own_step(training)
    before = weights(training)
    with pytest.raises(InputError, match="a call of one's own"):
        training.optimizer.step()
    with pytest.raises(InputError, match="zero_grad"):
        training.backward()  # forgotten: torch would add the two
    training.optimizer.zero_grad()
    training.backward()
    closure = functools.partial(leaking_loss, training)
    for call in (
        lambda: training.optimizer.step(closure),
        lambda: training.optimizer.step(closure=closure),
        training.backward,
        training.step,
        training.state_dict,
    ):
        with pytest.raises(InputError):
            call()
    assert torch.equal(weights(training), before)
    assert training.steps == 2
    training.optimizer.step()
    assert training.state_dict()["steps"] == 2
    training.step()
    assert training.steps == 3


def test_a_state_between_own_steps_goes_on():
    one = with_scheduler()
    for _ in range(3):
        own_step(one)
    other = with_scheduler()
    other.load_state_dict(one.state_dict())
    for _ in range(3):
        own_step(one)
        other.step()
    assert torch.equal(weights(one), weights(other))


def test_closed_it_gives_the_optimizer_back():
    training = planned()
    training.backward()
    training.close()
    leaking_loss(training)
    training.optimizer.step()
    assert training.finished
