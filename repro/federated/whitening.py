"""Whitening learnt from images that a program drew: it sees no hospital's image, so it is free.

Features of a fixed network differ a thousandfold in scale and go together. A private gradient
method then spends its noise budget on the few directions that vary most. Dividing by what varies
among *drawn* images evens out most of it, before any private image is touched; what is left, the
private second moments of ``repro.federated.shared.second_order`` do. For BloodMNIST blood cells are
drawn (``repro.data.synthetic``); for every other data set images of nothing in particular
(``repro.data.discs``), so that nothing is assumed of its classes or of what it shows.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.checks import check_choice
from repro.data import discs
from repro.data.synthetic import synthetic_split
from repro.errors import InputError
from repro.federated.images import normalise
from repro.models import rings
from repro.shapes import Float

STREAM = 77  # of the synthetic images: another one than any data set's
IMAGES = 500  # of each of the drawn cells' eight classes; eight times as many of the others
DRAWN = ("cells", "discs")
CLIP = 12.0  # deviations a raw feature may lie from its synthetic mean
RIDGE = 0.01  # added to every variance, in squared deviations: directions nothing varies in
_BATCH = 64


@runtime_checkable
class RawFeatures(Protocol):
    """A model whose ``features`` are to be whitened before its ``head`` sees them."""

    head: nn.Module
    raw_features: int
    whitened_features: int

    def features(self, images: Tensor) -> Tensor: ...


class Whitening(NamedTuple):
    """Of R raw features: (R,) mean, (R,) deviation, (R, F) axes; float32."""

    mean: Tensor
    deviation: Tensor
    axes: Tensor

    def packed(self) -> Float[np.ndarray, "r f_and_2"]:
        """Mean and deviation before the axes; little-endian, whatever the machine."""
        joined = torch.cat([self.mean[:, None], self.deviation[:, None], self.axes], dim=1)
        return joined.numpy().astype("<f4")

    @classmethod
    def unpacked(cls, packed: Float[np.ndarray, "r f_and_2"]) -> Whitening:
        joined = torch.from_numpy(packed.astype(np.float32))
        # Each whole in memory, as it was made: a product's last bits hang on that.
        return cls(*(one.contiguous() for one in (joined[:, 0], joined[:, 1], joined[:, 2:])))


class Whitened(nn.Module):
    """``features``: the model's, standardised, on the drawn images' leading principal axes.

    Every feature vector has length 1. (B, C, N, N) in [−1, 1] -> (B, ``whitened_features``).
    channels: of the images the model takes, 1 or 3. drawn: one of ``DRAWN``; the images are drawn
    at the first call. A model that has ``filters`` is whitened by what they say instead; by
    nothing, its features are the raw ones, of length 1. given: what somebody else made of the
    drawn images, in place of it.
    """

    def __init__(
        self,
        model: RawFeatures,
        channels: int,
        drawn: str = "cells",
        given: Whitening | None = None,
    ) -> None:
        check_choice("drawn", drawn, DRAWN)
        super().__init__()
        varied = getattr(model, "filters", None)
        self._drawn = drawn if varied is None else varied.whitened_by
        self._raw = [model]  # in a list, so that it is no submodule
        self.head = model.head
        self._channels = channels
        self._lock = threading.Lock()
        self.given = self._fitted = given
        if given is not None:
            raw, kept = model.raw_features, model.whitened_features
            shapes, expected = [tuple(one.shape) for one in given], [(raw,), (raw,), (raw, kept)]
            if shapes != expected or not all(bool(one.isfinite().all()) for one in given):
                raise InputError("whitening", shapes, f"finite, of shapes {expected}")

    def sources(self) -> tuple[Any, ...]:
        """Whatever else the features depend on: for the cache's key."""
        model = self._raw[0]
        others: tuple[Any, ...] = getattr(model, "sources", tuple)()
        return (model, rings, *others, *([discs] if self._drawn == "discs" else []))

    @property
    def learnt(self) -> bool:
        """From drawn images, so that it depends on how they came out."""
        return self._drawn != "nothing"

    def prepare(self) -> None:
        """Draw the images and fit, on all cores; otherwise the first batch does it."""
        self.statistics()

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        mean, deviation, axes = self.statistics()
        return F.normalize(_standard(self._raw[0].features(images), mean, deviation) @ axes, dim=1)

    def statistics(self) -> Whitening:
        """Of the drawn images, or as they were given."""
        with self._lock:
            if self._fitted is None:
                self._fitted = self._fit()
        return self._fitted

    def _fit(self) -> Whitening:
        if not self.learnt:
            size = self._raw[0].raw_features
            return Whitening(torch.zeros(size), torch.ones(size), torch.eye(size))
        if self._drawn == "cells":
            drawn = synthetic_split([IMAGES] * 8, stream=STREAM).images
        else:
            drawn = discs.disc_images(IMAGES * 8, channels=self._channels)
        if self._channels == 1:
            drawn = drawn.mean(axis=-1, keepdims=True).astype(np.uint8)

        def one(start: int) -> Tensor:
            torch.set_num_threads(1)  # of this worker only: threads change the time and no bit
            batch = torch.from_numpy(drawn[start : start + _BATCH]).permute(0, 3, 1, 2)
            with torch.no_grad():  # a thread has its own switch
                return self._raw[0].features(normalise(batch))

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            raw = torch.cat(list(pool.map(one, range(0, len(drawn), _BATCH))))
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # axes of next to no variance hang on the last bits
        try:
            return self._axes(raw)
        finally:
            torch.set_num_threads(before)

    def _axes(self, raw: Float[Tensor, "b r"]) -> Whitening:
        """What ``statistics`` gives, of the drawn images' raw features."""
        mean, deviation = raw.mean(0), raw.std(0) + 1e-3
        standard = _standard(raw, mean, deviation).double()
        second = torch.cov(standard.T)
        values, vectors = torch.linalg.eigh(second)
        kept = slice(-self._raw[0].whitened_features, None)
        axes = vectors[:, kept] / (values[kept].clamp_min(0) + RIDGE).sqrt()
        return Whitening(mean, deviation, axes.float())


def _standard(raw: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return ((raw - mean) / deviation).clamp(-CLIP, CLIP)
