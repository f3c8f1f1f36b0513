"""Many runs: every arm × hospitals × seed of a profile, in as many processes as make sense.

A profile whose runs take one thread each is spread over the cores; one that takes all threads
(or a GPU) goes run by run. Either way each run is the same bits.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

from repro.data import Dataset
from repro.federated.execute import execute
from repro.federated.recording import run_name
from repro.progress import Progress, progress
from repro.runs.arm import Arm
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import Profile
from repro.runs.record import RunRecord
from repro.runs.settings import RunSettings
from repro.runs.store import RunStore


def matrix(
    profile: Profile,
    arms: Iterable[Arm] = ARMS.values(),
    hospitals: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    precision: Mapping[str, str] | None = None,
) -> list[RunSettings]:
    """Every run of the profile's tables, most telling first: all arms at one K and seed.

    precision: what each arm (by name) trains in; float32 where nothing is said.

    Where a profile names arms to be run ``first``, all their runs come before any other's.
    """
    arms = list(arms)
    counts = list(profile.hospitals if hospitals is None else hospitals)
    runs = [
        compose(
            arm,
            profile,
            hospitals=count,
            seed=seed,
            precision=(precision or {}).get(arm.name, "float32"),
        )
        for seed in (profile.seeds if seeds is None else seeds)
        for count in counts
        for arm in arms
        # Pooled training doesn't depend on K (but for the split's rounding): once is enough.
        if arm.scope != "pooled" or count == counts[0]
    ]
    # False sorts before True, and sorting keeps the order of equals.
    return sorted(runs, key=lambda run: run.arm not in profile.first)


def _say_if_extended(record: RunRecord) -> None:
    """It is finished, but no longer what the matrix asks for."""
    if record.rounds != record.settings["rounds"]:
        print(
            f"repro: {record.run_id} was extended to {record.rounds} rounds, so tables leave it "
            "out; delete its record to run it again",
            file=sys.stderr,
        )


def run_all(
    runs: list[RunSettings],
    dataset: Dataset,
    store: RunStore,
    *,
    device: str | None = None,
    title: str = "runs",
) -> list[RunRecord]:
    """Execute what is not finished yet; returns all records in the order of ``runs``."""
    finished: dict[int, RunRecord] = {}
    todo: list[int] = []
    for index, settings in enumerate(runs):
        record = store.load(run_name(settings, dataset))
        if record is None:
            todo.append(index)
        else:
            finished[index] = record
            _say_if_extended(record)
    bar: Progress[None] = progress(total=len(runs), initial=len(finished), desc=title, unit="run")
    with bar:
        for index, record in _execute(runs, todo, dataset, store, device):
            finished[index] = record
            bar.update()
            bar.set_postfix_str(
                f"{record.arm} K={record.hospitals} seed {record.seed}: "
                f"{100 * record.final_accuracy:.1f} %"
            )
    return [finished[index] for index in range(len(runs))]


def _execute(
    runs: list[RunSettings], todo: list[int], dataset: Dataset, store: RunStore, device: str | None
) -> Iterator[tuple[int, RunRecord]]:
    workers = min(len(todo), os.cpu_count() or 1)
    if workers <= 1 or any(runs[index].threads != 1 for index in todo):
        for index in todo:
            yield index, execute(runs[index], dataset, store, device=device)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_prepare, initargs=(dataset, store.root, device)
    ) as pool:
        try:
            with _interrupts_held():  # the first `submit`s start the processes
                futures = {pool.submit(_work, runs[index]): index for index in todo}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as broken:
            raise RuntimeError(
                "a training process was killed (out of memory?); the same command goes on from here"
            ) from broken
        except KeyboardInterrupt:
            # Their runs go on from their checkpoints; waiting for them could take an hour.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits while processes start; they inherit that until their handler is set.

    Without it, one that still imports its modules ends in a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Python's helper process unblocks SIGINT where it is started: it must be there before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


_shared: tuple[Dataset, RunStore, str | None]


def _prepare(dataset: Dataset, root: Path, device: str | None) -> None:
    global _shared
    # Ctrl-C reaches every process of a terminal: these leave silently, the command says why.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see _interrupts_held
    _shared = (dataset, RunStore(root), device)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A command that is killed sends no signal: its runs would go on for hours, for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(settings: RunSettings) -> RunRecord:
    dataset, store, device = _shared
    return execute(settings, dataset, store, device=device, quiet=True)
