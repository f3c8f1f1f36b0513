"""Fixed features: what a model computes of an image before its first parameter, once per image.

A model with ``features`` (a fixed function of one image) and ``head`` (all its parameters) is
trained by giving the head the features. They are kept in ``OUT/features`` and shared by all runs.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.federated.images import LabelledImages, normalise
from repro.files import exclusive, writable_folder
from repro.progress import progress
from repro.shapes import Float, Int, Shaped

SIDE = 28  # pixels: larger images are averaged down to it
BATCH = 64  # images at once: fixed, so that the same images give the same bits on any machine part


@runtime_checkable
class FixedFeatures(Protocol):
    """A model of two parts, of which only the second learns."""

    head: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) network inputs -> (B, F): a function of each image alone."""
        ...


@dataclass(frozen=True)
class LabelledFeatures(LabelledImages):
    """images: (N, F) float32, already what the trained part takes; labels: as of the images."""

    images: Shaped[Tensor, "n f"]

    @classmethod
    def of(
        cls, features: np.ndarray, labels: np.ndarray, device: torch.device | str
    ) -> LabelledFeatures:
        """From (N, F) float32, on CPU not copied (``take`` copies), and (N,) or (N, L) integers."""
        tensor = torch.from_numpy(np.asarray(features, dtype=np.float32))
        return cls(tensor.to(device), torch.from_numpy(labels.astype(np.int64)).to(device))

    def take(self, indices: np.ndarray | Tensor) -> LabelledFeatures:
        chosen = torch.as_tensor(indices, device=self.labels.device)
        return LabelledFeatures(self.images[chosen], self.labels[chosen])

    def inputs(self, indices: Int[Tensor, " b"] | slice = slice(None)) -> Float[Tensor, "b f"]:
        return self.images[indices]


def fixed_features(
    model: FixedFeatures, images: np.ndarray, folder: Path | None = None
) -> np.ndarray:
    """(N, H, W, C) uint8 -> (N, F) float32, from ``folder`` where they were computed before.

    Of images larger than 28 px the features are those of their 28 px averages: what the filters
    see is then as large a part of the image at any size, and so are time and memory.
    folder: created when missing; None: compute, keep nothing. A second process that asks for the
    same features waits for the first. On CPU whatever the run's device, so all runs share them.
    """
    if folder is None:
        return _compute(model, images)
    path = writable_folder("out", folder) / f"{_digest(model, images)}.npy"
    with exclusive(path.with_suffix(".lock")):
        if not path.exists():
            part = path.with_suffix(".part.npy")
            np.save(part, _compute(model, images))
            os.replace(part, path)
    result: np.ndarray = np.load(
        path, mmap_mode="c"
    )  # read where it lies; whatever is written stays private
    return result


def _digest(model: FixedFeatures, images: np.ndarray) -> str:
    """Changes with the images and with all that computes the features."""
    others: tuple[Any, ...] = getattr(model, "sources", tuple)()  # of a model that wraps others
    modules = [inspect.getmodule(type(model)), inspect.getmodule(normalise), sys.modules[__name__]]
    modules += [one if inspect.ismodule(one) else inspect.getmodule(type(one)) for one in others]
    computing = others[0] if others else model
    varied = getattr(computing, "filters", None)
    state = hashlib.sha256(repr((images.shape, torch.__version__, varied)).encode())
    for module in modules:
        state.update(inspect.getsource(module or type(model)).encode())
    for one in getattr(model, "given", None) or ():  # a whitening that no module here has made
        state.update(one.numpy().tobytes())
    state.update(np.ascontiguousarray(images).tobytes())
    name = type(computing).__name__.lower()
    return f"{name}-{state.hexdigest()[:10]}"


def reduced(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c s t"]:
    """Square images of more than ``SIDE`` pixels averaged down to it, each pixel the mean of the
    area it covers; smaller ones as they are."""
    if images.shape[-1] <= SIDE:
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="area")


@torch.no_grad()
def _compute(model: FixedFeatures, images: np.ndarray) -> np.ndarray:
    """In batches of fixed size, one thread each: threads change the time and no bit.

    The last batch is filled up with black images: libraries add up a handful of images in another
    order than many, and an image's features must not depend on how many others there are.
    """
    starts = range(0, len(images), BATCH)
    getattr(model, "prepare", tuple)()  # what all batches need, before they wait for it

    def one(start: int) -> Tensor:
        torch.set_num_threads(1)  # of this worker only
        own = images[start : start + BATCH]
        full = np.zeros((BATCH, *images.shape[1:]), images.dtype)
        full[: len(own)] = own
        batch = reduced(normalise(torch.from_numpy(full).permute(0, 3, 1, 2)))
        return model.features(batch)[: len(own)]

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            name = f"features of {type(model).__name__}"
            batches = pool.map(one, starts)
            parts = list(progress(batches, total=len(starts), desc=name, unit="batch", brief=True))
    finally:
        torch.set_num_threads(before)
    return torch.cat(parts).numpy()
