"""``kill -9`` at random moments, then the same command again: the same record, bit for bit."""

import json
import random
import signal
import subprocess
import sys
import time

from repro.runs.record import VOLATILE


def command(out):
    return [
        *(sys.executable, "-m", "repro", "run", "fedavg", "--hospitals", "4", "--seed", "3"),
        *("--profile", "smoke", "--data", "synthetic", "--rounds", "12", "--json", "--quiet"),
        *("--device", "cpu", "--out", str(out)),
    ]


def finish(out):
    done = subprocess.run(command(out), capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    return {key: value for key, value in record.items() if key not in VOLATILE}, record["resumed"]


def test_kill_at_random_moments(tmp_path):
    """Delays are drawn from a fixed seed, up to the length of an undisturbed run."""
    started = time.monotonic()
    expected, _ = finish(tmp_path / "whole")
    length = time.monotonic() - started
    moments = random.Random(20241201)
    out = tmp_path / "killed"
    kills = 0
    for _ in range(4):
        child = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=moments.uniform(0.4, 0.95) * length)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    assert kills, "the machine outran every kill; the test proved nothing"
    resumed, _ = finish(out)
    assert resumed == expected
