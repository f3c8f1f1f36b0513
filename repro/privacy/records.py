"""The records of a ``Dataset`` or ``DataLoader``, fetched by index for Poisson batches.

A loader's own way of drawing batches has no part in private training: the accountant's proof
is for Poisson sampling, so ``Records`` takes the data set out of the loader, and refuses a loader
whose sampler meant something that Poisson sampling would silently drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from repro.errors import InputError
from repro.privacy.gate.randomness import fixed_generators
from repro.privacy.noise_key import digest
from repro.privacy.several_inputs import Inputs, as_inputs, like, tensors_of
from repro.privacy.validation import said, same_contents
from repro.shapes import Int

Data = Dataset[Any] | DataLoader[Any]


class Records:
    """``count`` records, each an (input, target) pair; ``count`` may not change any more."""

    def __init__(self, data: Data, device: torch.device) -> None:
        """data: a map-style Dataset of (input, target), or a DataLoader of one; an input is a
        tensor, or a tuple or dict of tensors."""
        source: Any = data
        self.dataset = source.dataset if isinstance(data, DataLoader) else source
        self._collate = _collate(data) if isinstance(data, DataLoader) else default_collate
        self._device = device
        _check_dataset(self.dataset)
        self.count = len(self.dataset)
        if self.count < 1:
            raise InputError("data", "no records", "at least one record")
        inputs, targets = self.first(1)
        self._nothing = like(inputs, [part[:0] for part in tensors_of(inputs)]), targets[:0]

    def first(self, count: int) -> tuple[Inputs, Tensor]:
        """The first records (fewer where there are fewer)."""
        return self.fetch(torch.arange(min(count, self.count)))

    def refuse_mixing(self) -> None:
        """Raise InputError for an item that is another one after others have been fetched.

        A handful of indices: each alone, again, and after others, with the same numbers of all
        generators of torch, numpy and Python (random augmentations are then the same). Items that
        are made of several records whatever was fetched before, or that draw from a generator of
        their own, do not show.
        """
        count = self.count
        for index in sorted({0, count // 3, count // 2, 2 * count // 3, count - 1}):
            others = [(index + step) % count for step in (1, 2, count // 2)]
            alone, again = self._one(index), self._one(index)
            if not all(map(same_contents, alone, again)):
                continue
            for other in others:
                self._one(other)
            among = self._one(index), self._one(index, *others)
            if not all(all(map(same_contents, alone, one)) for one in among):
                raise InputError(
                    "data",
                    f"a record {index} that is another one after others were fetched",
                    "records that do not depend on each other: clipping one would bound nothing",
                )

    def identity(self) -> str:
        """Tells two data sets apart that are meant to be one: their length, and three records."""
        some = [self._one(index) for index in (0, self.count // 2, self.count - 1)]
        parts = [part for record in some for part in record]
        return digest(*parts, note=str(self.count)).hex()

    def _one(self, *indices: int) -> list[Tensor]:
        """The first of these records, fetched in this order from fixed generators."""
        with fixed_generators(self._device):
            inputs, targets = self.fetch(torch.tensor(indices))
        return [part[0].clone() for part in (*tensors_of(inputs), targets)]

    def fetch(self, indices: Int[Tensor, " drawn"]) -> tuple[Inputs, Tensor]:
        """inputs (b, …), or several of them, and targets (b, …) on the model's device; b may
        be 0."""
        if len(self.dataset) != self.count:
            raise InputError(
                "data", f"{len(self.dataset)} records", f"{self.count}, as when the noise was set"
            )
        if not len(indices):
            return self._nothing
        if type(self.dataset) is TensorDataset and self._collate is default_collate:
            batch: Any = [tensor[indices] for tensor in self.dataset.tensors]
        elif self._collate is default_collate:
            batch = _stacked([self.dataset[index] for index in indices.tolist()])
        else:
            batch = self._collated_alone(indices.tolist())
        inputs, targets = _pair(batch)
        parts = [*tensors_of(inputs), targets]
        if any(part.shape[:1] != (len(indices),) for part in parts):
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise InputError(
                "data",
                f"inputs and targets of shapes {shapes} for {len(indices)} records",
                "one input and one target for each record",
            )
        on_device = [part.to(self._device) for part in tensors_of(inputs)]
        return like(inputs, on_device), targets.to(self._device)

    def _collated_alone(self, indices: list[int]) -> tuple[Inputs, Tensor]:
        """The loader's own ``collate_fn`` on one record after another.

        On a batch it may mix records (mixup, standardising by the batch's mean): then one record
        would change the others' gradients, and clipping would bound nothing.
        """
        alone = [_pair(self._collate([self.dataset[index]])) for index in indices]
        parts = [[*tensors_of(inputs), targets] for inputs, targets in alone]
        names = [tuple(inputs) if isinstance(inputs, dict) else () for inputs, _ in alone]
        shapes = {tuple(tuple(part.shape) for part in one) for one in parts}
        if len(shapes) > 1 or len(set(names)) > 1:
            raise InputError(
                "collate_fn",
                f"records of shapes {sorted(one[0] for one in shapes)}",
                "records of one shape: they are put together one by one, since what looks at a "
                "whole batch (padding to its longest, mixup) mixes records; pad in the Dataset",
            )
        if any(shape[:1] != (1,) for shape in next(iter(shapes))):
            raise InputError(
                "collate_fn",
                f"shapes {next(iter(shapes))} for one record",
                "a leading dimension of 1 for one record",
            )
        *joined, targets = [torch.cat(column) for column in zip(*parts, strict=True)]
        return like(alone[0][0], joined), targets


def _collate(loader: DataLoader[Any]) -> Callable[[list[Any]], Any]:
    """How ``loader`` puts records together; refused where it draws them in its own way."""
    if isinstance(loader.dataset, IterableDataset):
        _check_dataset(loader.dataset)
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        raise InputError(
            "data",
            f"a DataLoader with {type(loader.batch_sampler).__name__} for batches",
            "a DataLoader with a batch_size, or its Dataset: Poisson sampling makes the batches",
        )
    sampler = loader.sampler
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    if not whole:
        raise InputError(
            "data",
            f"a DataLoader that draws by {type(sampler).__name__}",
            "shuffle=True or False and no sampler: Poisson sampling takes every record with the "
            "same probability, so weights, replacement or parts would be dropped silently",
        )
    return loader.collate_fn


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise InputError(
            "data",
            type(dataset).__name__,
            "a map-style Dataset (with __getitem__ and __len__): Poisson sampling draws by index",
        )
    if not hasattr(dataset, "__len__") or getattr(dataset, "shape", None) == ():
        raise InputError("data", type(dataset).__name__, "a Dataset with a length")
    origins = _origins(dataset) if isinstance(dataset, (Subset, ConcatDataset)) else []
    if len(set(origins)) != len(origins):
        raise InputError(
            "data",
            f"a {type(dataset).__name__} that names a record twice",
            "every record once: the guarantee of one that counts twice would be half as strong",
        )


def _origins(dataset: Any) -> list[tuple[int, int]]:
    """(data set, index) of every record, behind any number of ``Subset`` and ``ConcatDataset``."""
    if isinstance(dataset, Subset):
        inner = _origins(dataset.dataset)
        return [inner[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [origin for part in dataset.datasets for origin in _origins(part)]
    return [(id(dataset), index) for index in range(len(dataset))]


def _stacked(records: list[Any]) -> Any:
    """``default_collate``, in one line where records are ragged or hold what is no number."""
    try:
        return default_collate(records)
    except (RuntimeError, TypeError, ValueError) as problem:
        raise InputError(
            "data",
            f"records that cannot be put together: {said(problem)}",
            "(input, target) pairs of tensors, arrays or numbers, all of one shape: pad or cut "
            "them in the Dataset",
        ) from problem


def _pair(batch: Any) -> tuple[Inputs, Tensor]:
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    inputs = as_inputs(batch[0]) if pair else None
    if inputs is None or not isinstance(batch[1], Tensor):
        kinds = [type(part).__name__ for part in batch] if pair else type(batch).__name__
        raise InputError(
            "data",
            kinds,
            "records that are pairs, (input, target): a target tensor, and an input tensor or a "
            "tuple or dict of tensors, which the model takes as its arguments",
        )
    return inputs, batch[1]
