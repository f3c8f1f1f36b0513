"""The record of one run: everything a table, a figure or a doubting reader needs.

Accuracies are fractions in [0, 1], losses are mean cross-entropies in nats, times are seconds.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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
    diagnostics: dict[str, int]  # sums over rounds, e.g. updates clipped; no ε covers them, so a
    # private run that states one has none
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
    def from_dict(cls, data: Any) -> RunRecord:
        """The record in ``data``; ``InputError`` unless every field is there and of its kind.

        Fields that have a default may be missing: records written before there was the field.
        """
        found = data.get("format") if isinstance(data, dict) else data
        if not isinstance(data, dict) or found != FORMAT:
            raise InputError("run record", found, f"a record of format {FORMAT}")
        fields = dataclasses.fields(cls)
        needed = {f.name for f in fields if f.default is dataclasses.MISSING}
        if needed - data.keys():
            raise InputError(
                "run record", sorted(data), f"the keys {sorted(needed - data.keys())} too"
            )
        for name, hint in _hints().items():
            if name in data and not _fits(data[name], hint):
                raise InputError("run record", data[name], f"{name} of type {hint}")
        _check_contents(data)
        return cls(**{f.name: data[f.name] for f in fields if f.name in data})

    def stable(self) -> dict[str, Any]:
        """The record without what two equal runs may differ in: times and machines. Its own
        lists and dictionaries, not copies: to look at."""
        names = (one.name for one in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name not in VOLATILE}


def best_round(history: list[dict[str, Any]]) -> tuple[float, int]:
    """(accuracy, round) of the first best round. The authors' code prints this maximum."""
    best = max(history, key=lambda entry: (entry["accuracy"], -entry["round"]))
    return best["accuracy"], best["round"]


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(RunRecord)


def _fits(value: Any, hint: Any) -> bool:
    """Is ``value`` of the type ``hint``, as far as its outermost layer goes?"""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    wanted = (int, float) if hint is float else get_origin(hint) or hint
    return isinstance(value, wanted) and not isinstance(value, bool)


def _check_contents(data: dict[str, Any]) -> None:
    """What every reader of a record takes for granted about its lists and dictionaries."""
    classes = len(data["confusion"])
    rows = [row for row in data["confusion"] if isinstance(row, list)]
    if not classes or [len(row) for row in rows] != [classes] * classes:
        raise InputError("run record", data["confusion"], "a square confusion matrix")
    keys = {"round", "loss", "accuracy"}
    rounds = [e for e in data["history"] if isinstance(e, dict) and keys <= e.keys()]
    if not rounds or len(rounds) != len(data["history"]):
        raise InputError("run record", data["history"], f"a history with {sorted(keys)}")
    if not all(isinstance(entry, dict) for entry in data["privacy"]):
        raise InputError("run record", data["privacy"], "a list of statements on privacy")
    if "rounds" not in data["settings"]:
        raise InputError("run record", data["settings"], "settings with their rounds")
