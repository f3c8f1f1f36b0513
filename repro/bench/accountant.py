"""``repro bench accountant``: ours beside dp-accounting and Opacus, in one run, taking turns.

Command: ``repro bench accountant``. Cost: about ten minutes on 2 CPU cores, most of it
dp-accounting's over the box of settings (``repro.bench.box``); no GPU. Expected: ε of 10,000 steps
in 1–3 ms (dp-accounting about 30, Opacus about 10), calibration in 15–40 ms, import in 0.1–0.3 s;
the tight ε of all settings but a few within the goal.

Nobody caches an answer: every call makes a fresh accountant, composes and converts. Ours
chooses its orders per call; the others evaluate their default grids, and calibrate to their
default tolerances (dp-accounting 1e-6 in σ, Opacus 0.01 in ε; ours 1e-9 in σ). Each answer is
in its row, since a faster accountant that answers something else would not be comparable.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from repro.bench import Row, box, interleave
from repro.runs.provenance import environment

_RATE, _SIGMA, _STEPS, _DELTA = 0.01, 1.1, 10_000, 1e-5
_TARGET = 3.0

Contestants = dict[str, Callable[[], float]]

_MODULES = {
    "ours": "repro.accounting",
    "dp-accounting": "dp_accounting.rdp",
    "opacus": "opacus.accountants",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="timed calls of each")


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    epsilons, calibrations = {}, {}
    missing = []
    for name, make in (("ours", _ours), ("dp-accounting", _dp_accounting), ("opacus", _opacus)):
        try:
            epsilons[name], calibrations[name] = make()
        except ImportError:  # noqa: PERF203
            missing.append(name)
    note = f"not installed, so not measured: {', '.join(missing)}" if missing else ""
    rows = _timed(epsilons, f"ε of {_STEPS:,} steps, warm", arguments.repeats, note)
    few = max(2, arguments.repeats // 5)
    rows += _timed(calibrations, f"noise multiplier for ε = {_TARGET:g}, warm", few, note)
    rows += _imports([name for name in _MODULES if name not in missing], few, note)
    peer = None if "dp-accounting" in missing else box.theirs
    rows += box.compare(box.points(), peer)
    return rows, environment(("numpy", "scipy", "dp-accounting", "opacus", "torch"))


def _timed(contestants: Contestants, metric: str, repeats: int, note: str) -> list[Row]:
    answers = {name: call() for name, call in contestants.items()}
    seconds = interleave(contestants, repeats=repeats)
    milliseconds = {name: [1000 * s for s in values] for name, values in seconds.items()}
    return _rows(milliseconds, metric, "ms", note, answers)


def _imports(names: list[str], repeats: int, note: str) -> list[Row]:
    """Seconds of one import in a fresh interpreter, its own start-up not counted."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):  # the first fills the file cache
        for name in names:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code.format(_MODULES[name])],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
            )
            if turn:
                seconds[name].append(float(done.stdout.split()[-1]))
    return _rows(seconds, "import", "s", note, {})


def _rows(
    values: dict[str, list[float]], metric: str, unit: str, note: str, answers: dict[str, float]
) -> list[Row]:
    rows = []
    for name, taken in values.items():
        said = [f"answer {answers[name]:.4f}"] if name in answers else []
        said += [note] if note and name == "ours" else []
        detail = {"answer": answers[name]} if name in answers else {}
        rows.append(Row.of(name, metric, unit, taken, note="; ".join(said), detail=detail))
    base = next(row.median for row in rows if row.name == "ours")
    return [row if row.name == "ours" else row.over(base) for row in rows]


def _ours() -> tuple[Callable[[], float], Callable[[], float]]:
    from repro.accounting import (
        PoissonSampledGaussianEvent,
        RDPAccountant,
        calibrate_noise_multiplier,
    )

    def epsilon() -> float:
        event = PoissonSampledGaussianEvent(_SIGMA, _RATE)
        return RDPAccountant().compose(event, _STEPS).epsilon(_DELTA)[0]

    def noise() -> float:
        return calibrate_noise_multiplier(_TARGET, _DELTA, _RATE, _STEPS, accountant="rdp")[0]

    return epsilon, noise


def _dp_accounting() -> tuple[Callable[[], float], Callable[[], float]]:
    import logging

    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    # It logs every order that does not converge; the text would drown the table.
    logging.getLogger("absl").setLevel(logging.ERROR)

    def event(sigma: float | int) -> Any:
        step = dp_accounting.PoissonSampledDpEvent(_RATE, dp_accounting.GaussianDpEvent(sigma))
        return dp_accounting.SelfComposedDpEvent(step, _STEPS)

    def epsilon() -> float:
        return float(RdpAccountant().compose(event(_SIGMA)).get_epsilon(_DELTA))

    def noise() -> float:
        calibrate = dp_accounting.calibrate_dp_mechanism
        return float(calibrate(RdpAccountant, event, _TARGET, _DELTA))

    return epsilon, noise


def _opacus() -> tuple[Callable[[], float], Callable[[], float]]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import RDPAccountant
        from opacus.accountants.utils import get_noise_multiplier

    def epsilon() -> float:
        accountant = RDPAccountant()
        accountant.history = [(_SIGMA, _RATE, _STEPS)]
        return float(accountant.get_epsilon(_DELTA))

    def noise() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(
                get_noise_multiplier(
                    target_epsilon=_TARGET,
                    target_delta=_DELTA,
                    sample_rate=_RATE,
                    steps=_STEPS,
                    accountant="rdp",
                )
            )

    return epsilon, noise
