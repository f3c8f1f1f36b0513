"""``kill -9`` at random moments, then the same command again: the same record, bit for bit."""

import json
import random
import signal
import subprocess
import sys
import time

from tests import forked
from tests.federated.jobs import alone, stable, words


def command(out):
    """As much of it trains as starts: half of the moments are in the rounds."""
    return alone(words("fedavg", out, rounds=30))


def finish(out):
    done = forked.run(command(out), check=True)
    record = json.loads(done.stdout)
    return stable(record), record["resumed"]


def test_kill_at_random_moments(tmp_path):
    """Delays are drawn from a fixed seed, up to the length of an undisturbed run."""
    forked.run([sys.executable, "-c", ""], check=True)  # what the first of all waits for is no run
    started = time.monotonic()
    expected, _ = finish(tmp_path / "whole")
    length = time.monotonic() - started
    moments = random.Random(20241201)
    out = tmp_path / "killed"
    kills = 0
    for _ in range(4):
        child = forked.Popen(command(out), stdout=forked.DEVNULL, stderr=forked.DEVNULL)
        try:
            child.wait(timeout=moments.uniform(0.4, 0.95) * length)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    assert kills, "the machine outran every kill; the test proved nothing"
    resumed, _ = finish(out)
    assert resumed == expected
