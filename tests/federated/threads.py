"""Ranks as threads of one process: what crosses between them can be looked at."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from repro.federated.parallel.ranks import Ranks


class Meeting:
    """Where ``size`` threads exchange values; ``crossed`` keeps all of them, by method."""

    def __init__(self, size: int) -> None:
        self.size, self.crossed = size, []
        self._barrier = threading.Barrier(size, timeout=60)
        self._values: list[Any] = [None] * size

    def swap(self, rank: int, method: str, value: Any) -> list[Any]:
        self._values[rank] = pickle.dumps(value)  # as a wire would: nothing is shared
        self.crossed.append((method, rank, value))
        self._barrier.wait()
        everybody = [pickle.loads(one) for one in self._values]
        self._barrier.wait()
        return everybody

    def abandon(self) -> None:
        self._barrier.abort()


class ThreadRanks(Ranks):
    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size, self.here = rank, meeting.size, meeting.size
        self._meeting = meeting

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        parts = self._meeting.swap(self.rank, "sum_", tensor.clone())
        return tensor.copy_(torch.stack(parts).sum(0))

    def broadcast(self, value: Any) -> Any:
        return self._meeting.swap(self.rank, "broadcast", value if self.first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        return self._meeting.swap(self.rank, "gather", value)

    def collect(self, value: Any) -> list[Any]:
        parts = self._meeting.swap(self.rank, "collect", value)
        return parts if self.first else []

    def hand_out(self, values: list[Any]) -> Any:
        return self._meeting.swap(self.rank, "hand_out", values)[0][self.rank]


def on_ranks(size: int, work: Callable[[Ranks], Any], meeting: Meeting | None = None) -> list[Any]:
    """What ``work`` returns (or the exception it raises) on every rank."""
    place = meeting or Meeting(size)

    def one(rank: int) -> Any:
        try:
            return work(ThreadRanks(rank, place))
        except threading.BrokenBarrierError:
            raise
        except Exception as problem:
            return problem
        except BaseException:
            place.abandon()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
