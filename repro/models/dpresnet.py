"""DPResNet, the paper's network: a ResNet-9 with GroupNorm for BatchNorm and stride for max-pool.

Source: the authors' code (arXiv 2412.00687, repository mohres/federated-dp-sec_agg-flower).
Its oddities are kept: only the first residual block has a skip, nothing follows that sum, and
the last two blocks end in a GroupNorm without ReLU.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from repro.errors import InputError
from repro.shapes import Float

GROUPS = 32


class DPResNet(nn.Module):
    """Eight 3×3 convolutions (padding 1, no bias), each with GroupNorm, and one linear layer.

    in_channels: channels of the image; num_classes: logits; width: channels of the first
        convolution (the paper's is 64, which gives 4,802,120 parameters at 3 channels and
        8 classes). The others have 2, 4 and 8 times as many.
    forward: (B, in_channels, H, W) float32 -> (B, num_classes); any H and W (the paper's are
        28). GroupNorm has 32 groups throughout, as in the paper; a ``width`` below 64 has
        width/2, so that groups stay as large as the paper's (2 channels after the first
        convolution, 16 after the last). With 32 groups of one channel each, the last GroupNorm
        would fix every channel's mean, and global pooling would have nothing left to pool.
        No layer mixes samples, so per-sample gradients exist.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 8, width: int = 64) -> None:
        for name, value in [
            ("in_channels", in_channels),
            ("num_classes", num_classes),
            ("width", width),
        ]:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(name, value, "an integer of at least 1")
        super().__init__()
        groups = group_count(width)
        self.conv1 = _conv_norm(in_channels, width, groups, relu=True)
        self.conv2 = _conv_norm(width, 2 * width, groups, relu=True)
        self.res1 = _block(2 * width, 2 * width, groups)
        self.res2 = _block(2 * width, 4 * width, groups, stride=2)
        self.res3 = _block(4 * width, 8 * width, groups, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8 * width, num_classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        features = self.conv2(self.conv1(images))
        features = features + self.res1(features)
        features = self.res3(self.res2(features))
        result: Float[Tensor, "b classes"] = self.classifier(self.pool(features).flatten(1))
        return result


def group_count(width: int) -> int:
    """Groups of every GroupNorm: 32 from width 64 on, width/2 below; always a divisor of width."""
    return math.gcd(min(GROUPS, max(1, width // 2)), width)


def _conv_norm(
    inputs: int, outputs: int, groups: int, *, stride: int = 1, relu: bool
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(groups, outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def _block(inputs: int, outputs: int, groups: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _conv_norm(inputs, outputs, groups, stride=stride, relu=True),
        _conv_norm(outputs, outputs, groups, relu=False),
    )
