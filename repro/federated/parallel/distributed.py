"""Many processes for one run: ``torch.distributed`` as started by ``torchrun``.

    torchrun --nproc-per-node 2 -m repro run fedavg --hospitals 10 --seed 0

Every rank runs the same command; ``join`` finds torchrun's environment and the loop goes on as
if it were alone. Objects and CPU tensors travel by Gloo, CUDA tensors by NCCL.

Once the ranks have met, what goes wrong costs one line, said by one rank: rank 0 for a bad set-up,
whoever notices first when a rank dies. The others say nothing. Ranks that cannot meet at all have
no way to tell who should speak, so each says so.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from repro.errors import InputError
from repro.federated.parallel.ranks import Ranks

TIMEOUT = "REPRO_RANK_TIMEOUT"
DEFAULT_TIMEOUT = 1800  # seconds; a rank that died is noticed at once, this is for lost networks
LEAVING = timedelta(seconds=60)  # the longest that a rank which has finished waits for others
EXIT_LOST = 4

Result = TypeVar("Result")


class RanksLost(Exception):
    """Another rank of this run has died or cannot be reached; ``str`` is the line to print."""


class SaidElsewhere(Exception):
    """The run has ended and another rank has said why; ``status`` is what to exit with."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"exit status {status}")


@contextlib.contextmanager
def join() -> Iterator[Ranks]:
    """This process's ranks: alone, or those of the job that ``torchrun`` (or Slurm) started.

    Inside the block InputError and RanksLost reach one rank only; the others get SaidElsewhere.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    ranks = _connect()
    with _catching_sigterm(ranks):
        try:
            with ranks.one_voice():
                yield ranks
            ranks.finish_together()
        finally:  # after having spoken: the others notice our absence
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()
        ranks.leave()


def _collective(method: Callable[..., Result]) -> Callable[..., Result]:
    """Gloo's many ways of saying that a peer is gone, as one exception."""

    @wraps(method)
    def guarded(self: TorchRanks, *values: Any) -> Result:
        try:
            return method(self, *values)
        except RuntimeError as problem:
            raise self.lost(str(problem)) from problem

    return guarded


