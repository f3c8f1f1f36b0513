"""The report shows arms as they say themselves, and knows none by name."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

import repro.report
from repro.report.answer_table import answer_table
from repro.report.honest import honest_findings
from repro.report.items.figure_curves import panels_of_arms
from repro.report.items.figure_frontier import charts
from repro.report.sources import Sources
from repro.runs.arm import Family, Presentation
from repro.runs.arms import ARMS, DPRESNET

PART = re.compile(r"fedavg|[a-z]-secagg\b|[a-z]-eps(\d|{|$)")  # of a name, its ε perhaps left open


def literals(file: Path) -> list[str]:
    """Its strings but for docstrings: those give commands, which somebody copies."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


def names_an_arm(literal: str) -> bool:
    return literal in ARMS or PART.search(literal) is not None


def test_the_report_names_no_arm():
    files = sorted(Path(repro.report.__file__).parent.rglob("*.py"))
    found = [f"{file.name}: {it}" for file in files for it in literals(file) if names_an_arm(it)]
    assert len(files) > 40
    assert not found


WITH_A_TWIN = [arm for arm in ARMS.values() if arm.presentation.twin is not None]


@pytest.mark.parametrize("arm", WITH_A_TWIN, ids=lambda arm: arm.name)
def test_a_twin_is_the_same_without_privacy(arm):
    twin = ARMS[arm.presentation.twin]
    assert (twin.model, twin.family, twin.scope) == (arm.model, arm.family, arm.scope)
    assert not twin.private
    assert twin.mechanism == "identity"


def test_only_the_papers_network_stands_for_what_the_paper_ran():
    readings = [arm for arm in ARMS.values() if arm.presentation.configuration]
    assert {arm.family for arm in readings} == {DPRESNET}
    cells = [(arm.presentation.configuration, arm.reading, arm.epsilon is None) for arm in readings]
    assert len(set(cells)) == len(cells)  # no two arms in one cell of Table 1


def test_a_new_arm_is_in_every_table_it_belongs_to(monkeypatch, tmp_path):
    family = Family("new filters", sentence="new filters", chart="second-order, noise shared")
    private = replace(
        ARMS["random-newton-eps6"],
        name="new-newton-eps6",
        presentation=Presentation(
            family,
            {"answer": "with privacy", "curves": "new, ε = 6", "frontier": "new"},
            twin="new-newton",
        ),
    )
    twin = replace(
        private,
        name="new-newton",
        reading="plain",
        epsilon=None,
        presentation=Presentation(family, {"answer": "without", "curves": "new, no privacy"}),
    )
    monkeypatch.setitem(ARMS, private.name, private)
    monkeypatch.setitem(ARMS, twin.name, twin)
    sources = Sources.of(tmp_path)
    rows = [(row["group"], row["what"]) for row in answer_table(sources).rows]
    assert rows[-2:] == [("new filters", "without"), ("new filters", "with privacy")]
    assert [arm.name for arm, _ in panels_of_arms()["second-order, noise shared"]][:2] == [
        "new-newton",
        "new-newton-eps6",
    ]
    drawn = [one.arms for one in charts()["second-order, noise shared"] if one.label == "new"]
    assert drawn == [(private,)]
    assert "new filters, noise shared: not run" in honest_findings(sources)[0][1]
