"""DPResNet, the paper's network: a ResNet-9 with GroupNorm for BatchNorm and stride for max-pool.

Source: the authors' code (arXiv 2412.00687, repository mohres/federated-dp-sec_agg-flower).
Its oddities are kept: only the first residual block has a skip, nothing follows that sum, and
the last two blocks end in a GroupNorm without ReLU. The ablations change one of these decisions;
what a variant adds comes last, so that the layers it shares with the paper's network start from
the same weights.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from repro.checks import check_choice
from repro.errors import InputError
from repro.runs.settings import DOWNSAMPLINGS, NORMALISATIONS, SKIPS
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

    Of the ablations; the defaults are the paper's:
    normalisation: "group"; "batch", which mixes the records of a batch and so has no per-sample
        gradients; "layer", one group; "none", convolutions with a bias instead of its shift.
    downsampling: "stride" in the first convolution of the second and third block, or "pool", a
        2×2 max-pool after its ReLU, as in ResNet-9. Both halve 28 to 14 and 14 to 7.
    skips: round the "first" block only, round "all" three, or "none". Where channels and pixels
        change, the skip is a 1×1 convolution, downsampled and normalised like the block
        (He et al. 2016, arXiv 1512.03385, option B). No ReLU follows a sum.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 8,
        width: int = 64,
        *,
        normalisation: str = "group",
        downsampling: str = "stride",
        skips: str = "first",
    ) -> None:
        sizes = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(name, value, "an integer of at least 1")
        self._normalisation = check_choice("normalisation", normalisation, NORMALISATIONS)
        self._pools = check_choice("downsampling", downsampling, DOWNSAMPLINGS) == "pool"
        self.skips = check_choice("skips", skips, SKIPS)
        super().__init__()
        # 32 from width 64 on, width/2 below; always a divisor of width.
        self._groups = math.gcd(min(GROUPS, max(1, width // 2)), width)
        self.conv1 = self._conv_norm(in_channels, width)
        self.conv2 = self._conv_norm(width, 2 * width)
        self.res1 = self._block(2 * width, 2 * width)
        self.res2 = self._block(2 * width, 4 * width, halve=True)
        self.res3 = self._block(4 * width, 8 * width, halve=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8 * width, num_classes)
        if skips == "all":
            self.skip2 = self._conv_norm(2 * width, 4 * width, kernel=1, halve=True, relu=False)
            self.skip3 = self._conv_norm(4 * width, 8 * width, kernel=1, halve=True, relu=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        features = self.conv2(self.conv1(images))
        first = self.res1(features)
        features = first if self.skips == "none" else features + first
        if self.skips == "all":
            features = self.skip2(features) + self.res2(features)
            features = self.skip3(features) + self.res3(features)
        else:
            features = self.res3(self.res2(features))
        result: Float[Tensor, "b classes"] = self.classifier(self.pool(features).flatten(1))
        return result

    def _block(self, inputs: int, outputs: int, *, halve: bool = False) -> nn.Sequential:
        return nn.Sequential(
            self._conv_norm(inputs, outputs, halve=halve),
            self._conv_norm(outputs, outputs, relu=False),
        )

    def _conv_norm(
        self, inputs: int, outputs: int, *, kernel: int = 3, halve: bool = False, relu: bool = True
    ) -> nn.Sequential:
        stride, bias = 2 if halve and not self._pools else 1, self._normalisation == "none"
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)
        ]
        if self._normalisation == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        elif self._normalisation != "none":
            groups = self._groups if self._normalisation == "group" else 1
            layers.append(nn.GroupNorm(groups, outputs))
        layers += [nn.ReLU()] if relu else []
        layers += [nn.MaxPool2d(2)] if halve and self._pools else []
        return nn.Sequential(*layers)