class TorchRanks(Ranks):
    """``Ranks`` over the default process group. store: torchrun's key-value store."""

    def __init__(self, store: dist.Store) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.here = _whole("LOCAL_WORLD_SIZE", 1)
        self._store = dist.PrefixStore("repro", store)  # type: ignore[attr-defined]
        self.ending = False  # what ends the run may be known: SIGTERM has nothing to add
        self.terminated = False  # SIGTERM came all the same

    @_collective
    def sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    @_collective
    def broadcast(self, value: Any) -> Any:
        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    @_collective
    def gather(self, value: Any) -> list[Any]:
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    @_collective
    def collect(self, value: Any) -> list[Any]:
        box: list[Any] = [None] * self.size if self.first else []
        dist.gather_object(value, box if self.first else None, dst=0)
        return box

    @_collective
    def hand_out(self, values: list[Any]) -> Any:
        box: list[Any] = [None]
        dist.scatter_object_list(box, values if self.first else None, src=0)
        return box[0]

    def device(self, name: str | None) -> str | None:
        """A GPU of its own for every rank of a machine."""
        if name not in (None, "cuda") or not torch.cuda.is_available():
            return name
        local, gpus = _whole("LOCAL_RANK", 0), torch.cuda.device_count()
        if local >= gpus:
            raise InputError(
                "ranks on this machine", self.here, f"at most {gpus}, its GPUs, or --device cpu"
            )
        torch.cuda.set_device(local)
        return f"cuda:{local}"

    def agree(self, prepare: Callable[[], Result], facts: Callable[[Result], Any]) -> Result:
        self.ending = True
        mistake: InputError | None = None
        try:
            # What is worth saying is worth saying once. (Without a stderr, print takes stdout.)
            with contextlib.redirect_stderr(sys.stderr if self.first else io.StringIO()):
                prepared = prepare()
        except InputError as problem:
            mistake = problem
        words = mistake and (mistake.field, mistake.value, mistake.expected)
        told = self.gather((words, None if mistake else facts(prepared)))
        mistaken = [words for words, _ in told if words]
        if mistaken:
            mistake = InputError(*mistaken[0])
        else:
            mistake = _difference([known for _, known in told])
        if mistake is None:
            self.ending = False
            if self.terminated:
                raise self.lost("SIGTERM")
            return prepared
        if self.first:
            raise mistake
        raise SaidElsewhere(2)

    @contextlib.contextmanager
    def one_voice(self) -> Iterator[None]:
        """Of all ranks that fail inside, one raises its exception and the rest SaidElsewhere."""
        try:
            yield
        except SaidElsewhere:
            raise
        except (InputError, OSError) as mistake:  # a full disk is no defect either
            if self._claim(2):
                raise
            raise SaidElsewhere(2) from mistake
        except RanksLost as loss:
            if self._claim(EXIT_LOST):
                raise
            raise SaidElsewhere(EXIT_LOST) from loss
        except BaseException:
            self._claim(1)  # our traceback is the explanation
            raise

    def lost(self, why: str) -> RanksLost:
        reason = " ".join(why.split()) or "no reason given"
        return RanksLost(
            f"rank {self.rank} of {self.size} has lost another one (was it killed?); the same "
            "command goes on from the last finished round, on any number of ranks "
            f"[{reason[:160]}]"
        )

    def finish_together(self) -> None:
        """Return when no rank has a collective under way any more, not even its last flush.

        The sum notices a dead peer at once, but is itself a collective. The store tells when
        everybody is out of it: then Gloo's threads are idle on all ranks, and closing a
        connection cannot meet one of them at work, which they may answer with an abort.
        """
        with contextlib.suppress(RuntimeError):  # the results are on disk: nothing to lose
            dist.all_reduce(torch.zeros(1))  # on CPU, where a barrier would take a GPU if it can
            self._meet("finished")

    def leave(self) -> None:
        """After this rank has closed its connections; rank 0, which may hold the store, waits."""
        with contextlib.suppress(RuntimeError):
            self._meet("closed", wait=self.first)

    def _meet(self, place: str, *, wait: bool = True) -> None:
        """Tell the store that this rank is here, and wait until all of them are."""
        if self._store.add(place, 1) == self.size:
            self._store.set(f"{place}: all", "")
        if wait:
            self._store.wait([f"{place}: all"], LEAVING)

    def _claim(self, status: int) -> bool:
        """Is this rank the first to have something to say?"""
        self.ending = True
        try:
            return self._store.add("said", 1) == 1
        except RuntimeError:
            return True  # the store died with its host, so nobody else can tell either


def _difference(known: list[dict[str, Any]]) -> InputError | None:
    for name, value in known[0].items():
        for rank, other in enumerate(known):
            if other[name] != value:
                return InputError(
                    f"{name} of rank {rank}", other[name], f"the same on every rank ({value!r})"
                )
    return None


@contextlib.contextmanager
def _catching_sigterm(ranks: TorchRanks) -> Iterator[None]:
    """torchrun answers a rank's end with SIGTERM to the others: leave time for a last line."""

    def stop(_signal: int, _frame: object) -> None:
        ranks.terminated = True
        if not ranks.ending:
            raise ranks.lost("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)


def _connect() -> TorchRanks:
    rank, size = _whole("RANK", 0), _whole("WORLD_SIZE", 1)
    if not rank < size:
        raise InputError("RANK", rank, f"below WORLD_SIZE, {size}")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise InputError(name, None, "set by torchrun (or the Slurm script in docs/scaling.md)")
    timeout = timedelta(seconds=_whole(TIMEOUT, DEFAULT_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        meeting = dist.rendezvous("env://", rank, size, timeout=timeout)  # type: ignore[attr-defined]
        store, rank, size = next(meeting)
        store.set_timeout(timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as problem:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        if "EADDRINUSE" in str(problem) or "in use" in str(problem):
            raise InputError(
                "MASTER_PORT", os.environ["MASTER_PORT"], "a free port; this one is in use"
            ) from problem
        raise InputError(
            "MASTER_ADDR and MASTER_PORT", where, f"where all {size} ranks meet ({problem})"
        ) from problem
    return TorchRanks(store)


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(name, text, "a whole number")
    return int(text)
