"""The baselines, the registry's keyed initialisation, and the comparison table."""

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.models import ResNet9, build_model
from repro.models.compare import compare, multiply_adds, receptive_field
from repro.randomness import RootSeed
from repro.runs.settings import ModelSettings


def test_initial_weights_follow_the_seed_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    models = [
        build_model(
            ModelSettings(width=4), in_channels=3, num_classes=8, seed=RootSeed.from_user(seed)
        )
        for seed in (1, 1, 2)
    ]
    weights = [next(model.parameters()) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_unknown_model_is_named():
    with pytest.raises(InputError, match="name: got 'vgg'"):
        build_model(ModelSettings("vgg"), in_channels=3, num_classes=8)


@pytest.mark.parametrize(("channels", "classes"), [(1, 9), (3, 8)])
def test_resnet9_shapes(channels, classes):
    model = ResNet9(channels, classes, width=8)
    assert model(torch.zeros(2, channels, 28, 28)).shape == (2, classes)


def test_counts_on_networks_small_enough_to_do_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False),  # 8·8 positions × 3·9·5
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, stride=2, padding=1, bias=False),  # 2·2 positions × 5·9·7
        nn.Flatten(),
        nn.Linear(28, 2),
    )
    assert multiply_adds(net, (3, 8, 8)) == 64 * 135 + 4 * 315 + 56
    # 1 +2·1 (conv) +1·1 (pool, jump→2) +2·2 (conv)
    assert receptive_field(net, (3, 8, 8)) == 8


def test_comparison_knows_the_paper_s_numbers():
    """4,802,120 parameters and 0.64 GMAC per 28×28 image [code]."""
    rows = {row["model"]: row for row in compare()}
    assert rows["dpresnet"]["parameters"] == 4_802_120
    assert rows["dpresnet"]["multiply_adds"] == pytest.approx(0.64e9, rel=0.01)
    assert rows["dpresnet"]["normalisation"] == "GroupNorm"
    assert rows["resnet9"]["normalisation"] == "BatchNorm2d"
    assert rows["resnet18"]["parameters"] == pytest.approx(11.17e6, rel=0.01)
