"""Put the faults of ``tests/mutants/faults.toml`` in, one at a time, and see which tests notice.

    python tools/mutants.py                    # `make mutants`: what is not yet on record
    python tools/mutants.py --only ID [ID …]   # these, again

A fault is one text exchanged for another in one file, and the few tests that should notice. They
run in a copy of the checkout; the one that fails is run without the fault too, so that the failure
is the fault's doing. ``paper_results/mutants.json`` keeps every outcome:

- caught: a test failed; ``noticed_by`` names it;
- survived: none did. Write the test, or say in the list why the fault changes nothing;
- broken: that test fails without it, or the tests do not start with it, or do not end.

What is on record for the same fault, source and test files is not repeated, so a run that was cut
short goes on. Exits 1 for a survivor without an explanation, an explained fault that is caught,
and a broken one. Linux and macOS (it forks).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LIST, RECORD = ROOT / "tests/mutants/faults.toml", ROOT / "paper_results/mutants.json"
LIMIT = 900  # seconds for one fault's tests
FORK = multiprocessing.get_context("fork")
CAUGHT, SURVIVED, BROKEN = "caught", "survived", "broken"


@dataclass(frozen=True)
class Fault:
    """One entry of the list. tests: pytest's arguments. survives: why no test can notice."""

    id: str
    file: str
    old: str
    new: str
    tests: str
    breaks: str
    survives: str = ""

    def applied(self, root: Path) -> str:
        """The file's text with the fault. Raises ValueError unless ``old`` is there just once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.id}: {text.count(self.old)} times in {self.file}: {self.old}")
        return text.replace(self.old, self.new)

    def test_files(self) -> list[str]:
        named = (word.partition("::")[0] for word in shlex.split(self.tests))
        return sorted({word for word in named if word.startswith("tests/")})

    def digest(self, root: Path) -> str:
        """Of all that a recorded outcome is about: the fault, the source, the tests."""
        texts = [(root / file).read_text(encoding="utf-8") for file in self.test_files()]
        about = repr((astuple(self)[:5], self.applied(root), texts))
        return hashlib.sha256(about.encode()).hexdigest()[:16]


def read_list(path: Path = LIST) -> list[Fault]:
    return [Fault(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]]


def read_record(path: Path = RECORD) -> dict[str, dict[str, Any]]:
    """id -> outcome."""
    if not path.exists():
        return {}
    return {entry["id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))["faults"]}


def write_record(faults: list[Fault], found: dict[str, dict[str, Any]]) -> None:
    """In the list's order, whole or not at all."""
    part = RECORD.with_suffix(".part")
    kept = [found[fault.id] for fault in faults if fault.id in found]
    part.write_text(
        json.dumps({"faults": kept}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(part, RECORD)


def in_order(fault: Fault, outcome: dict[str, Any]) -> bool:
    return bool(outcome["result"] == (SURVIVED if fault.survives else CAUGHT))


def _tests(folder: str, tests: list[str]) -> None:
    """In a forked child: pytest in ``folder``, whose packages win over installed ones."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder  # for commands that tests start
    with open(f"{folder}.log", "w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--durations=0"]
    sys.exit(int(pytest.main([*options, *tests], plugins=[_NoShrinking()])))


class _NoShrinking:
    """A failure is enough: hypothesis need not look for the smallest one."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", settings(), phases=phases)
        settings.load_profile("mutants")


def _git(*words: str) -> str:
    return subprocess.check_output(["git", "-C", str(ROOT), *words], encoding="utf-8")


def _commit() -> str:
    """What stands beside an outcome; the record itself may differ from the commit."""
    changed = _git("status", "--porcelain", "--", ".", f":(exclude){RECORD.relative_to(ROOT)}")
    return _git("rev-parse", "--short=12", "HEAD").strip() + ("-dirty" if changed else "")


class Bench:
    """A copy of the checkout, and copies of it (by hard links) with a fault each."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder = folder / "base", folder
        self._passes: dict[str, bool] = {}
        listed = _git("ls-files", "-co", "--exclude-standard", "-z").split("\0")
        for name in filter(None, listed):
            if (ROOT / name).exists():
                (self.base / name).parent.mkdir(parents=True, exist_ok=True)
                # A link stays one, so that a fault shows wherever its file is reached from.
                shutil.copy2(ROOT / name, self.base / name, follow_symlinks=False)

    def passes(self, test: str) -> bool:
        """One test without a fault."""
        if test not in self._passes:
            process = FORK.Process(target=_tests, args=(str(self.base), [test]))
            process.start()
            process.join(LIMIT)
            process.kill()
            self._passes[test] = process.exitcode == 0
        return self._passes[test]

    def start(self, fault: Fault) -> ForkProcess:
        place = self.folder / fault.id
        shutil.copytree(self.base, place, copy_function=os.link, symlinks=True)
        changed = place / fault.file
        changed.unlink()  # the link, not the base's file
        changed.write_text(fault.applied(self.base), encoding="utf-8")
        process = FORK.Process(target=_tests, args=(str(place), shlex.split(fault.tests)))
        process.start()
        return process

    def outcome(self, fault: Fault, exit_code: int | None) -> dict[str, Any]:
        """exit_code: pytest's; others than 0 and 1 are no verdict on the fault."""
        place = self.folder / fault.id
        log = (self.folder / f"{fault.id}.log").read_text(encoding="utf-8", errors="replace")
        shutil.rmtree(place)
        named = re.search(r"^FAILED (.+?)(?: - .*)?$", log, re.MULTILINE)
        if exit_code == 0:
            return {"result": SURVIVED}
        if exit_code == 1 and named and self.passes(named[1]):
            return {"result": CAUGHT, "noticed_by": named[1]}
        print(log[-4000:], file=sys.stderr)
        return {"result": BROKEN}


def run(faults: list[Fault], jobs: int, everything: list[Fault]) -> None:
    """Every fault of ``faults``; the record is written after each."""
    found, waiting = read_record(), list(faults)
    commit = _commit()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary))
        running: dict[ForkProcess, tuple[Fault, float]] = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                fault = waiting.pop(0)
                running[bench.start(fault)] = fault, time.monotonic()
            multiprocessing.connection.wait([p.sentinel for p in running], timeout=1)
            for process, (fault, started) in list(running.items()):
                seconds = time.monotonic() - started
                if process.is_alive() and seconds < LIMIT:
                    continue
                code = None if process.is_alive() else process.exitcode
                process.kill()
                del running[process]
                found[fault.id] = {
                    "id": fault.id,
                    "file": fault.file,
                    **bench.outcome(fault, code),
                    "seconds": round(seconds, 1),
                    "commit": commit,
                    "digest": fault.digest(bench.base),
                }
                write_record(everything, found)
                told = found[fault.id].get("noticed_by", fault.breaks)
                print(f"{fault.id}: {found[fault.id]['result']} ({told})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Which tests notice faults put in on purpose?")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these, on record or not")
    parser.add_argument("--jobs", type=int, default=1, help="faults at once (default 1)")
    arguments = parser.parse_args()
    faults, known = read_list(), read_record()
    unknown = set(arguments.only or ()) - {fault.id for fault in faults}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if arguments.only:
        chosen = [fault for fault in faults if fault.id in arguments.only]
    else:
        done = {name for name, outcome in known.items() if outcome["result"] != BROKEN}
        chosen = [
            fault
            for fault in faults
            if fault.id not in done or known[fault.id]["digest"] != fault.digest(ROOT)
        ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import scipy.stats  # noqa: F401  # before the forks, which then start in no time
    import torch  # noqa: F401

    run(chosen, arguments.jobs, faults)
    known = read_record()
    open_ = [f.id for f in faults if f.id not in known or not in_order(f, known[f.id])]
    explained = sum(bool(fault.survives) for fault in faults)
    print(
        f"{len(faults)} faults, {explained} explained; not in order: {', '.join(open_) or 'none'}"
    )
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
