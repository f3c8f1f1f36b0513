"""DPResNet with one design decision changed: normalisation, downsampling or skips.

At its defaults it *is* DPResNet: the same modules under the same names, hence the same initial
weights for a seed and the same outputs. What a variant adds comes last, so that the layers it
shares with DPResNet start from the same weights too.
"""

from __future__ import annotations

from torch import Tensor, nn

from repro.errors import InputError
from repro.models.dpresnet import group_count
from repro.shapes import Float

NORMALISATIONS = ("group", "batch", "layer", "none")
DOWNSAMPLINGS = ("stride", "pool")
SKIPS = ("first", "all", "none")


class DPResNetVariant(nn.Module):
    """forward: (B, in_channels, H, W) float32 -> (B, num_classes).

    normalisation: "group", DPResNet's groups; "batch", which mixes the records of a batch and so
        has no per-sample gradients; "layer", one group; "none", convolutions with a bias instead
        of the normalisation's shift.
    downsampling: "stride" in the first convolution of the second and third block, or "pool", a
        2×2 max-pool after its ReLU, as in ResNet-9. Both halve 28 to 14 and 14 to 7.
    skips: round the "first" block only, round "all" three, or "none". Where channels and pixels
        change, the skip is a 1×1 convolution, downsampled and normalised like the block
        (He et al. 2016, arXiv 1512.03385, option B). As in DPResNet no ReLU follows a sum.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 8,
        width: int = 64,
        normalisation: str = "group",
        downsampling: str = "stride",
        skips: str = "first",
    ) -> None:
        for name, value, known in [
            ("normalisation", normalisation, NORMALISATIONS),
            ("downsampling", downsampling, DOWNSAMPLINGS),
            ("skips", skips, SKIPS),
        ]:
            if value not in known:
                raise InputError(name, value, "one of " + ", ".join(known))
        super().__init__()
        self._normalisation, self._groups = normalisation, group_count(width)
        self._pools, self.skips = downsampling == "pool", skips
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
        convolution = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=2 if halve and not self._pools else 1,
            padding=kernel // 2,
            bias=self._normalisation == "none",
        )
        layers: list[nn.Module] = [convolution, *self._norm(outputs)]
        layers += [nn.ReLU()] if relu else []
        layers += [nn.MaxPool2d(2)] if halve and self._pools else []
        return nn.Sequential(*layers)

    def _norm(self, channels: int) -> list[nn.Module]:
        if self._normalisation == "batch":
            return [nn.BatchNorm2d(channels)]
        if self._normalisation == "none":
            return []
        return [nn.GroupNorm(self._groups if self._normalisation == "group" else 1, channels)]
