"""Wavelet scattering with a linear layer: the strongest small-data model under DP-SGD we know of.

The first part, a scattering transform (Bruna & Mallat 2013, IEEE TPAMI 35(8)) with GroupNorm, is
fixed before any image is seen, so it costs no privacy; only the linear layer learns (Tramèr &
Boneh 2021, arXiv 2011.11660). It stands beside DPResNet to show how much of what privacy costs is
the network's doing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.shapes import Float

SCALES = 2  # J: the last average covers 2^J pixels, and maps shrink by as much
ANGLES = 8  # L: directions of the wavelets in half a turn
PATHS = 1 + SCALES * ANGLES + ANGLES**2 * SCALES * (SCALES - 1) // 2  # of orders 0, 1 and 2: 81
GROUPS = 27  # of GroupNorm over the maps of three colours (9 maps each)
BORDER = 2**SCALES  # pixels reflected at every side


class ScatteringLinear(nn.Module):
    """``features`` (fixed, no parameters), then ``head`` (linear, the only part that learns).

    in_channels, num_classes: as of DPResNet; size: side of the square images, a multiple of 4
        and at least 8; width: ignored, there for the registry's sake.
    forward: (B, in_channels, size, size) float32 -> (B, num_classes). Training computes
        ``features`` once per image and ``head`` on them (``repro.federated.features``).
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 8, width: int = 64, *, size: int = 28
    ) -> None:
        if size < 8 or size % BORDER:
            raise InputError("size", size, f"a multiple of {BORDER}, at least 8")
        super().__init__()
        self.head = nn.Linear(in_channels * PATHS * (size // BORDER) ** 2, num_classes)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """Scattering coefficients, normalised in groups of maps within each image."""
        maps = scattering(images)
        return F.group_norm(maps, math.gcd(GROUPS, maps.shape[1])).flatten(1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        result: Float[Tensor, "b classes"] = self.head(self.features(images))
        return result


def scattering(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b maps k l"]:
    """(B, C, N, N) float32 -> (B, C · 81, N/4, N/4): orders 0, 1 and 2, in that order.

    S0 = x ⋆ φ, S1 = |x ⋆ ψ_1| ⋆ φ, S2 = ||x ⋆ ψ_1| ⋆ ψ_2| ⋆ φ with ψ_2 coarser than ψ_1 (Bruna &
    Mallat 2013, eq. 6), each computed at the coarsest resolution that holds it.
    """
    shape = images.shape
    padded = F.pad(images.float(), [BORDER] * 4, mode="reflect").flatten(0, 1)
    bank = _bank(padded.shape[-1], str(images.device))
    spectrum = torch.fft.fft2(padded)
    orders: list[list[Tensor]] = [[bank.average(padded, 0)], [], []]
    for scale, wavelet in bank.wavelets(0):
        first = torch.fft.ifft2(_subsample(spectrum * wavelet, scale)).abs()
        orders[1].append(bank.average(first, scale))
        if scale == SCALES - 1:
            continue
        first_spectrum = torch.fft.fft2(first)
        for coarser, second in bank.wavelets(scale):
            if coarser > scale:
                modulus = torch.fft.ifft2(_subsample(first_spectrum * second, coarser - scale))
                orders[2].append(bank.average(modulus.abs(), coarser))
    maps = torch.stack([one for order in orders for one in order], dim=1)
    result: Float[Tensor, "b maps k l"] = maps.unflatten(0, shape[:2]).flatten(1, 2)
    return result


class _Bank:
    """Filters for padded images of one size, in the frequency domain; resolution r: size / 2^r."""

    def __init__(self, size: int, device: str) -> None:
        wavelets = [(j, _morlet(size, j, angle)) for j in range(SCALES) for angle in range(ANGLES)]
        self._wavelets = [
            [(j, _tensor(_restrict(psi, r)).to(device)) for j, psi in wavelets]
            for r in range(SCALES)
        ]
        low = np.fft.fft2(_gabor(size, 0.8 * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)).real
        self._averages = [_averaging(_restrict(low, r), r).to(device) for r in range(SCALES)]

    def wavelets(self, resolution: int) -> list[tuple[int, Tensor]]:
        """(scale, filter) of every wavelet, for signals of that resolution."""
        return self._wavelets[resolution]

    def average(self, signal: Tensor, resolution: int) -> Tensor:
        """signal ⋆ φ at a quarter of the full resolution, the border cut off."""
        weights = self._averages[resolution]
        side = math.isqrt(weights.shape[1])
        result: Tensor = (signal.flatten(1) @ weights).unflatten(1, (side, side))
        return result


@lru_cache(maxsize=4)
def _bank(size: int, device: str) -> _Bank:
    return _Bank(size, device)


def _gabor(size: int, sigma: float, angle: float, frequency: float, slant: float) -> np.ndarray:
    """A Gaussian of deviation ``sigma`` along ``angle`` times a wave, wrapped around, sum about 1.

    slant: its deviation along the wave over the one across.
    """
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    curvature = turn @ np.diag([1.0, slant**2]) @ turn.T / (2 * sigma**2)
    total = np.zeros((size, size), dtype=np.complex128)
    for across in range(-2, 3):
        for along in range(-2, 3):
            x, y = np.meshgrid(
                np.arange(size) + across * size, np.arange(size) + along * size, indexing="ij"
            )
            exponent = curvature[0, 0] * x * x + 2 * curvature[0, 1] * x * y
            exponent = exponent + curvature[1, 1] * y * y
            wave = frequency * (x * math.cos(angle) + y * math.sin(angle))
            total += np.exp(-exponent + 1j * wave)
    return total * slant / (2 * math.pi * sigma**2)


def _morlet(size: int, scale: int, number: int) -> np.ndarray:
    """Spectrum (real) of the Morlet wavelet ψ: a Gabor less the Gaussian that makes its mean 0.

    Deviation 0.8 · 2^j pixels, frequency 3π/4 · 2^−j, slant 4/L: the usual choice for images
    (Bruna & Mallat 2013, section 2.1, with the constants of common implementations).
    """
    angle = number * math.pi / ANGLES
    sigma, slant = 0.8 * 2**scale, 4 / ANGLES
    gabor = _gabor(size, sigma, angle, 3 * math.pi / 4 / 2**scale, slant)
    gaussian = _gabor(size, sigma, angle, 0.0, slant)
    return np.fft.fft2(gabor - gaussian * (gabor.sum() / gaussian.sum())).real


def _restrict(spectrum: np.ndarray, resolution: int) -> np.ndarray:
    """The filter for signals subsampled by 2^resolution: frequencies beyond theirs wrap around."""
    k = 2**resolution
    side = len(spectrum) // k
    result: np.ndarray = spectrum.reshape(k, side, k, side).sum(axis=(0, 2))
    return result


def _averaging(low: np.ndarray, resolution: int) -> Tensor:
    """Low-pass, subsample and crop as one matrix, (side², (N/4)²): the map of every pixel."""
    side = len(low)
    pixels = np.eye(side * side).reshape(-1, side, side)
    smooth = np.fft.ifft2(np.fft.fft2(pixels) * low).real
    step = 2 ** (SCALES - resolution)
    return _tensor(smooth[:, ::step, ::step][:, 1:-1, 1:-1].reshape(side * side, -1))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _subsample(spectrum: Tensor, octaves: int) -> Tensor:
    """The spectrum of the signal at every 2^octaves-th pixel."""
    if octaves == 0:
        return spectrum
    k = 2**octaves
    side = spectrum.shape[-1] // k
    result: Tensor = spectrum.unflatten(-1, (k, side)).mean(-2).unflatten(-2, (k, side)).mean(-3)
    return result
