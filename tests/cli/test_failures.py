"""Ctrl-C and a file system that refuses: one line on stderr, the documented exit status."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import repro.files
from repro.cli import main
from repro.runs.record import VOLATILE
from tests import forked
from tests.federated.small import small_file

RUN = ["run", "fedavg", "--hospitals", "4", "--seed", "3", "--profile", "smoke"]
RUN += ["--device", "cpu", "--json"]


@pytest.fixture
def run(tmp_path):
    return [*RUN, "--data", str(small_file(tmp_path))]


def start(words, how=("-m", "repro"), **options):
    line = [sys.executable, *how, *words]
    return forked.Popen(line, stdout=forked.PIPE, stderr=forked.PIPE, **options)


def wait_for(path: Path, pattern: str) -> None:
    for _ in range(600):
        if any(path.glob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {path} within 30 s")


def stable(record):
    return {key: value for key, value in record.items() if key not in VOLATILE}


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(run, tmp_path, capsys):
    words = [*run, "--rounds", "300", "--out", str(tmp_path / "cut")]
    child = start(words)
    wait_for(tmp_path / "cut", "runs/*/checkpoint.pt")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert out == ""
    assert err == "repro run: interrupted; the same command goes on\n"
    short = [*run, "--rounds", "2"]  # going on is bit-identical: see test_kill.py
    assert main([*short, "--out", str(tmp_path / "cut")]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 2


def group_of(stat: Path) -> int | None:
    """The process group in a /proc/PID/stat: pid (name) state parent group ..."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except OSError:  # gone in between
        return None


def processes_of_group(group: int) -> int:
    """How many processes have that process group (Linux)."""
    return sum(group_of(stat) == group for stat in Path("/proc").glob("[0-9]*/stat"))


@pytest.mark.parametrize("moment", ["first process", "second process", "first run"])
def test_ctrl_c_of_a_whole_campaign_ends_its_workers_at_once(tmp_path, moment):
    """As a terminal does it: SIGINT to every process of the group, also while they start."""
    if "process" in moment and not Path("/proc/self/stat").exists():
        pytest.skip("counts processes in /proc")
    words = ["reproduce", "--profile", "smoke", "--data", str(small_file(tmp_path))]
    words += ["--device", "cpu", "--hospitals", "10", "--seeds", "0,1", "--out", str(tmp_path)]
    child = start(words, start_new_session=True)
    wanted = {"first process": 2, "second process": 3}.get(moment, 0)  # with the command itself
    for _ in range(1200):
        locks = len(list(tmp_path.glob("runs/*/lock")))
        enough = processes_of_group(child.pid) >= wanted if wanted else locks >= 1
        if enough:
            break
        time.sleep(0.02 if wanted else 0.05)
    else:
        child.kill()
        pytest.fail(f"never came to the {moment}")
    began = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert child.returncode == 130
    lines = err.splitlines()
    assert lines[-1] == "repro reproduce: interrupted; the same command goes on"
    assert not [line for line in lines if "Traceback" in line or "Exception" in line], lines
    for _ in range(100):  # nobody of the group is left; multiprocessing's own helper goes last
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    pytest.fail("a process of the group was left")


def test_ctrl_c_of_a_command_that_keeps_nothing_promises_nothing(capsys, monkeypatch):
    import repro.cli.arms

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(repro.cli.arms, "execute", interrupted)
    assert main(["arms"]) == 130
    assert capsys.readouterr().err == "repro arms: interrupted\n"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"),
            "a/b: No space left on device; free some space; then the same command goes on",
        ),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "a", None, "b"),
            "a to b: Read-only file system; choose a folder that can be written to; "
            "then the same command goes on",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a"),
            "a: Permission denied; choose what you may read and write; "
            "then the same command goes on",
        ),
        (OSError("two\nlines"), "two lines; then the same command goes on"),
        (ConnectionResetError(), "ConnectionResetError; then the same command goes on"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, problem, line):
    import repro.cli.run

    def refuse(arguments):
        raise problem

    monkeypatch.setattr(repro.cli.run, "execute", refuse)
    assert main(["run", "fedavg"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"repro run: {line}\n")


def test_a_full_disk_leaves_nothing_half_written(run, tmp_path, capsys, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = [*run, "--rounds", "1", "--out", str(tmp_path), "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(repro.files.os, "fsync", refuse)
        assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "repro run: No space left on device; free some space; then the same command goes on\n"
    )
    assert not list(tmp_path.rglob("*.part")), "half a file was left behind"
    assert main(words) == 0, "the same command goes on"


SMALL_FILES = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
    "from repro.cli import main; sys.exit(main(sys.argv[1:]))"
)


def test_a_file_that_may_not_grow_is_one_line(run, tmp_path):
    """The kernel's own refusal: no file of this process may exceed 4 KiB."""
    words = [*run, "--rounds", "1", "--out", str(tmp_path), "--quiet"]
    child = start(words, how=("-c", SMALL_FILES))
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert "File too large" in line
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "repro", "arms"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "repro arms: standard output: No space left on device; free some space\n"
    )


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m repro arms | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")
