"""What a table or figure may be drawn from: the runs of one profile on one data set.

A store may hold runs of several profiles, data sets and settings. Mixing them would compare
what cannot be compared, so everything that is drawn sees exactly one such group, and says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from repro.checks import check_choice
from repro.report.statistics import Summary
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES, Profile
from repro.runs.record import RunRecord

# Best first: what a reader would rather see when a store holds several kinds of data.
KINDS = ("official", "rebuilt", "file", "synthetic")
REAL = ("official", "rebuilt")
CLAIMED = "bloodmnist"  # the data set that the paper's claims are about


def data_kind(dataset: dict[str, Any]) -> str:
    """One of ``KINDS``, from a record's ``dataset``."""
    if dataset["official"]:
        return "official"
    return next((kind for kind in ("synthetic", "rebuilt") if kind in dataset["source"]), "file")


def data_caption(dataset: dict[str, Any]) -> str:
    """The line that names the data, e.g. ``Data: synthetic stand-in, not BloodMNIST``."""
    md5 = f", md5 {dataset['md5']}" if dataset.get("md5") else ""
    return str(dataset.get("caption") or f"Data: {dataset['source']}{md5}.")


@dataclass(frozen=True)
class Evidence:
    """The comparable runs of a store: one profile, one data set, the matrix' own settings."""

    profile: str
    kind: str | None  # of data; None while there is no run
    records: tuple[RunRecord, ...]

    def runs(self, arm: str, hospitals: int) -> list[RunRecord]:
        """The finished runs of one cell, by seed.

        Pooled training knows no hospitals, so its runs stand in the cells of every number.
        """
        pooled = ARMS[arm].scope == "pooled"
        found = [r for r in self.records if r.arm == arm and r.hospitals == hospitals]
        if pooled and not found:
            counts = [r.hospitals for r in self.records if r.arm == arm]
            found = [r for r in self.records if r.arm == arm and r.hospitals == min(counts)]
        return found

    def all_runs(self, *arms: str) -> list[RunRecord]:
        """The finished runs of these arms, of every number of hospitals."""
        cells = [(arm, hospitals) for arm in arms for hospitals in self.hospital_counts]
        return [run for cell in cells for run in self.runs(*cell)]

    def final(self, arm: str, hospitals: int) -> Summary | None:
        """Test accuracy after the last round (a fraction), over seeds."""
        return Summary.of([r.final_accuracy for r in self.runs(arm, hospitals)])

    def best(self, arm: str, hospitals: int) -> Summary | None:
        """Test accuracy of each run's best round: chosen on the test split, so optimistic."""
        return Summary.of([r.best_accuracy for r in self.runs(arm, hospitals)])

    @property
    def hospital_counts(self) -> tuple[int, ...]:
        return PROFILES[self.profile].hospitals

    @cached_property
    def class_names(self) -> list[str]:
        """From the data where it says, else numbers."""
        for record in self.records:
            names = record.dataset.get("class_names")
            if names:
                return [str(name) for name in names]
        classes = len(self.records[0].confusion) if self.records else 0
        return [f"class {index}" for index in range(classes)]

    @property
    def guessing(self) -> float | None:
        """The accuracy (a fraction) of always guessing the commonest class; None without a run.

        Of the run that is judged on the most images: some are judged on a part of them.
        """
        every = ([sum(row) for row in record.confusion] for record in self.records)
        images = max(every, key=sum, default=None)
        return max(images) / sum(images) if images else None

    @property
    def foreign(self) -> str | None:
        """The data set's name where it is not the one that the claims are about."""
        name = str(self.records[0].dataset.get("name", CLAIMED)) if self.records else CLAIMED
        return None if name == CLAIMED else name

    @property
    def dataset_caption(self) -> str:
        return data_caption(self.records[0].dataset) if self.records else "Data: no run yet."

    def caption(self, records: Iterable[RunRecord] | None = None) -> str:
        """What stands under every table and figure: data, profile, seeds."""
        used = self.records if records is None else list(records)
        seeds = sorted({r.seed for r in used if r.seed is not None})
        shown = ", ".join(map(str, seeds)) if seeds else "none (not run)"
        rounds = sorted({r.rounds for r in used})
        length = f", {'/'.join(map(str, rounds))} rounds" if rounds else ""
        return f"{self.dataset_caption} Profile: {self.profile}{length}. Seeds: {shown}."


