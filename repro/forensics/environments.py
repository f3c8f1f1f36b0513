"""Virtual environments with one release of Flower each, and the questions put to them.

``python -m venv`` and its pip; nothing of this project's own environment is changed. An
environment is thrown away unless a folder to keep it in is given.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.forensics.plan import ARRANGEMENTS, Settings

INSIDE = Path(__file__).with_name("inside.py")
READY = "ready"  # written into an environment once it is whole
_INSTALLING_SECONDS, _ASKING_SECONDS = 1200, 600


@dataclass(frozen=True)
class Answer:
    """What a release gave, not yet measured.

    draws: (draws, size), one update as the modifier sends it. models: by arrangement, the
    global model before and after every round, (1 + rounds, size); fewer rows where the server
    stopped. facts: ``inside``'s ``answer.json``.
    """

    release: str
    facts: dict[str, Any]
    draws: np.ndarray
    models: dict[str, np.ndarray]


def ask(
    release: str, settings: Settings, folder: Path, work: Path, say: Callable[[str], None]
) -> Answer:
    """Make the environment in ``folder`` unless it is there, and run ``inside`` in it.

    work: an empty folder for questions and answers. Raises InputError where the release cannot
    be installed (no network, no registry) or its environment does not work.
    """
    environment = folder / f"flwr-{release}"
    if not (environment / READY).exists():
        say(f"flwr {release}: installing into an environment of its own")
        _make(environment, release)
    say(f"flwr {release}: running")
    (work / "settings.json").write_text(json.dumps(settings.question()), encoding="utf-8")
    np.save(work / "updates.npy", settings.updates())
    done = _run([_python(environment), "-I", str(INSIDE), str(work)], _ASKING_SECONDS, home=work)
    if done.returncode or not (work / "answer.json").exists():
        raise InputError(
            f"flwr {release}", _last_line(done), "an environment that runs; delete "
            f"{environment} and give the command again"
        )  # fmt: skip
    return Answer(
        release,
        json.loads((work / "answer.json").read_text(encoding="utf-8")),
        np.load(work / "draws.npy"),
        {one.name: np.load(work / f"{one.name}.npy") for one in ARRANGEMENTS},
    )


def _make(environment: Path, release: str) -> None:
    """A new environment with that release; nothing half-made stays behind."""
    others = environment.exists() and not (environment / "pyvenv.cfg").exists()
    if others and any(environment.iterdir()):
        raise InputError("keep", str(environment), "a folder of this command's making, or none")
    environment.parent.mkdir(parents=True, exist_ok=True)
    pip = [_python(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = (
        (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            "a Python that makes virtual environments with pip (`python -m venv`)",
        ),
        (
            [*pip, "--retries", "1", "--timeout", "20", f"flwr=={release}"],
            "a package registry that pip can reach: this command installs Flower's releases from "
            "it (offline, a record that was kept can be read: repro table 8)",
        ),
    )
    try:
        for command, expected in steps:
            done = _run(command, _INSTALLING_SECONDS, home=environment)
            if done.returncode:
                raise InputError(f"flwr {release}", _last_line(done), expected)
        (environment / READY).touch()
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise


def _python(environment: Path) -> str:
    windows = sys.platform == "win32"
    return str(environment / ("Scripts/python.exe" if windows else "bin/python"))


def _run(command: list[str], seconds: int, home: Path) -> subprocess.CompletedProcess[str]:
    """home: where Flower may leave files, which it would else put beside the user's own."""
    settings = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(home)}
    try:
        return subprocess.run(
            command,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end after {seconds} s")
    except OSError as problem:
        return subprocess.CompletedProcess(command, 1, "", str(problem))


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said last, where it says what is wrong: pip's errors, Python's exception."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    errors = [line for line in lines if line.startswith("ERROR")]
    told = errors or [line for line in lines if line]
    return told[-1] if told else f"status {done.returncode}"
