"""``requirements.lock``: exact versions of all that is needed, and nothing of this machine."""

import re
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