def fingerprint_of(record: RunRecord) -> str:
    """What names a run's data: runs on other data are never compared with it."""
    return str(record.dataset.get("fingerprint") or record.dataset.get("md5"))


def gather(
    stored: Iterable[RunRecord], profile: str | None = None, fingerprint: str | None = None
) -> Evidence:
    """The runs among ``stored`` of ``profile`` on the data of ``fingerprint``.

    Either may be None: then the group that says most is taken (BloodMNIST before other data
    sets, the profile that trains most, official before rebuilt before other data, then the one
    with most runs). Runs whose settings are not the matrix' own (other rounds, an ablation) and
    runs without a seed are left out.
    """
    if profile is not None:
        check_choice("profile", profile, PROFILES)
    groups: dict[tuple[bool, str, str, str], list[RunRecord]] = {}
    for record in stored:
        if profile not in (None, record.profile) or not is_canonical(record):
            continue
        print_ = fingerprint_of(record)
        if fingerprint not in (None, print_):
            continue
        foreign = record.dataset.get("name", CLAIMED) != CLAIMED
        key = (foreign, record.profile, data_kind(record.dataset), print_)
        groups.setdefault(key, []).append(record)
    if not groups:
        return Evidence(profile or "quick", None, ())
    best = min(groups, key=lambda key: (*_rank(key), -len(groups[key]), key))
    # One run a cell and seed: where there are two, float32's is the one to judge by.
    runs = {
        (r.arm, r.hospitals, r.seed): r
        for r in sorted(groups[best], key=_precision)  # "bf16-mixed" < "float32"
    }
    records = [runs[key] for key in sorted(runs)]
    return Evidence(best[1], best[2], tuple(records))


def _rank(key: tuple[bool, str, str, str]) -> tuple[bool, float, int]:
    foreign, profile, kind, _ = key
    return foreign, -training_work(PROFILES[profile]), KINDS.index(kind)


def training_work(profile: Profile) -> float:
    """How much a profile's runs train, up to a factor: work of an image × images × seeds."""
    images = profile.rounds * profile.local_epochs / profile.train_stride
    return float(profile.width**2 * images * len(profile.seeds))


def cut_short(
    stored: Iterable[RunRecord], profile: str, fingerprint: str | None
) -> list[RunRecord]:
    """The runs that are the matrix' own but for fewer rounds (``--rounds``).

    Of each arm, number of hospitals and seed the longest, in that order. They are no evidence
    beside whole runs, hence apart from ``gather``'s.
    """
    found: dict[tuple[str, int, int], RunRecord] = {}
    for record in sorted(stored, key=lambda record: record.rounds):
        if record.arm not in ARMS or record.profile != profile or record.seed is None:
            continue
        fewer = record.rounds < PROFILES[profile].rounds and fingerprint_of(record) == fingerprint
        if fewer and _has_settings_of(record, rounds=record.settings["rounds"]):
            found[record.arm, record.hospitals, record.seed] = record
    return [found[key] for key in sorted(found)]


def is_canonical(record: RunRecord) -> bool:
    """Was the run made with exactly the matrix' settings for its arm and profile?

    Settings that only one side knows (a field added since) do not count against a record.
    """
    if record.arm not in ARMS or record.profile not in PROFILES or record.seed is None:
        return False
    if record.rounds != record.settings["rounds"]:  # it was extended
        return False
    return _has_settings_of(record)


def _has_settings_of(record: RunRecord, rounds: int | None = None) -> bool:
    """Are they what its arm and profile compose? rounds: instead of the profile's."""
    wanted = compose(
        ARMS[record.arm],
        PROFILES[record.profile],
        hospitals=record.hospitals,
        seed=record.seed,
        rounds=rounds,
        precision=_precision(record),
    ).as_dict()
    return _agree(json.loads(json.dumps(wanted)), record.settings)  # tuples are lists in a record


def _precision(record: RunRecord) -> str:
    """Its own, where the profile leaves it to the machine; else what the profile says."""
    wanted = PROFILES[record.profile].precision
    own: str = record.settings.get("precision", "float32")
    return own if wanted == "auto" else wanted


def _agree(wanted: dict[str, Any], given: dict[str, Any]) -> bool:
    both = ((wanted[name], given[name]) for name in wanted.keys() & given.keys())
    return all(
        _agree(left, right) if isinstance(left, dict) and isinstance(right, dict) else left == right
        for left, right in both
    )
