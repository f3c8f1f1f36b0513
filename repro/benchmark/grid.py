"""The grid of the benchmark: method × ε × place on one data set, and what is on record of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from repro.data import Dataset
from repro.errors import InputError
from repro.report.evidence import Evidence, fingerprint_of, gather
from repro.runs.arm import EPSILONS, POOLED_DELTA, Arm
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import Profile
from repro.runs.record import RunRecord
from repro.runs.settings import RunSettings
from repro.runs.store import RunStore

DELTA = POOLED_DELTA  # of every cell: others' ε would say something else
ONE_PLACE = 1  # hospitals: all images in one trusted place
NO_FILE = "no file of this data set was given (--data FILE)"


def place_name(hospitals: int) -> str:
    return "one trusted place" if hospitals == ONE_PLACE else f"{hospitals} hospitals"


def methods() -> dict[str, dict[float, Arm]]:
    """Method -> ε -> arm: an arm's name without its ε, of arms that protect a record at ``DELTA``.

    ``turned-newton-eps6-all`` is the method ``turned-newton-all`` at ε = 6. Searches are left out:
    their ε does not hold against the server.
    """
    found: dict[str, dict[float, Arm]] = {}
    for arm in ARMS.values():
        if arm.epsilon is not None and arm.delta == DELTA and arm.search is None:
            found.setdefault(_method(arm), {})[arm.epsilon] = arm
    return found


def _method(arm: Arm) -> str:
    return arm.name.replace(f"-eps{arm.epsilon:g}", "")


def chosen_methods(names: Sequence[str]) -> list[str]:
    """``names``, of methods or of arms; without any, the methods that have an arm at every ε."""
    known = methods()
    if not names:
        return [name for name, arms in known.items() if set(EPSILONS) <= set(arms)]
    by_arm = {arm.name: name for name, arms in known.items() for arm in arms.values()}
    found = [by_arm.get(name, name) for name in names]
    for given, name in zip(names, found, strict=True):
        if name not in known:
            raise InputError("arms", given, "some of " + ", ".join(known))
    return list(dict.fromkeys(found))


@dataclass
class Cell:
    """One method at one ε in one place on one data set.

    runs: seed -> settings of runs that are not on record; found: seed -> finished runs;
    reason: why runs are missing, "" where none is.
    """

    method: str
    epsilon: float
    hospitals: int
    arm: Arm | None
    found: dict[int, RunRecord] = field(default_factory=dict)
    runs: dict[int, RunSettings] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Board:
    """A data set and its cells. data: None where there are records of it, but no file."""

    data: Dataset | None
    facts: dict[str, object]  # of a record's ``dataset``, or of ``data``
    cells: list[Cell]


def boards(
    datasets: Iterable[Dataset],
    stores: Sequence[RunStore],
    profile: Profile,
    *,
    names: Sequence[str],
    epsilons: Sequence[float],
    hospitals: Sequence[int],
    seeds: Sequence[int],
) -> list[Board]:
    """A board for every data set that there is a file of, or a record in ``stores``.

    Records count where their settings are the arm's and profile's own and the data the same.
    """
    stored = [record for store in stores for record in store.all()]
    given = {dataset.fingerprint: dataset for dataset in datasets}
    others = {
        fingerprint_of(r): r for r in stored if r.profile == profile.name and r.seed is not None
    }
    found = []
    for fingerprint in dict.fromkeys([*given, *others]):
        data = given.get(fingerprint)
        evidence = gather(stored, profile.name, fingerprint)
        cells = [
            _cell(name, epsilon, count, evidence, data, profile, seeds)
            for count in hospitals
            for name in names
            for epsilon in epsilons
        ]
        if data is not None or any(cell.found for cell in cells):
            facts = _facts(data) if data is not None else others[fingerprint].dataset
            found.append(Board(data, facts, cells))
    return found


def _facts(data: Dataset) -> dict[str, object]:
    return {
        **data.facts(),
        "caption": data.caption(),
        "class_names": list(data.class_names),
        "side": data.train.images.shape[1],
        "channels": data.channels,
        "multi_label": data.multi_label,
        "train_images": len(data.train),
        "test_images": len(data.test),
    }


def _cell(
    name: str,
    epsilon: float,
    hospitals: int,
    evidence: Evidence,
    data: Dataset | None,
    profile: Profile,
    seeds: Sequence[int],
) -> Cell:
    arm = methods()[name].get(epsilon)
    cell = Cell(name, epsilon, hospitals, arm)
    if arm is None:
        cell.reason = f"there is no arm of it at ε = {epsilon:g}"
        return cell
    if arm.scope == "pooled" and hospitals != ONE_PLACE:
        cell.reason = "all its images lie in one place"
        return cell
    records = evidence.runs(arm.name, hospitals)
    cell.found = {r.seed: r for r in records if r.seed in seeds and r.seed is not None}
    lacking = [seed for seed in seeds if seed not in cell.found]
    if not lacking:
        return cell
    if data is None:
        cell.reason = NO_FILE
    elif arm.missing:
        cell.reason = arm.missing
    else:
        try:
            cell.runs = {s: compose(arm, profile, hospitals=hospitals, seed=s) for s in lacking}
        except InputError as problem:
            cell.reason = str(problem)
    return cell


def cost(cell: Cell, known: Iterable[RunRecord]) -> float | None:
    """Seconds that the cell's missing runs may take, from those of the same arm among ``known``,
    else of the same kind of model and trainer; None where there is none. Without features, which
    are computed once for all runs of a data set."""
    if cell.arm is None or not cell.runs:
        return 0.0
    like = next(iter(cell.runs.values()))
    alike = [
        r
        for r in known
        if r.profile == like.profile
        and r.settings["model"]["name"] == like.model.name
        and r.settings["trainer"] == like.trainer
    ]
    own = [r for r in alike if r.arm == cell.arm.name]
    if not alike:
        return None
    return len(cell.runs) * median(r.wall_seconds for r in own or alike)


def where(stores: Sequence[RunStore], record: RunRecord) -> RunStore | None:
    """The store that keeps the run's scores; None where none does."""
    return next((store for store in stores if store.scores(record.run_id) is not None), None)
