"""``repro bench scale``: rounds per minute and peak memory as hospitals and processes grow.

Every figure comes from a fresh job of one or two processes (``repro.bench.scale_job``), one
thread each, jobs that are compared taking turns. Hospitals of a few images and a small model
show what a hospital costs beyond its training; the speed-up rows have hospitals of a usual size.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from repro.bench.harness import Row
from repro.bench.scale_job import Job
from repro.errors import InputError
from repro.progress import Progress, progress
from repro.runs.provenance import environment

Answers = list[dict[str, Any]]
LARGE = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    def sizes(name: str, default: list[int], text: str, nargs: str = "+") -> None:
        shown = " ".join(map(str, default))
        parser.add_argument(
            f"--{name}",
            type=int,
            nargs=nargs,
            default=default,
            metavar="N",
            help=f"{text} (default {shown})",
        )

    def number(name: str, default: int, text: str) -> None:
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default {default})"
        )

    sizes("hospitals", [10, 100, 1000, 10_000], "sizes of the federation")
    sizes("secure", [10, 100, 1000], "sizes with secure aggregation; may be empty", nargs="*")
    sizes("neighbours", [4, 16], "k of secure aggregation, compared at its largest size")
    sizes("ranks", [1, 2], "processes")
    number("images", 4, "of a hospital")
    number("width", 4, "of DPResNet")
    number("repeats", 3, "jobs a figure")
    number("large-repeats", 1, f"the same from {LARGE:,} hospitals on, which take a minute each")
    number("speedup-images", 300, "of each of 10 hospitals in the speed-up rows, 0 for none")
    number("speedup-width", 16, "of DPResNet there")


@dataclass(frozen=True)
class Study:
    """One job on each number of ranks, repeated."""

    job: Job
    ranks: tuple[int, ...]
    answers: dict[int, Answers] = field(default_factory=dict)  # by ranks

    @property
    def kind(self) -> str:
        kind = f"secure k={self.job.neighbours}" if self.job.secure else "plain"
        return f"{kind} K={self.job.hospitals}"


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    _check(arguments)
    growth = _growth_studies(arguments)
    speedup = _speedup_studies(arguments)
    studies = [*growth, *speedup]
    jobs = sum(_repeats(arguments, study) * len(study.ranks) for study in studies)
    bar: Progress[None] = progress(total=jobs, desc="jobs", unit="job")
    with bar:
        for study in studies:
            _take_turns(study, _repeats(arguments, study), bar)
    rows = [row for study in growth for row in _rows(study)]
    rows += _growth_rows(growth)
    rows += [row for study in speedup for row in _rows(study, memory=False)]
    first = growth[0].answers[growth[0].ranks[0]][0]
    where = environment(("torch", "numpy")) | {
        "threads": 1,
        "images": arguments.images,
        "width": arguments.width,
        "vector": first["parameters"],
        "speedup_images": arguments.speedup_images,
        "speedup_width": arguments.speedup_width,
    }
    return rows, where


def _check(arguments: argparse.Namespace) -> None:
    for name in ("hospitals", "secure", "neighbours", "ranks"):
        least = 2 if name == "secure" else 1
        bad = [value for value in getattr(arguments, name) if value < least]
        if bad:
            raise InputError(name, bad[0], f"integers of at least {least}")
    for name in ("images", "width", "repeats", "large_repeats", "speedup_width"):
        if getattr(arguments, name) < 1:
            raise InputError(name, getattr(arguments, name), "at least 1")
    odd = [k for k in arguments.neighbours if k % 2]
    if odd:
        raise InputError("neighbours", odd[0], "even numbers")


def _growth_studies(arguments: argparse.Namespace) -> list[Study]:
    def job(count: int, **more: Any) -> Job:
        # Small federations are over in a moment, the more so without secure aggregation.
        rounds = min(10, max(1, (100 if more else 300) // count))
        return Job(count, arguments.images, arguments.width, rounds, **more)

    usual, *others = arguments.neighbours
    jobs = [job(count) for count in arguments.hospitals]
    secure = [job(count, secure=True, neighbours=usual) for count in arguments.secure]
    studies = [Study(one, _ranks_for(one, arguments.ranks)) for one in [*jobs, *secure]]
    if secure:  # does the cost grow with k as it should? At the largest size, where it shows
        fewest = studies[-1].ranks[:1]
        studies += [Study(replace(secure[-1], neighbours=k), fewest) for k in others]
    return studies


def _speedup_studies(arguments: argparse.Namespace) -> list[Study]:
    if not arguments.speedup_images or max(arguments.ranks) == 1:
        return []
    job = Job(hospitals=10, images=arguments.speedup_images, width=arguments.speedup_width)
    ranks = _ranks_for(job, arguments.ranks)
    return [Study(replace(job, secure=secure), ranks) for secure in (False, True)]


def _repeats(arguments: argparse.Namespace, study: Study) -> int:
    result: int = arguments.repeats if study.job.hospitals < LARGE else arguments.large_repeats
    return result


def _ranks_for(job: Job, ranks: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({count for count in ranks if count <= job.hospitals}))


def _take_turns(study: Study, repeats: int, bar: Progress[None]) -> None:
    """Its numbers of ranks, one after the other, ``repeats`` times."""
    for _ in range(repeats):
        for ranks in study.ranks:
            bar.set_postfix_str(f"{study.kind}, {ranks} ranks")
            study.answers.setdefault(ranks, []).append(launch(study.job, ranks))
            bar.update()


def launch(job: Job, ranks: int) -> dict[str, Any]:
    """What the job says, run in ``ranks`` fresh processes."""
    words = ["-m", "repro.bench.scale_job", json.dumps(asdict(job))]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        words = [*launcher, *words]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"a job of {ranks} ranks failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _rows(study: Study, *, memory: bool = True) -> list[Row]:
    rows: list[Row] = []
    for ranks, answers in study.answers.items():
        name = f"{study.kind}, {ranks} rank{'s' * (ranks > 1)}"
        speed = Row.of(
            name, "rounds", "/min", [60 / answer["seconds"] for answer in answers],
            detail={"job": asdict(study.job), "ranks": ranks, "parts": answers[-1]["parts"]},
        )  # fmt: skip
        if ranks > study.ranks[0]:
            baseline = rows[0].median
            speed = replace(speed, relative=speed.median / baseline, note="against one process")
        rows.append(speed)
        if memory:
            rows.append(_memory_row(name, answers))
    return rows


def _memory_row(name: str, answers: Answers) -> Row:
    """Of the largest rank; what it had before the federation was built is said beside it."""
    largest = [max(rank["peak_mib"] for rank in answer["memory"]) for answer in answers]
    start = max(rank["start_mib"] for rank in answers[-1]["memory"])
    note = f"{start:.0f} MiB of it are imports"
    return Row.of(name, "peak memory of a rank", "MiB", largest, note=note)


def _growth_rows(studies: list[Study]) -> list[Row]:
    """Seconds a hospital and round on one rank, and the exponent of K between two sizes."""
    rows: list[Row] = []
    before: dict[tuple[bool, int], Study] = {}
    for study in studies:
        job, fewest = study.job, study.ranks[0]
        seconds = [answer["seconds"] for answer in study.answers[fewest]]
        each = [1000 * one / job.hospitals for one in seconds]
        row = Row.of(study.kind, "a hospital's round", "ms", each)
        smaller = before.get((job.secure, job.neighbours))
        if smaller is not None and smaller.job.hospitals < job.hospitals:
            grown = min(seconds) / min(one["seconds"] for one in smaller.answers[fewest])
            exponent = math.log(grown) / math.log(job.hospitals / smaller.job.hospitals)
            note = f"cost ∝ K^{exponent:.2f} from K={smaller.job.hospitals} (1: linear)"
            row = replace(row, note=note)
        rows.append(row)
        before[job.secure, job.neighbours] = study
    return rows
