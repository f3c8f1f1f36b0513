"""What a round of private sums did, as the ledger and the record need it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from repro.accounting import PrivacyEvent
from repro.federated.shared.sum import Release
from repro.secagg import RoundFailed

PARTS = ("training", "noise", "aggregation")  # what a round's seconds are counted for


@dataclass
class SharedReport:
    """What a round of steps did: who was in how many sums, facts, counts, seconds.

    failed: of sums that came to nothing, those whose masked input had left them.
    spent: what releases do not say: hospital, event, and what each view saw instead of it.
    """

    releases: Counter[tuple[int, ...]] = field(default_factory=Counter)  # survivors -> steps
    failed: Counter[tuple[int, ...]] = field(default_factory=Counter)  # senders -> steps
    spent: list[tuple[int, PrivacyEvent, dict[str, PrivacyEvent]]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    diagnostics: Counter[str] = field(default_factory=Counter)  # for this machine only
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


def note_release(report: SharedReport, release: Release, seconds: float) -> None:
    """Add what a release took to the round's report; seconds: of making it, noise included."""
    facts = report.facts
    report.releases[release.survivors] += 1
    report.seconds["noise"] += release.noise_seconds
    report.seconds["aggregation"] += seconds - release.noise_seconds
    if not release.protocol:
        return
    facts["protocol_steps"] = facts.get("protocol_steps", 0) + 1
    for name, counted in (("up_bytes", release.up_bytes), ("down_bytes", release.down_bytes)):
        known = facts.setdefault(name, dict.fromkeys(counted, 0))
        for phase, count in counted.items():
            known[phase] += count


def note_failure(
    report: SharedReport, failure: RoundFailed, senders: Iterable[int], seconds: float
) -> None:
    """A sum that came to nothing: its masked inputs were sent, and are worth something to
    whoever breaks secure aggregation."""
    report.seconds["aggregation"] += seconds
    report.facts["failed"] = str(failure)
    report.facts["failed_steps"] = report.facts.get("failed_steps", 0) + 1
    report.failed[tuple(sorted(senders))] += 1
