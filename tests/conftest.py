"""Every test session checks jaxtyping shapes with beartype, on the whole package."""

from __future__ import annotations

import os

# Kernels run through Triton's interpreter where there is no CUDA device; the variable must be
# set before triton is first imported.
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Test processes share the cores among them (pytest -n); one thread each keeps them from queueing.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import fcntl
import functools
import gc
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

from tests.checked import check_annotations

check_annotations()

# One profile for all: generated cases are the same in every run, and a slow shared machine is
# no reason to fail.
settings.register_profile(
    "repro",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repro")


# A test process holds a million objects of imported modules; to look through them for garbage at
# every turn takes a twelfth of its time.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _noise_keys_of_its_own() -> None:
    """Tests share a process and public seeds, not the noise: each starts with no key used."""
    used = sys.modules.get("repro.privacy.noise_key")
    if used is not None:
        used.noise_keys.clear()


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the tests' run-time type checks, which users do not have."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def no_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the gate after a hospital's last step, half a second for each hospital.

    It changes no bit, as ``federated/test_distributed.py`` shows.
    """
    from repro.privacy.dpsgd import DPSGDRun

    monkeypatch.setattr(DPSGDRun, "look_again", lambda self: None)


@pytest.fixture(scope="session", autouse=True)
def _the_stand_in_is_drawn_once() -> None:
    """17,092 images, the same ones on every call: two seconds each time."""
    from repro.data import synthetic

    synthetic.synthetic_bloodmnist = functools.cache(synthetic.synthetic_bloodmnist)


@pytest.fixture(scope="session", autouse=True)
def _processes_are_forked() -> None:
    """Where the package itself starts Python anew for a hospital or a run: see ``tests.forked``."""
    from tests import forked

    for name in ("repro.secagg.transport.loopback", "repro.federated.parallel.campaign"):
        if name in sys.modules:
            sys.modules[name].multiprocessing = forked  # type: ignore[attr-defined]


@contextlib.contextmanager
def _turn(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """(A path that the test processes of this session share, whether it is finished).

    One process at a time; the first to leave without an error has finished it.
    """
    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with open(path.with_suffix(".lock"), "a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        finished = lock.read() == "whole"
        yield path, finished
        if not finished:
            lock.write("whole")


@pytest.fixture(scope="session", autouse=True)
def _the_curves_of_figure_8_are_computed_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """54 calibrations that depend on nothing, ten seconds: by one of the test processes.

    Where all tests run, all of them have imported it.
    """
    figure_epsilon = sys.modules.get("repro.report.items.figure_epsilon")
    if figure_epsilon is None:  # no test of this session looks at it
        return
    compute = figure_epsilon.series

    @functools.cache
    def series() -> dict[str, dict[str, Any]]:
        with _turn(tmp_path_factory, "figure_8") as (path, finished):
            if not finished:
                path.write_bytes(pickle.dumps(compute()))
            return pickle.loads(path.read_bytes())

    figure_epsilon.series = series


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fake quick runs of all arms, partitions, and everything drawn from them.

    Twenty seconds, so test processes share one. To look at, not to change.
    """
    from repro.report.content import write_report
    from repro.report.sources import Sources
    from tests.report import fake

    with _turn(tmp_path_factory, "drawn") as (folder, finished):
        if not finished:
            folder.mkdir()
            fake.store(folder)
            fake.side_files(folder)
            # Table 5 says what was counted; to count it takes a second each time it is built.
            (folder / "models.json").write_text('{"rows": [{"model": "FAKE NETWORK"}]}')
            write_report(Sources.of(folder))
    return folder
