"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.federated.jobs import words
from tests.test_examples import RUNS

ROOT = Path(__file__).resolve().parents[1]
DATA = ("claims.toml", "expected.toml", "as_expected.toml")
FILES = ("pyproject.toml", "README.md", "LICENSE", *(f"paper_results/{d}" for d in DATA))

# Runs one thing after the other with nothing of the checkout on the path (an editable install puts
# it there), and prints what each wrote; every module of ours must have come from the wheel.
INSIDE = """
import io, json, runpy, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
checkout, wheel, lines = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
sys.path[:] = [place for place in sys.path if Path(place).resolve() != checkout]
from repro.cli import main
wrote = {}
for line in lines:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        if line[0].endswith(".py"):
            sys.argv = line
            runpy.run_path(line[0], run_name="__main__")
        elif main(line):
            raise RuntimeError(err.getvalue())
    wrote[Path(line[0]).name] = out.getvalue(), err.getvalue()
ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in ("repro", "kernels")]
strays = [m.__name__ for m in ours if not Path(m.__file__).is_relative_to(wheel)]
assert not strays and "kernels" not in sys.modules, strays
print(json.dumps(wrote))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built without a network in a copy of it, and unpacked."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool}, which builds the wheel, is not installed")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("repro", "kernels"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skipped)
    for name in FILES:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(built), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(built / "site")
    return built / "site"


def test_it_holds_the_package_its_data_and_no_other_name(wheel):
    top = {path.name for path in wheel.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"repro"}
    inside = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*.py")}
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "repro").rglob("*.py")}
    kernels = {f"repro/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    assert inside == here | kernels
    files = [path for path in (ROOT / "repro").rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc")]
    assert {path.name for path in data} >= {"py.typed", *DATA}
    for path in data:
        assert (wheel / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path


@pytest.fixture(scope="module")
def wrote(wheel, drawn, tmp_path_factory):
    """What commands and examples wrote, by name, run by one process far from the checkout."""
    out = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(drawn, out / "drawn")
    (out / "drawn" / "tables" / "table1.md").unlink()  # is drawn again
    quick = ["--profile", "quick", "--out", str(out / "drawn")]
    lines = [
        ["check-claim", "--case", "paper", "--exit-zero"],
        ["arms"],
        words("fedavg", out / "smoke"),
        ["report", *quick],
        *([str(ROOT / "examples" / name), *words] for name, (words, _) in RUNS.items()),
    ]
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(ROOT), str(wheel), json.dumps(lines)],
        cwd=out,
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "report": out / "drawn"}


def test_commands_work_where_there_is_no_checkout(wrote, drawn):
    assert "the noise was discarded: ε = ∞" in wrote["check-claim"][0]
    assert "turned-newton-eps6" in wrote["arms"][0]
    assert json.loads(wrote["run"][0])["rounds"] == 2
    for name in ("report.md", "report.html", "tables/table1.md"):
        assert (wrote["report"] / name).read_bytes() == (drawn / name).read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_every_example_says_what_it_promises(name, wrote):
    said, complained = wrote[name]
    assert complained == ""
    assert re.search(RUNS[name][1], said), said
