"""Progress: a bar on a terminal; few, whole, plain lines in a log."""

import io
import os
import subprocess
import sys

from repro.progress import Lines, progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def written(steps, seconds_each, *, every=30.0):
    file, clock = io.StringIO(), Clock()
    with Lines(total=steps, desc="runs", unit="run", file=file, seconds=every, clock=clock) as bar:
        for step in range(steps):
            clock.now += seconds_each
            bar.set_postfix_str(f"arm {step}")
            bar.update()
    return file.getvalue()


def test_lines_come_no_oftener_than_said():
    text = written(1000, 1.0)
    lines = text.splitlines()
    assert 1000 / 30 - 1 <= len(lines) <= 1000 / 30 + 2
    assert lines[-1] == "runs: 1000 of 1000 runs, arm 999 (16:40)"
    assert text.endswith("\n")


def test_time_left_is_told_at_the_rate_since_the_first_step():
    """A step each minute, 10 of 40 done before: a resumption's jump says nothing of the pace."""
    file, clock = io.StringIO(), Clock()
    bar = Lines(total=40, desc="runs", file=file, seconds=60.0, clock=clock)
    for done in (11, 1, 1):
        clock.now += 60.0
        bar.update(done)
    first, second, third = file.getvalue().splitlines()
    assert first == "runs: 11 of 40 (1:00)"
    assert second == "runs: 12 of 40 (2:00, about 28:00 left)"
    assert third == "runs: 13 of 40 (3:00, about 27:00 left)"


def test_what_is_brief_leaves_nothing():
    file, clock = io.StringIO(), Clock()
    for seconds in (29.0, 31.0):
        with Lines(total=1, desc="x", file=file, brief=True, clock=clock) as bar:
            clock.now += seconds
            bar.update()
    assert file.getvalue() == "x: 1 of 1 (0:31)\n"


def test_lines_hold_no_control_characters():
    assert not {c for c in written(300, 1.0) if ord(c) < 32} - {"\n"}


def test_the_last_line_is_said_once():
    assert written(1, 40.0).splitlines() == ["runs: 0 of 1 runs, arm 0 (0:40)",
                                             "runs: 1 of 1 runs, arm 0 (0:40)"]  # fmt: skip
    file = io.StringIO()
    bar = Lines(total=1, desc="x", file=file, seconds=0.0)
    bar.update()
    bar.close()
    bar.close()
    assert len(file.getvalue().splitlines()) == 1


def test_an_exception_has_its_own_last_words():
    file = io.StringIO()
    try:
        with Lines(total=5, desc="x", file=file):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert file.getvalue() == ""


def test_items_pass_through_and_quiet_is_silent(capsys):
    assert list(progress([3, 1, 2], desc="items", quiet=True)) == [3, 1, 2]
    assert list(progress((), desc="none")) == []
    with progress(total=2, quiet=True) as bar:
        bar.update(2)
    assert bar.n == 2
    assert "items" not in capsys.readouterr().err


def test_a_run_in_a_log_is_a_line_and_on_a_terminal_a_bar(tmp_path):
    code = (
        "from repro.progress import progress\n"
        "for _ in progress(range(5000), desc='records', unit='record'): pass\n"
    )
    log = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr
    assert log == b"records: 5000 of 5000 records (0:00)\n"

    leader, follower = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    os.close(follower)
    assert b"\r" in os.read(leader, 65536)
    os.close(leader)
