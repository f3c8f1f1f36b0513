"""Sources that note what is asked of them, so that an item depends on what it read, no more.

A question is a line of text: ``profile``, ``data``, ``claims``, ``all runs``, ``runs ARM K``,
``timed runs ARM K``, ``side NAME``. Asking it again of other sources tells whether an item
drawn from the answer must be drawn again; a run that was missing then and is there now does too.
"""

from __future__ import annotations

from typing import Any

from repro.report.cache import Sources, digest_of
from repro.report.claims import Claims
from repro.report.evidence import Evidence
from repro.runs.record import RunRecord


class WatchedEvidence(Evidence):
    """``inner``, noting each question in ``asked``."""

    inner: Evidence
    asked: set[str]

    def __init__(self, inner: Evidence, asked: set[str]) -> None:
        self.__dict__.update(inner=inner, asked=asked)  # the base class is frozen

    @property
    def profile(self) -> str:
        self.asked.add("profile")
        return self.inner.profile

    @property
    def kind(self) -> str | None:
        self.asked.add("profile")
        return self.inner.kind

    @property
    def records(self) -> tuple[RunRecord, ...]:
        self.asked.add("all runs")
        return self.inner.records

    def runs(self, arm: str, hospitals: int, *, timed: bool = False) -> list[RunRecord]:
        self.asked.add(f"{'timed ' if timed else ''}runs {arm} {hospitals}")
        return self.inner.runs(arm, hospitals)

    @property
    def class_names(self) -> list[str]:
        self.asked.add("data")
        return self.inner.class_names

    @property
    def dataset_caption(self) -> str:
        self.asked.add("data")
        return self.inner.dataset_caption


class WatchedSources(Sources):
    """``inner``, noting in ``asked`` what it and its evidence are asked."""

    inner: Sources
    asked: set[str]

    def __init__(self, inner: Sources) -> None:
        asked: set[str] = set()
        evidence = WatchedEvidence(inner.evidence, asked)
        self.__dict__.update(inner=inner, asked=asked, out=inner.out, evidence=evidence)

    @property
    def claims(self) -> Claims:
        self.asked.add("claims")
        return self.inner.claims

    def side(self, name: str) -> dict[str, Any] | None:
        self.asked.add(f"side {name}")
        return self.inner.side(name)

    def inputs(self) -> dict[str, str]:
        """Every question asked so far with the digest of its answer."""
        return {question: answer_digest(self.inner, question) for question in self.asked}


def answer_digest(sources: Sources, question: str) -> str:
    """The digest of what ``sources`` answer; no digest for what is no question."""
    evidence = sources.evidence
    match question.split():
        case ["profile"]:
            return digest_of([evidence.profile, evidence.kind])
        case ["data"]:
            return digest_of([evidence.dataset_caption, evidence.class_names])
        case ["claims"]:
            return digest_of(repr(sources.claims))
        case ["all", "runs"]:
            return digest_of([record.stable() for record in evidence.records])
        case ["runs", arm, hospitals]:
            return digest_of([run.stable() for run in evidence.runs(arm, int(hospitals))])
        case ["timed", "runs", arm, hospitals]:
            runs = evidence.runs(arm, int(hospitals))
            return digest_of([[run.stable(), run.timings] for run in runs])
        case ["side", name]:
            return digest_of(sources.side(name))
    return "unknown question"
