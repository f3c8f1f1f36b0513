"""One private training by several processes (*ranks*): whose records, one noise, the same bits.

    dist.init_process_group("gloo")  # under torchrun
    training = make_private(model, optimizer, data, ..., process_group=dist.group.WORLD)

Every rank holds the same model and the same data set. Each step's Poisson batch is drawn from one
seed, alike on all ranks, and rank r takes every R-th of its records, from the r-th on: a record is
in one rank's part. The parts' clipped sums are added up on rank 0, which adds the step's one noise
to the whole sum and hands the result out. So the release is that of one process, to the rounding of
the sum (exactly with discrete noise, whose sums are integers), at the same ε, on any number of
ranks.

The ranks trust each other: they share the seed, and sums without noise travel between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch.distributed as dist
from torch import Tensor

from repro.errors import InputError
from repro.privacy.gate import Voided
from repro.privacy.validation import said
from repro.randomness import RootSeed


class RankFailed(Exception):
    """Another rank of this training has died, cannot be reached or has failed: this one takes
    neither the step under way nor any other with these ranks. Others may have taken it."""


class Ranks:
    """One process on its own."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def seed(self, own: RootSeed) -> RootSeed:
        """Rank 0's, on every rank."""
        return own

    @contextmanager
    def all_or_none(self, same: Callable[[], dict[str, Any]] | None = None) -> Iterator[None]:
        """What is done inside is done by all ranks or has failed on all of them.

        same: name -> what must be equal on all ranks, after the block.
        """
        yield

    def sum_to_first(self, values: Tensor) -> None:
        """Rank 0's ``values`` become the sum of all ranks'; the others' are undefined from then on.
        Returns only when every rank's part is in it."""

    def from_first(self, values: Tensor) -> None:
        """Rank 0's numbers into every rank's ``values``: the same bits."""


class GroupRanks(Ranks):
    """The processes of a ``torch.distributed`` group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group, self._first = group, dist.get_global_rank(group, 0)
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._failed: str | None = None

    def seed(self, own: RootSeed) -> RootSeed:
        root, source = self._gather((own.root, own.source))[0]
        return RootSeed(root, source)

    @contextmanager
    def all_or_none(self, same: Callable[[], dict[str, Any]] | None = None) -> Iterator[None]:
        problem: Exception | None = None
        facts: dict[str, Any] = {}
        try:
            yield
            facts = {} if same is None else same()
        except RankFailed:
            raise
        except Exception as caught:
            problem = caught
        told = self._gather((_words(problem), facts))
        if problem is not None:
            raise problem
        for rank, (words, _) in enumerate(told):
            if words is not None:
                self._raise(rank, *words)
        for rank, (_, others) in enumerate(told):
            for name, value in told[0][1].items():
                if others[name] != value:
                    raise InputError(f"{name} of rank {rank}", others[name], f"rank 0's, {value!r}")

    def sum_to_first(self, values: Tensor) -> None:
        self._do(lambda: dist.reduce(values, self._first, group=self._group))

    def from_first(self, values: Tensor) -> None:
        self._do(lambda: dist.broadcast(values, self._first, group=self._group))

    def _gather(self, value: Any) -> list[Any]:
        box: list[Any] = [None] * self.size
        self._do(lambda: dist.all_gather_object(box, value, group=self._group))
        return box

    def _do(self, collective: Callable[[], Any]) -> None:
        """One collective. After one that failed the ranks may be at different places, so that what
        arrives could be another step's: there is none after it."""
        if self._failed is not None:
            raise RankFailed(self._failed)
        try:
            collective()
        except RuntimeError as problem:  # of torch and its backends, where a peer is gone
            self._failed = f"rank {self.rank} of {self.size} cannot reach the others: is one dead?"
            raise RankFailed(f"{self._failed} [{said(problem)}]") from problem

    def _raise(self, rank: int, kind: str, field: str, value: str, expected: str) -> NoReturn:
        """Here what was raised there."""
        if kind == "voided":
            raise Voided(field, value, expected)
        if kind == "input":
            raise InputError(f"{field} (on rank {rank})", value, expected)
        self._failed = f"rank {rank} of {self.size} failed: {value}"
        raise RankFailed(self._failed)


def _words(problem: Exception | None) -> tuple[str, str, str, str] | None:
    if problem is None:
        return None
    if isinstance(problem, InputError):
        kind = "voided" if isinstance(problem, Voided) else "input"
        return kind, problem.field, str(problem.value), problem.expected
    return "defect", "", said(problem), ""


def ranks_of(group: dist.ProcessGroup | None) -> Ranks:
    """This process alone, or the ranks of ``group``; InputError where it is not said which."""
    if group is None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise InputError(
                "process_group",
                None,
                f"dist.group.WORLD for one training by all {dist.get_world_size()} processes, or "
                "a group of this one alone: trainings of their own, on the same records, add up",
            )
        return Ranks()
    if not isinstance(group, dist.ProcessGroup):
        raise InputError("process_group", group, "a torch.distributed group this process is in")
    return GroupRanks(group)
