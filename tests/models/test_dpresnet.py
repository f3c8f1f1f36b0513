"""DPResNet is the authors' network: size, shapes, order of operations; and its variants."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.models import DPResNet
from repro.models.registry import build_model
from repro.randomness import RootSeed
from repro.runs.settings import DOWNSAMPLINGS, NORMALISATIONS, SKIPS, ModelSettings


def test_parameter_count_of_the_paper():
    model = DPResNet()
    assert sum(p.numel() for p in model.parameters()) == 4_802_120
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 8
    assert [m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)] == [32] * 8


def test_forward_is_the_written_out_network():
    """The module against the same operations written out, on its parameters in order."""
    torch.manual_seed(0)
    model = DPResNet(width=8, num_classes=5)
    with torch.no_grad():  # away from GroupNorm's identity initialisation
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    p = iter(list(model.parameters()))

    def conv_norm(x, stride, groups):
        x = F.conv2d(x, next(p), stride=stride, padding=1)
        return F.group_norm(x, groups, next(p), next(p))

    images = torch.randn(3, 3, 28, 28)
    x = F.relu(conv_norm(images, 1, 4))  # width/2 groups below width 64
    x = F.relu(conv_norm(x, 1, 4))
    x = x + conv_norm(F.relu(conv_norm(x, 1, 4)), 1, 4)
    x = conv_norm(F.relu(conv_norm(x, 2, 4)), 1, 4)
    x = conv_norm(F.relu(conv_norm(x, 2, 4)), 1, 4)
    assert x.shape[2:] == (7, 7)
    expected = F.linear(x.mean((2, 3)), next(p), next(p))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("channels", "classes", "width"), [(1, 2, 4), (3, 8, 12), (4, 11, 4)])
def test_other_sizes(channels, classes, width):
    found = DPResNet(channels, classes, width)(torch.zeros(2, channels, 28, 28))
    assert found.shape == (2, classes)


@pytest.mark.parametrize(
    ("width", "groups"), [(1, 1), (2, 1), (5, 1), (6, 3), (8, 4), (32, 16), (64, 32), (96, 32)]
)
def test_groups_stay_as_large_as_the_paper_s(width, groups):
    modules = DPResNet(width=width).modules()
    assert {m.num_groups for m in modules if hasattr(m, "num_groups")} == {groups}


@pytest.mark.parametrize("field", ["in_channels", "num_classes", "width"])
def test_bad_sizes_are_one_line(field):
    with pytest.raises(InputError, match=f"{field}: got 0; expected"):
        DPResNet(**{field: 0})


def build(**options):
    settings = ModelSettings(width=8, **options)
    return build_model(settings, in_channels=3, num_classes=8, seed=RootSeed.from_user(3))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("normalisation", kind) for kind in NORMALISATIONS if kind != "group"),
        *(("downsampling", kind) for kind in DOWNSAMPLINGS if kind != "stride"),
        *(("skips", kind) for kind in SKIPS if kind != "first"),
    ],
)
def test_each_option_changes_the_function_but_not_the_shared_weights(option, value):
    """Convolutions start from DPResNet's weights, so a variant differs by its option alone."""
    paper, variant = build().eval(), build(**{option: value}).eval()
    theirs = paper.state_dict()
    # Biases, drawn where there is no normalisation, shift the random stream of what follows.
    if value != "none" or option != "normalisation":
        shared = {n: t for n, t in variant.state_dict().items() if n in theirs and t.ndim > 1}
        assert len(shared) == 9  # eight convolutions and the classifier
        assert all(torch.equal(theirs[name], tensor) for name, tensor in shared.items())
    output = variant(images())
    assert output.shape == (4, 8)
    assert not torch.allclose(output, paper(images()), atol=1e-4)


def test_only_batch_normalisation_mixes_records():
    """In training, changing one image changes the others' outputs under BatchNorm only: of the
    paper's own network, the default, too."""
    for kind in NORMALISATIONS:
        model = build(normalisation=kind).train()
        one, other = images(), images()
        other[0] = images(9)[0]
        same = torch.allclose(model(one)[1:], model(other)[1:], atol=1e-6)
        assert same == (kind != "batch"), kind


def test_unknown_options_and_other_models_are_refused():
    with pytest.raises(InputError, match="skips"):
        DPResNet(skips="two")
    with pytest.raises(InputError, match="dpresnet"):
        build_model(ModelSettings("resnet9", skips="all"), in_channels=3, num_classes=8)
