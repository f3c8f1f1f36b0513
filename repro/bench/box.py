"""Our loss accountant beside dp-accounting's, over a whole box of settings: who is tighter, where.

σ in [0.4, 20], q in [1e-6, 1], 1 to 10⁷ steps, δ in [1e-12, 1e-2]: its corners, a seeded sample
(every range on a logarithmic scale) and some named settings. A row is *within the goal* where our ε
is not below dp-accounting's optimistic one, takes at most 2 s of a CPU core, and is at most 1 %
above dp-accounting's pessimistic one or above a bound from below, theirs or ours.

On record (``paper_results/bench/accountant_box.json``): 65 of 67. The two are single steps at
σ = 0.4 and δ = 1e-12 where dp-accounting's "optimistic" ε (1.06066 at q = 1e-6, 20.23678 at q = 1)
is above the exact one (1.06040 and 20.23649, at 60 digits): it does not bound the rounding of its
sums. Its seconds, like ours, are of CPU time.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from repro.accounting.events import PoissonSampledGaussianEvent, PrivacyEvent
from repro.bench.harness import Row
from repro.bench.pld import INTERVAL, pld_epsilon

BOX = ((0.4, 20.0), (1e-6, 1.0), (1, 10**7), (1e-12, 1e-2))
SAMPLED, SEED = 44, 0
CLOSE, SECONDS = 1.01, 2.0
_PATIENCE = 10  # CPU seconds that dp-accounting gets for both bounds at one point
_MEMORY = 4 << 30  # bytes of addresses it gets


@dataclass(frozen=True)
class Point:
    """``steps`` Poisson-sampled steps at rate ``rate``, noise multiplier ``sigma``; ε at δ."""

    sigma: float
    rate: float
    steps: int
    delta: float

    def __str__(self) -> str:
        return (
            f"σ = {self.sigma:g}, q = {self.rate:.3g}, {self.steps:,} steps, δ = {self.delta:.3g}"
        )

    @property
    def event(self) -> PrivacyEvent:
        return PoissonSampledGaussianEvent(self.sigma, self.rate)


#: From ordinary settings to small sample rates and many steps, where coarse grids give away most.
NAMED = (
    Point(1.1, 64 / 11959, 9_342, 1e-5),
    Point(1.0, 0.01, 1_000, 1e-6),
    Point(1.0, 1e-3, 10_000, 1e-6),
    Point(0.7, 1e-3, 10_000, 1e-6),
    Point(0.7, 1e-4, 10_000, 1e-6),
    Point(0.6, 1e-4, 10_000, 1e-6),
    Point(0.7, 1e-5, 100_000, 1e-6),
)


def sample(count: int, seed: int) -> list[Point]:
    """``count`` points of the box, uniform in the logarithms, to three digits."""
    draws = np.random.default_rng(seed).random((count, 4))
    low, high = np.log(np.array(BOX, dtype=np.float64)).T
    values = np.exp(low + draws * (high - low))
    rounded = [[float(f"{value:.3g}") for value in row] for row in values]
    return [Point(sigma, rate, int(steps), delta) for sigma, rate, steps, delta in rounded]


def points() -> list[Point]:
    corners = [Point(*corner) for corner in itertools.product(*BOX)]
    return [*NAMED, *corners, *sample(SAMPLED, SEED)]


@dataclass(frozen=True)
class Bounds:
    """Of one accountant at one point; None where it did not finish, and ``why``.

    seconds: of CPU time, both bounds together (ours: of the upper one alone).
    """

    upper: float | None
    lower: float | None
    seconds: float | None
    why: str = ""


def ours(point: Point) -> Bounds:
    from repro.accounting import PLDAccountant

    accountant = PLDAccountant().compose(point.event, point.steps)
    start = time.process_time()
    upper, _ = accountant.epsilon(point.delta)
    took = time.process_time() - start
    return Bounds(upper, accountant.lower_epsilon(point.delta), took)


def theirs(point: Point) -> Bounds:
    """In a process of its own, that may end for want of time or memory."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(point, there))
    child.start()
    there.close()
    found: dict[str, Any] = {}
    try:
        while True:
            found |= here.recv()
    except EOFError:
        child.join()
    seconds = found.get("seconds")
    why = found.get("why", "" if seconds else f"not finished in {_PATIENCE} s")
    return Bounds(found.get("upper"), found.get("lower"), seconds, why)


def _answer(point: Point, pipe: Connection) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    counts = {point.event: point.steps}
    pld_epsilon({point.event: 1}, 0.5)  # imports
    start = time.process_time()
    used = math.ceil(start)
    resource.setrlimit(resource.RLIMIT_CPU, (used + _PATIENCE, used + _PATIENCE))
    try:
        pipe.send({"upper": pld_epsilon(counts, point.delta)})
        pipe.send({"lower": pld_epsilon(counts, point.delta, lower=True)})
        pipe.send({"seconds": time.process_time() - start})
    except MemoryError:
        pipe.send({"why": f"more than {_MEMORY >> 30} GiB"})
    except (ArithmeticError, ValueError) as problem:
        pipe.send({"why": f"{type(problem).__name__}: {problem}"})


def goal_missed(mine: Bounds, other: Bounds | None) -> str:
    """What of the goal this point misses, "" if nothing."""
    assert mine.upper is not None
    assert mine.seconds is not None
    known = [mine.lower] + ([other.upper, other.lower] if other else [])
    if other and other.lower is not None and mine.upper < other.lower * (1 - 1e-9):
        return "below the optimistic ε"
    if all(bound is None or mine.upper > CLOSE * bound for bound in known):
        return "not within 1 %"
    return "slow" if mine.seconds > SECONDS else ""


def compare(chosen: Sequence[Point], other: Callable[[Point], Bounds] | None) -> list[Row]:
    """A row a point, and one that says how many are within the goal.

    other: dp-accounting, at an interval of 1e-4 (``theirs``); None: it is not installed.
    """
    rows, missed = [], []
    for point in chosen:
        mine, peer = ours(point), other(point) if other else None
        assert mine.upper is not None
        miss = goal_missed(mine, peer)
        if miss:
            missed.append(f"{point}: {miss}")
        relative = None
        if peer and peer.upper and math.isfinite(peer.upper):
            relative = mine.upper / peer.upper
        note = f"at least {mine.lower:.5g}; {mine.seconds:.2g} s; {_said(peer)}"
        detail = {
            "point": asdict(point),
            "ours": asdict(mine),
            "dp_accounting": None if peer is None else asdict(peer) | {"interval": INTERVAL},
            "missed": miss,
        }
        metric = f"tight ε: {point}"
        found = [mine.upper]
        rows.append(Row.of("ours", metric, "ε", found, relative=relative, note=note, detail=detail))
    metric = f"tight ε: of {len(rows)} settings, within the goal"
    within = [float(len(rows) - len(missed))]
    return [*rows, Row.of("ours", metric, "settings", within, note="; ".join(missed))]


def _said(peer: Bounds | None) -> str:
    if peer is None:
        return "dp-accounting is not installed"
    low, high = ("?" if bound is None else f"{bound:.5g}" for bound in (peer.lower, peer.upper))
    took = peer.why if peer.seconds is None else f"{peer.seconds:.2g} s"
    return f"dp-accounting {low} to {high}, {took}"
