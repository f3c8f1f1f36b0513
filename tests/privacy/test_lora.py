"""Adapters: what is computed, what is trained, and what stays as it was to the bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

from repro.models import DPResNet
from repro.privacy import add_lora, merge_lora
from repro.privacy.lora import LoRALayer
from tests.privacy.models import (
    clipped,
    cross_entropy,
    looped_gradients,
    noiseless,
    refused,
    small_training,
)

RANK, SCALE = 2, 0.7


class Network(nn.Module):
    """Windows of all kinds, an in-place activation, a layer called twice, a frozen norm."""

    def __init__(self, padding_mode="zeros"):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, padding=1, padding_mode=padding_mode, bias=False)
        self.second = nn.Conv2d(6, 6, (3, 1), padding="same", dilation=2)
        self.grouped = nn.Conv2d(6, 6, 1, groups=2)
        self.norm = nn.GroupNorm(2, 6)
        self.turn = nn.Linear(6, 6)
        self.again = self.turn
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = nn.functional.relu(self.first(x), inplace=True)
        x = self.norm(self.grouped(self.second(x).tanh())).mean((2, 3))
        return self.head(self.again(self.turn(x).tanh()))


def adapted(trained=True, padding_mode="zeros"):
    """The model, and its adapters away from their first values."""
    torch.manual_seed(3)
    model = Network(padding_mode)
    with_adapters, lines = add_lora(model, RANK, scale=SCALE)
    if trained:
        with torch.no_grad():
            for module in with_adapters.modules():
                if isinstance(module, LoRALayer):
                    module.lora_B.weight.normal_(std=0.3)
    return model, with_adapters, lines


def records(count=7):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, 3, 9, 8, generator=generator)
    return inputs, torch.randint(0, 4, (count,), generator=generator)


def test_it_says_what_it_did_on_a_copy_that_computes_the_same():
    model, copied, lines = adapted(trained=False)
    assert lines == (
        "first: Conv2d of 6 × 27 -> with rank 2, 66 numbers",
        "second: Conv2d of 6 × 18 -> with rank 2, 48 numbers",
        "turn: Linear of 6 × 6 -> with rank 2, 24 numbers",
        "head: Linear of 4 × 6 -> with rank 2, 20 numbers",
        "trained: 158 of 540 numbers; the others are frozen",
    )
    assert copied.turn is copied.again, "still one layer under two names"
    inputs, _ = records()
    assert torch.equal(copied(inputs), model(inputs))
    assert all(p.requires_grad for p in model.parameters())
    mine = {id(p) for p in model.parameters()}
    assert not any(id(p) in mine for p in copied.parameters())
    trained = {name for name, p in copied.named_parameters() if p.requires_grad}
    assert {name.rpartition(".lora_")[2] for name in trained} == {"A.weight", "B.weight"}


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_merged_it_is_the_first_models_kind_and_computes_what_the_adapted_one_does(padding_mode):
    model, copied, _ = adapted(padding_mode=padding_mode)
    merged, lines = merge_lora(copied)
    assert len(lines) == 4
    assert [(n, type(m)) for n, m in merged.named_modules()] == [
        (n, type(m)) for n, m in model.named_modules()
    ]
    inputs, _ = records()
    torch.testing.assert_close(merged(inputs), copied(inputs), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(merged(inputs), model(inputs), atol=1e-2)
    assert merge_lora(merged)[1] == ()


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_the_clipped_sum_is_that_of_the_chain_rule_on_whole_weights(engine):
    """Float64, record by record, on the *merged* model, which knows of no adapters: W + s B A has
    ∂/∂B = s G Aᵀ and ∂/∂A = s Bᵀ G, where G is the gradient of the whole weight."""
    _, copied, _ = adapted()
    inputs, targets = records()
    whole = merge_lora(copied)[0].requires_grad_(True)
    looped = looped_gradients(whole, cross_entropy, inputs, targets)
    sizes = [p.numel() for p in whole.parameters()]
    gradients = dict(
        zip([n for n, _ in whole.named_parameters()], looped.split(sizes, dim=1), strict=True)
    )
    columns = []
    for name, layer in copied.named_modules():
        if isinstance(layer, LoRALayer):
            a, b = (m.weight.detach().double().flatten(1) for m in (layer.lora_A, layer.lora_B))
            g = gradients[f"{name}.weight"].view(len(inputs), *layer.base.weight.flatten(1).shape)
            columns += [(SCALE * b.T @ g).flatten(1), (SCALE * g @ a.T).flatten(1)]
    rows = torch.cat(columns, dim=1)
    clip_norm = float(rows.norm(dim=1).median())  # some are clipped, some are not
    summed = noiseless(copied, inputs, targets, clip_norm, engine=engine)
    assert summed.engine == engine
    torch.testing.assert_close(
        summed.flat.double(), clipped(rows, clip_norm), rtol=1e-4, atol=1e-5 * clip_norm
    )


def test_private_steps_leave_every_frozen_bit_and_move_every_adapter():
    """At its first values too, where the gradient of every A is zero and noise alone moves it."""
    _, copied, _ = adapted(trained=False)
    copied.head.base.bias.requires_grad_(True)  # said in the docstring: more may be trained
    before = copy.deepcopy(copied.state_dict())
    optimizer = torch.optim.AdamW(copied.parameters(), lr=0.1, weight_decay=0.1)
    training = small_training(copied, TensorDataset(*records(20)), optimizer, batch_size=5)
    training.train_epoch()
    moving = {name for name, p in copied.named_parameters() if p.requires_grad}
    for name, value in copied.state_dict(keep_vars=False).items():
        name = name.replace("again.", "turn.")
        assert torch.equal(value, before[name]) == (name not in moving), name


def test_layers_by_name_a_whole_network_and_a_model_that_is_one_layer():
    chosen, lines = add_lora(Network().double().eval(), 1, ["again", "head"])
    assert [line.partition(":")[0] for line in lines] == ["again", "head", "trained"]
    assert chosen.turn.lora_A.weight.dtype == torch.float64
    assert not chosen.head.lora_B.training
    alone, lines = add_lora(nn.Linear(3, 2), 2)
    assert isinstance(alone, LoRALayer)
    assert lines[0] == "(the model itself): Linear of 2 × 3 -> with rank 2, 10 numbers"
    assert type(merge_lora(alone)[0]) is nn.Linear
    network, _ = add_lora(DPResNet(width=8), 3)
    noiseless(network, torch.randn(4, 3, 28, 28), torch.arange(4), engine="bookkeeping")


def test_a_model_that_reads_weights_itself_reads_the_adapted_ones():
    """A Transformer's fused path, in evaluation mode, takes ``linear1.weight`` past ``forward``."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)
    copied, lines = add_lora(block, RANK)
    assert [line.partition(":")[0] for line in lines] == ["linear1", "linear2", "trained"]
    with torch.no_grad():
        copied.linear1.lora_B.weight.normal_()
        copied.eval()
        tokens = torch.randn(3, 5, 8)
        torch.testing.assert_close(copied(tokens), merge_lora(copied)[0](tokens))


