"""All that tables, figures and the report are drawn from, and one digest of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.report.cache import digest_of
from repro.report.claims import Claims, load_claims
from repro.report.evidence import Evidence, cut_short, fingerprint_of, gather
from repro.runs.record import RunRecord
from repro.runs.store import RunStore

# Folders and files beside the runs whose JSON may be drawn; see ``side``.
SIDE = ("partition/*.json", "bench/*.json", "audit/*.json", "ablations/*.json", "*.json")

# Profiles that an item shows beside the evidence's own; see ``other``.
OTHERS = ("overnight", "paper")
PAPER = "paper"  # the profile that is the paper's own setting


@dataclass(frozen=True)
class Sources:
    """All that tables, figures and the report may read."""

    out: Path
    evidence: Evidence
    claims: Claims
    runs: Path | None = None  # the store's root where it is not ``out``
    stored: tuple[RunRecord, ...] = ()  # all of the store, the evidence among them

    @classmethod
    def of(
        cls,
        out: str | Path,
        *,
        runs: str | Path | None = None,
        profile: str | None = None,
        fingerprint: str | None = None,
    ) -> Sources:
        """out: where things are drawn; runs: the store's root where it is another folder."""
        store = RunStore(out) if runs is None else RunStore(runs, written=False)
        stored = tuple(store.all())
        evidence = gather(stored, profile, fingerprint)
        root = None if runs is None else store.root
        return cls(Path(out), evidence, load_claims(), root, stored)

    @property
    def paper(self) -> Evidence:
        """The runs in the paper's own setting, on the same data as the evidence."""
        return self.evidence if self.evidence.profile == PAPER else self.other(PAPER)

    def other(self, profile: str) -> Evidence:
        """Runs of another profile (of ``OTHERS``) on the same data, where they were kept."""
        return self._others[profile]

    @cached_property
    def _others(self) -> dict[str, Evidence]:
        return {profile: self._gather(profile) for profile in OTHERS}

    @cached_property
    def cut_short(self) -> tuple[RunRecord, ...]:
        """Runs in the paper's own setting of fewer rounds, where there is no whole one."""
        tried = (cut_short(stored, PAPER, self._data) for stored in self._stored(PAPER))
        found = next(filter(None, tried), [])
        return tuple(run for run in found if not self.paper.runs(run.arm, run.hospitals))

    @property
    def _data(self) -> str | None:
        return next(map(fingerprint_of, self.evidence.records), None)

    def _stored(self, profile: str) -> Iterator[Iterable[RunRecord]]:
        """Where runs of ``profile`` may be: in the store itself, or in its folder ``profile``."""
        yield self.stored
        for place in self.places:
            yield RunStore(place / profile, written=False).all()

    def _gather(self, profile: str) -> Evidence:
        tried = (gather(stored, profile, self._data) for stored in self._stored(profile))
        none = Evidence(profile, None, ())
        return next((found for found in tried if found.records), none)

    @property
    def places(self) -> tuple[Path, ...]:
        """Where side files may lie: beside the runs first, then where things are drawn."""
        return (self.out,) if self.runs is None else (self.runs, self.out)

    def find(self, name: str) -> Path | None:
        """The file or folder ``name`` in the first place that has it."""
        return next((place / name for place in self.places if (place / name).exists()), None)

    def side(self, name: str) -> dict[str, Any] | None:
        """A JSON file beside the runs, e.g. ``partition/k10`` or ``bench/secagg``; or None."""
        path = self.find(f"{name}.json")
        if path is None:
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise InputError(path.name, str(path), f"JSON ({problem}); delete it") from problem
        return dict(content)

    def scores(self, record: RunRecord) -> tuple[np.ndarray, np.ndarray] | None:
        """The run's (images, classes) logits and the (images,) labels of the same test images.

        None where either was not kept. InputError where they do not give the record's matrix.
        """
        fingerprint = fingerprint_of(record)
        stores = [RunStore(place, written=False) for place in self.places]
        logits = next((s for one in stores if (s := one.scores(record.run_id)) is not None), None)
        labels = next((s for one in stores if (s := one.labels(fingerprint)) is not None), None)
        if logits is None or labels is None:
            return None
        labels = labels[:: int(record.settings.get("test_stride", 1))]
        classes = len(record.confusion)
        if len(labels) == len(logits):
            cells = labels * classes + logits.argmax(axis=1)
            found = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
            # Float16 may have made a draw of what was closer than 6e-8.
            if np.abs(found - record.confusion).sum() <= 2e-3 * len(labels):
                return logits, labels
        expected = "scores and test labels that give the record's confusion matrix"
        raise InputError("scores", record.run_id, expected)

    @cached_property
    def digest(self) -> str:
        """Changes whenever anything does that may be drawn: runs, claims, side files.

        One digest for all items: an item that reads little is sometimes drawn for nothing, which
        costs a second; a list of what each reads would have to be kept right by hand.
        """
        evidence = self.evidence
        others = (record for name in OTHERS for record in self.other(name).records)
        shown = [*evidence.records, *others, *self.cut_short]
        runs = [[run.stable(), run.timings] for run in shown]
        side = {
            path.relative_to(place).as_posix(): digest_of(path.read_text(encoding="utf-8"))
            for place in reversed(self.places)  # the first place has the last word
            for pattern in SIDE
            for path in sorted(place.glob(pattern))
        }
        kept = sorted(
            path.relative_to(place).as_posix()
            for place in self.places
            for path in place.glob("runs/*/*.npy.gz")
        )  # that they are there: what they hold, the records are checked for
        return digest_of([evidence.profile, evidence.kind, runs, repr(self.claims), side, kept])
