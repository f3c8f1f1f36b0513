"""The record of one run: everything a table, a figure or a doubting reader needs.

Accuracies are fractions in [0, 1], losses are mean cross-entropies in nats, times are seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from repro.errors import InputError

FORMAT = 1
# What may differ between two runs of the same settings, seed and data.
VOLATILE = ("started", "finished", "wall_seconds", "environment", "resumed", "timings", "code")


@dataclass(frozen=True)
class RunRecord:
    """One finished run (arm × hospitals × seed). JSON-able throughout."""

    run_id: str
    arm: str
    hospitals: int
    seed: int | None
    profile: str
    rounds: int
    dataset: dict[str, Any]  # name, source, official, md5, fingerprint, caption, sizes
    settings: dict[str, Any]  # RunSettings.as_dict()
    model: dict[str, Any]  # name, width, parameters
    history: list[dict[str, Any]]  # round 0..R: round, loss, accuracy [, train_loss, …]
    final_accuracy: float
    final_loss: float
    best_accuracy: float
    best_round: int
    confusion: list[list[int]]  # last round; row = true class, column = predicted class
    privacy: list[dict[str, Any]]  # the ledger's statements; empty when nothing was claimed
    secagg: dict[str, Any] | None  # bytes, coordinates clipped, drop-outs; None without it
    diagnostics: dict[str, int]  # sums over rounds, e.g. updates clipped; no ε covers them
    seed_source: str  # "user seed" | "operating system entropy"
    code: dict[str, Any]  # version, fingerprint of the sources, git commit where there is one
    environment: dict[str, Any]  # device, threads, versions
    timings: dict[str, float]  # seconds by part: training, aggregation, evaluation
    started: str  # UTC, ISO 8601
    finished: str
    wall_seconds: float  # of training, summed over resumes
    resumed: int = 0  # how often the run was taken up again
    format: int = field(default=FORMAT)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunRecord:
        if data.get("format") != FORMAT:
            raise InputError("run record", data.get("format"), f"format {FORMAT}")
        names = {f.name for f in dataclasses.fields(cls)}
        missing = names - data.keys()
        if missing:
            raise InputError("run record", sorted(data), f"the keys {sorted(missing)} too")
        return cls(**{name: data[name] for name in names})

    def stable(self) -> dict[str, Any]:
        """The record without what two equal runs may differ in: times and machines."""
        return {key: value for key, value in self.as_dict().items() if key not in VOLATILE}


def best_round(history: list[dict[str, Any]]) -> tuple[float, int]:
    """(accuracy, round) of the first best round. The authors' code prints this maximum."""
    best = max(history, key=lambda entry: (entry["accuracy"], -entry["round"]))
    return best["accuracy"], best["round"]
