"""What lies beside the code: notebook, citation, artifact, changelog."""

import json
import re
import shlex
from pathlib import Path

import pytest

from repro.cli import COMMANDS
from repro.version import __version__

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def test_the_notebooks_cells_run_as_plain_python_and_say_what_it_shows(monkeypatch, capsys):
    """Words to the letter, numbers to 3 %: another processor trains another accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: None)
    names: dict[str, object] = {}
    for cell in cells():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            said = capsys.readouterr().out
            texts = ("".join(output.get("text", "")) for output in cell["outputs"])
            shown = "".join(texts)
            assert NUMBER.sub("#", said) == NUMBER.sub("#", shown), "run `make notebook`"
            numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)]
                       for text in (said, shown)]  # fmt: skip
            assert numbers[0] == pytest.approx(numbers[1], rel=0.03)
    pyplot.close("all")
    assert names["status"] == 0


def test_the_notebook_is_small_executed_and_whole():
    assert NOTEBOOK.stat().st_size < 300_000
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    assert "display_data" in kinds, "the figure"
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/home/|/root/|/tmp/|/work/", text)


def test_the_citation_has_what_cff_asks_for():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    keys = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.M))
    assert {"cff-version", "message", "title", "authors"} <= keys.keys()
    assert keys["cff-version"] == "1.2.0"
    assert keys["version"] == __version__
    assert keys["license"] == "Apache-2.0"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    return re.findall(r"`((?:repro|make) [^`]+)`", (ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["ARTIFACT.md", "CONTRIBUTING.md", "README.md", "docs/library.md"])
def test_every_command_that_is_named_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for command in commands(name):
        words = shlex.split(command)
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[1] not in ("COMMAND",):
            assert words[1] in COMMANDS, command


def test_every_test_and_file_that_is_named_exists():
    for name in ("ARTIFACT.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"`?((?:tests|repro|paper_results)/[\w/.-]+)", text):
            assert (ROOT / path.rstrip(".")).exists(), f"{name}: {path}"