def hooked():
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, args, output: output)
    return layer


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.ModuleList([first, second])


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.Conv1d(4, 4, 1), "layer 0: got 'Conv1d'"),
        (nn.Conv2d(4, 4, 1, groups=2), "layer 0: got 'Conv2d with groups=2'"),
        (nn.Linear(4, 1), "layer 0: got 'rank 2'; expected at most 1"),
        (hooked(), "layer 0: got 'Linear with hooks'"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "layer 0: got 'ParametrizedLinear'"),
    ],
)
def test_what_cannot_be_adapted_is_named(layer, said):
    model = nn.Sequential(layer)
    with refused(said):
        add_lora(model, RANK, ["0"])
    with refused("rank: got 2"):
        add_lora(model, RANK)  # and nothing else would fit
    assert all(p.requires_grad for p in model.parameters())


def test_bad_arguments():
    model = Network()
    for words, said in [
        ((0,), "rank: got 0"),
        ((2, ["nowhere"]), "layers: got 'nowhere'"),
        ((2, []), "layers: got []"),
    ]:
        with refused(said):
            add_lora(model, *words)
    with refused("scale: got 0"):
        add_lora(model, 2, scale=0)
    with refused("adapters already"):
        add_lora(add_lora(model, 2)[0], 2)
    with refused("whose weight another layer uses"):
        add_lora(tied(), 2, ["0"])
