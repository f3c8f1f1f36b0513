"""The house's plan: packages stand on floors, and every import goes down.

Read from the source, so an import inside a function counts as much as one at the top.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import repro

ROOT = Path(repro.__file__).resolve().parent

# From the ground up. A package may import those on lower floors only, never its own floor.
FLOORS = (
    ("errors", "shapes", "version", "about", "formatting", "progress"),
    ("files", "progress", "checks"),
    ("randomness", "accounting"),
    ("runs",),
    ("data", "models", "privacy", "secagg"),
    ("kernels",),
    ("federated",),
    ("ablations", "audit", "forensics"),
    ("report",),
    ("bench", "benchmark"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Lower, but none of their business: what a package must not know although it stands above it.
STRANGERS = {
    "accounting": {"randomness"},
    "runs": {"randomness"},
    "secagg": {"accounting", "runs"},
    "privacy": {"runs"},
    "report": {"federated", "privacy", "secagg", "data"},
}


@functools.cache
def sources() -> list[tuple[str, Path]]:
    """(module name, file) of the package; ``rglob`` does not follow the link to the kernels."""
    found = []
    for file in {*ROOT.rglob("*.py"), *(ROOT / "kernels").glob("*.py")}:
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return sorted(found)


def imports(module: str, file: Path) -> set[str]:
    """Every module of ours that ``file`` imports, wherever in it; types-only imports too."""
    known = {name for name, _ in sources()}
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            # ``from repro.data import npz`` names a module, ``… import Dataset`` does not.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module}
    return {name for name in found & known if name != module}


def package(module: str) -> str:
    """The folder a module stands in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "repro"


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return {module: imports(module, file) for module, file in sources()}


def test_the_graph_is_read_at_all(graph):
    assert "repro.privacy.step" in graph["repro.privacy.dpsgd"]
    assert "repro.privacy.row_sum" in graph["repro.kernels.api"]
    assert sum(map(len, graph.values())) > 300


def test_every_package_has_a_floor(graph):
    assert {package(module) for module in graph} - {"repro"} <= set(FLOOR)


def test_every_import_goes_down(graph):
    up = [
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if package(module) != package(target) and "repro" not in (package(module), package(target))
        if FLOOR[package(module)] <= FLOOR[package(target)]
    ]
    assert not up


def test_strangers_are_not_imported(graph):
    known = [
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if package(target) in STRANGERS.get(package(module), ())
    ]
    assert not known


def test_no_circle_among_modules(graph):
    """Depth first; a module met again while its own imports are being followed is a circle."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for target in sorted(graph[module]):
            visit(target)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)
