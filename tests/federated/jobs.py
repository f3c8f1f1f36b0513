"""Real multi-process jobs: ``torchrun`` as a user starts it, or its ranks by hand."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from repro.runs.record import VOLATILE
from tests import forked
from tests.federated.small import small_file


def words(arm: str, out: Path, *more: str, hospitals: int = 4, rounds: int = 2) -> list[str]:
    """``run ARM …`` on the smoke profile and a small file, which is left beside ``out``."""
    fixed = "--seed 3 --profile smoke --device cpu --json --quiet"
    sizes = f"--hospitals {hospitals} --rounds {rounds} --data {small_file(out.parent)}"
    return ["run", arm, *sizes.split(), *fixed.split(), "--out", str(out), *more]


def alone(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "repro", *command]


def torchrun(ranks: int, command: list[str], module: str = "repro") -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(ranks), "-m", module, *command]


def record(line: list[str]) -> dict[str, Any]:
    """The record that a command prints: one JSON object on stdout and nothing else."""
    done = forked.run(line, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stable(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in VOLATILE}


def by_hand(commands: list[list[str]], port: int | None = None) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each rank, started as ``torchrun`` does but without it."""
    common = {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port or free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        forked.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=forked.PIPE,
            stderr=forked.PIPE,
        )
        for rank, command in enumerate(commands)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    return [(rank.returncode, *both) for rank, both in zip(ranks, said, strict=True)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_process(launcher: forked.Popen, rank: int) -> int:
    """The process id of one rank among the launcher's children."""
    wanted = f"RANK={rank}".encode()
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {rank} among {children}")


def wait_for(condition: Any, launcher: forked.Popen, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert launcher.poll() is None, "the job ended too early"
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.02)


def own_lines(stderr: str) -> list[str]:
    """What our processes say, without the launcher's own report."""
    return [line for line in stderr.splitlines() if line.startswith("repro run:")]
