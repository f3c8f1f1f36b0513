"""ResNet-9, what DPResNet was made from: BatchNorm and max-pool, skips in both blocks.

The layout is the "ResNet9" of David Page's DAWNBench CIFAR-10 entry (2018), at 3 channels and
width 64: prep 64, layer1 128 (+ residual), layer2 256, layer3 512 (+ residual).
BatchNorm mixes the samples of a batch, so it has no per-sample gradients and no private arm.
"""

from __future__ import annotations

from torch import Tensor, nn

from repro.shapes import Float


class ResNet9(nn.Module):
    """forward: (B, in_channels, H, W) float32 -> (B, num_classes); H, W ≥ 8."""

    def __init__(self, in_channels: int = 3, num_classes: int = 8, width: int = 64) -> None:
        super().__init__()
        self.prep = _conv_norm(in_channels, width)
        self.layer1 = _pooled(width, 2 * width)
        self.residual1 = _residual(2 * width)
        self.layer2 = _pooled(2 * width, 4 * width)
        self.layer3 = _pooled(4 * width, 8 * width)
        self.residual3 = _residual(8 * width)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(8 * width, num_classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        features = self.layer1(self.prep(images))
        features = features + self.residual1(features)
        features = self.layer3(self.layer2(features))
        features = features + self.residual3(features)
        result: Float[Tensor, "b classes"] = self.classifier(self.pool(features).flatten(1))
        return result


def _conv_norm(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _pooled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm(inputs, outputs), nn.MaxPool2d(2))


def _residual(channels: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm(channels, channels), *_conv_norm(channels, channels))
