"""Run the tests of what was changed, nearest first, for as long as the limit allows.

    python tools/changed_tests.py                  # part of `make check`
    python tools/changed_tests.py --since HEAD~3 --seconds 120

Changed is what differs from the commit where this branch left the main one, or from ``--since``:
committed or not, and new files. A test file is as near as the fewest imports that lead from it to
a changed module, read from the source; it is at 0 if it was itself changed. A changed file that is
no module counts as a change of every module that names it. Past the limit no further test
starts, and the last line says how many were left: `make test` runs them all.
"""

from __future__ import annotations

import argparse
import ast
import functools
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FARTHEST = 3  # imports; beyond it nearly everything is near nearly everything
FILES = 25  # read by pytest; more would take the time for running them


def changed_files(since: str | None) -> set[str]:
    """Paths from the root, deleted ones too."""
    since = since or _left_main_at()
    differ = _git("diff", "--name-only", "--no-renames", since)
    return {*differ, *_git("ls-files", "--others", "--exclude-standard")}


def _left_main_at() -> str:
    for main in ("origin/main", "main"):
        try:
            return _git("merge-base", "HEAD", main)[0]
        except subprocess.CalledProcessError:  # noqa: PERF203
            continue
    return "HEAD"


def _git(*words: str) -> list[str]:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, check=True, encoding="utf-8"
    )
    return done.stdout.split("\n")[:-1]


def module_name(path: str) -> str:
    """``repro/files.py`` -> ``repro.files``; the folder kernels/ is the package repro.kernels."""
    parts = Path(path).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("repro", *parts) if parts[0] == "kernels" else parts)


@functools.cache
def sources(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module of ours and of the tests, by name."""
    files = [
        path.relative_to(root).as_posix()
        for folder in ("repro", "kernels", "tests", "tools")
        for path in sorted((root / folder).rglob("*.py"))
    ]
    return {module_name(f): ast.parse((root / f).read_text(encoding="utf-8")) for f in files}


@functools.cache
def importers(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules that import it. A name that a package gives stands for its home.

    A string that is a module's name counts as an import of it too: commands are
    named so. Not in a package's ``__init__``, whose lazy table names everything in it.
    """
    found: dict[str, set[str]] = defaultdict(set)
    trees = sources(root)
    homes = {name: _homes(tree) for name, tree in trees.items()}
    for name, tree in trees.items():
        targets: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    home = homes.get(node.module, {}).get(alias.name, node.module)
                    targets.add(submodule if submodule in trees else home)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                targets |= {node.value} if not homes[name] else set()
        targets |= {f"tools.{target}" for target in targets}  # how their tests import them
        for target in targets & trees.keys() - {name}:
            found[target].add(name)
    return found


def _homes(tree: ast.Module) -> dict[str, str]:
    """Names that a lazy package gives, and the module of each: its table ``_EXPORTS``."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "_EXPORTS" for t in targets):
                table = ast.literal_eval(node.value)
                return {name: home for name, home in table.items() if isinstance(home, str)}
    return {}


def nearest_tests(changed: set[str], root: Path = ROOT) -> list[str]:
    """Test files to run, nearest first; of equals, those named after a changed module first."""
    by = importers(root)
    distance = {module_name(path): 0 for path in changed if path.endswith(".py")}
    names = {Path(path).name for path in changed if not path.endswith(".py")}
    distance |= {module: 0 for module in sources(root) if names and _names(module, names, root)}
    ring = set(distance)
    for step in range(1, FARTHEST + 1):
        ring = {module for known in ring for module in by[known]} - distance.keys()
        distance |= dict.fromkeys(ring, step)
    near: dict[str, tuple[int, int]] = {}
    stems = {Path(path).stem for path in changed}
    for path in sorted((root / "tests").rglob("test_*.py")):
        test = path.relative_to(root).as_posix()
        if module_name(test) in distance:
            near[test] = distance[module_name(test)], path.stem.removeprefix("test_") not in stems
    return sorted(near, key=near.__getitem__)


def _names(module: str, names: set[str], root: Path) -> bool:
    constants = (node for node in ast.walk(sources(root)[module]) if isinstance(node, ast.Constant))
    texts = [node.value for node in constants if isinstance(node.value, str)]
    return any(name in text for text in texts for name in names)


class Limit:
    """A pytest plugin: past the limit no further test starts."""

    def __init__(self, seconds: float) -> None:
        self.end, self.ran, self.of = time.monotonic() + seconds, 0, 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.of = len(session.items)

    def pytest_runtest_logfinish(self) -> None:
        self.ran += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        return True if time.monotonic() > self.end else None  # True: nobody else runs it


def main() -> int:
    parser = argparse.ArgumentParser(description="The tests of what was changed, nearest first.")
    parser.add_argument("--since", metavar="COMMIT", help="compare with it (default: main)")
    parser.add_argument("--seconds", type=float, default=60, help="start no test after (60)")
    parser.add_argument("--list", action="store_true", help="name the files, run nothing")
    arguments = parser.parse_args()
    limit = Limit(arguments.seconds)
    tests = nearest_tests(changed_files(arguments.since))
    if arguments.list or not tests:
        print("\n".join(tests) or "No test has to do with what was changed.")
        return 0
    options = ["-x", "--durations=10", "--durations-min=3"]
    status = pytest.main([*options, *tests[:FILES]], plugins=[limit])
    left = f"{limit.of - limit.ran} tests and {len(tests[FILES:])} files"
    print(f"{limit.ran} tests run; {left} that the changes reach left to `make test`")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
