"""``requirements.lock``: exact versions of all that is needed, and nothing of this machine."""

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from repro.report.claims import read_toml

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED = dict(re.findall(r"^([a-z0-9-]+)==([0-9][0-9a-z.]*)$", LOCK, re.M))


def test_every_line_is_a_name_and_an_exact_version():
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert len(lines) == len(PINNED)
    assert list(PINNED) == sorted(PINNED)
    assert not re.search(r"://|/|@|\\", LOCK)


def test_it_fits_what_the_project_asks_for():
    project = read_toml(ROOT / "pyproject.toml")["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            assert wanted.specifier.contains(PINNED[wanted.name.lower()]), text


def test_the_tool_writes_such_lines():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "lock.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    assert {line.partition("==")[0] for line in lines} >= {"torch", "numpy", "scipy", "pytest"}
