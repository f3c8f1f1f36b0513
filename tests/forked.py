"""Processes that are forked from one which has imported the package already.

Python and torch take five seconds of a core to start, and the tests start a hundred processes.
Python's fork server starts once for each test process; what it forks has seen no test, has its own
memory and is killed and waited for like any other. From nothing start the ranks of jobs under
``torchrun``, the workers in ``cli/test_failures.py``, and what ``test_wheel.py`` installs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from multiprocessing import reduction
from typing import IO, Any

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL

active_children = multiprocessing.active_children
parent_process = multiprocessing.parent_process

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


def get_context(method: str) -> Any:
    """Takes the place of ``multiprocessing.get_context`` in a module that starts processes anew."""
    assert method == "spawn"
    return _CONTEXT


class Popen:
    """What the tests use of ``subprocess.Popen``, for ``[sys.executable, "-m" or "-c", …]``; pipes
    carry text."""

    def __init__(
        self,
        line: list[str],
        *,
        cwd: Any = None,
        env: dict[str, str] | None = None,
        stdout: Any = None,
        stderr: Any = None,
        start_new_session: bool = False,
    ) -> None:
        assert line[0] == sys.executable
        self.args, self.stdout, self.stderr = line, None, None
        outcome = {1: self._stream("stdout", stdout), 2: self._stream("stderr", stderr)}
        descriptors = {target: _Descriptor(fd) for target, fd in outcome.items() if fd is not None}
        environment = dict(os.environ if env is None else env)
        self._process = _CONTEXT.Process(
            target=_become,
            args=(line[1:], descriptors, os.fspath(cwd or "."), environment, start_new_session),
        )
        self._process.start()
        for fd in outcome.values():
            if fd is not None:
                os.close(fd)
        self.pid: int = self._process.pid

    def _stream(self, name: str, wanted: Any) -> int | None:
        """The end for the process; for a pipe, our own end is kept under this name."""
        if wanted is None:
            return None
        if wanted == DEVNULL:
            return os.open(os.devnull, os.O_WRONLY)
        if wanted != PIPE:
            return os.dup(wanted.fileno())
        ours, theirs = os.pipe()
        setattr(self, name, os.fdopen(ours, encoding="utf-8"))
        return theirs

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        said: list[str | None] = [None, None]
        readers = [
            threading.Thread(target=_read, args=(stream, said, place), daemon=True)
            for place, stream in enumerate((self.stdout, self.stderr))
            if stream is not None and not stream.closed  # it was asked for before
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(
    line: list[str], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` with both streams captured as text."""
    process = Popen(line, stdout=PIPE, stderr=PIPE, **options)
    said = process.communicate(timeout)
    done = subprocess.CompletedProcess(line, process.wait(), *said)
    if check:
        done.check_returncode()
    return done


class _Descriptor:
    """An open file that goes with the process it is pickled for."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> Any:
        return _detached, (reduction.DupFd(self._fd),)


def _detached(there: Any) -> int:
    return there.detach()


def _read(stream: IO[str], said: list[str | None], place: int) -> None:
    with stream:
        said[place] = stream.read()


def _become(
    words: list[str],
    descriptors: dict[int, int],
    cwd: str,
    environment: dict[str, str],
    new_session: bool,
) -> None:
    """In the new process: what Python does with these words on its command line."""
    for target, fd in descriptors.items():
        os.dup2(fd, target)
        os.close(fd)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    if new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    kind, what, *more = words
    sys.argv = [kind, *more]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
