"""DPResNet is the authors' network: size, shapes, order of operations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.models import DPResNet


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
