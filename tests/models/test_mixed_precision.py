"""bf16-mixed: which numbers are bfloat16 and which stay float32, and how far that moves a step."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.models import DPResNet
from repro.models import mixed_precision as mixed
from repro.models.mixed_precision import MixedPrecision, in_precision
from repro.privacy import check_engine, clipped_noisy_sum
from repro.privacy.per_sample import per_sample_gradients

CPU = torch.device("cpu")


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DPResNet(width=8).to(memory_format=torch.channels_last)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 28, 28, generator=generator), torch.arange(6)


def dtypes_of(model, images):
    """Layer's name -> dtype of what it gives."""
    seen = {}

    def note(name):
        def hook(layer, inputs, output):
            seen[name] = output.dtype

        return hook

    handles = [
        layer.register_forward_hook(note(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.GroupNorm)
    ]
    outputs = model(images)
    for handle in handles:
        handle.remove()
    return seen, outputs


def test_convolutions_and_products_are_bfloat16_and_the_rest_float32(network, batch):
    model = in_precision(network, "bf16-mixed", CPU)
    seen, outputs = dtypes_of(model, batch[0])
    assert len(seen) == 17
    assert set(seen.values()) == {torch.bfloat16}
    assert outputs.dtype == torch.float32
    F.cross_entropy(outputs, batch[1]).backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_evaluation_is_float32s_bit_for_bit(network, batch):
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
    model = in_precision(network, "bf16-mixed", CPU).eval()
    assert torch.equal(model(batch[0]), plain(batch[0]))
    assert not torch.equal(model.train()(batch[0]), plain(batch[0]))


def test_float32_is_the_model_itself(network):
    assert in_precision(network, "float32", CPU) is network


def test_gradients_are_near_float64s(network, batch):
    """A bfloat16 number is within 2^-8 = 0.4 % of the exact one, a convolution's input too; eight
    layers of that are some per cent of the gradient, most of it in the first layer, whose own is
    what positions leave of each other. A wrong operand or a lost factor is more."""
    exact = copy.deepcopy(network).double()
    F.cross_entropy(exact(batch[0].double()), batch[1]).backward()
    model = in_precision(network, "bf16-mixed", CPU)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    pairs = list(zip(model.parameters(), exact.parameters(), strict=True))
    errors = torch.stack([(mine.grad.double() - true.grad).norm() for mine, true in pairs])
    norms = torch.stack([true.grad.norm() for _, true in pairs])
    assert (errors < 0.3 * norms).all()
    assert 1e-4 * norms.norm() < errors.norm() < 0.06 * norms.norm()


def test_group_norm_reckons_in_float32():
    """Against float64 on the same bfloat16 numbers, a mean of 100 deviations included: only the
    result is rounded. Statistics in bfloat16 would be off by half a deviation."""
    generator = torch.Generator().manual_seed(3)
    images = (100 + torch.randn(2, 8, 28, 28, generator=generator)).bfloat16()
    layer = nn.GroupNorm(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(images)
    exact = F.group_norm(images.double(), 2)
    assert (found.double() - exact).abs().max() <= 2**-8 * exact.abs().max()


@pytest.mark.parametrize("engine", ["vmap", "bookkeeping"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_what_is_released_is_the_clip_of_what_is_summed(network, batch, engine, scale):
    """In bf16-mixed too: one record more moves the sum by at most the clip norm, at any scale.

    The sums are of gradients that exist in float32, or of factors that were widened to float32
    before norm and sum were taken of them, so no rounding comes between the two.
    """
    model = in_precision(network, "bf16-mixed", CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    images, labels = batch

    def total(records):
        return clipped_noisy_sum(
            model, cross_entropy, images[:records], labels[:records],
            clip_norm=0.05, noise_multiplier=0, seed=1, step=records, engine=engine,
        )  # fmt: skip

    for records in range(1, len(images) + 1):
        with_it, without = total(records), total(records - 1)
        moved = (with_it.flat.double() - without.flat.double()).norm()
        assert moved <= 0.05 * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_fast_engine_is_held_to_what_bfloat16_can_do(network, seed):
    """Not to float32's tolerance, though parameters and outputs are float32: it would be refused
    for its rounding, at some batches and not at others."""
    model = in_precision(network, "bf16-mixed", CPU)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(16, 3, 28, 28, generator=generator)
    labels = torch.randint(0, 8, (16,), generator=generator)
    assert check_engine(model, cross_entropy, images, labels).engine.name == "bookkeeping"


def test_per_record_gradients_are_those_of_each_record_alone(network, batch):
    """The sum of a batch's gradients is not rounded away between records."""
    model = in_precision(network, "bf16-mixed", CPU)
    images, labels = batch
    found = per_sample_gradients(model, cross_entropy, images, labels)
    alone = per_sample_gradients(model, cross_entropy, images[2:3], labels[2:3])
    for name, rows in found.items():
        assert rows.dtype == torch.float32
        difference = (rows[2] - alone[name][0]).norm() / alone[name][0].norm()
        assert difference < 0.05


def test_a_device_without_bfloat16_is_refused(network):
    with pytest.raises(InputError, match=r"precision.*float32 on a meta device"):
        in_precision(network, "bf16-mixed", torch.device("meta"))


def test_the_speed_is_measured_not_guessed(monkeypatch):
    """A convolution that is slow in bfloat16 makes the machine a slow one."""
    true = F.conv2d

    def slow(images, weights, **more):
        if images.dtype == torch.bfloat16:
            for _ in range(6):
                true(images.float(), weights.float(), **more)
        return true(images, weights, **more)

    monkeypatch.setattr(nn.functional, "conv2d", slow)
    mixed.speed_of_bfloat16.cache_clear()
    assert mixed.speed_of_bfloat16("cpu") < mixed.FAST
    mixed.speed_of_bfloat16.cache_clear()


def test_the_wrapper_adds_no_parameter(network):
    before = [p.shape for p in network.parameters()]
    assert [p.shape for p in MixedPrecision(network).parameters()] == before
