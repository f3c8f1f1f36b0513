"""What logs prove: of one party, that it kept to the protocol; of several, that they agree.

Checked of each log: no round number was begun twice or went back; at most one message a phase,
direction and hospital. Of several together: both ends of a message saw the same bytes, and no
hospital's two secrets were opened in one round, its self mask by one neighbour and its mask key
by another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro.secagg.deploy.transcript import Log


@dataclass(frozen=True)
class Audit:
    """rounds: numbers begun, over all logs; sums: those that ended with a sum; messages: noted;
    compared: messages that two logs have; opened: (round, hospital) whose secret was asked for;
    findings: one line for each thing that is wrong."""

    rounds: int
    sums: int
    messages: int
    compared: int
    opened: int
    findings: tuple[str, ...]


def audit(logs: Sequence[Log]) -> Audit:
    """Check verified logs, each by itself and against the others."""
    trail = _Trail()
    for log in logs:
        trail.follow(log)
    compared = trail.compare()
    opened, findings = trail.opened, (*trail.findings, *trail.opened.findings())
    return Audit(len(trail.begun), trail.sums, trail.messages, compared, opened.count, findings)


class _Trail:
    """What all logs say, gathered one log after another."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.begun: set[tuple[str, int]] = set()
        self.sums = self.messages = 0
        self.opened = _Opened()
        # (session, round, phase, direction, hospital) -> way -> digests
        self._seen: dict[tuple[Any, ...], dict[str, set[str]]] = {}

    def follow(self, log: Log) -> None:
        name, last = log.public.hex()[:12], dict[str, int]()
        noted: set[tuple[Any, ...]] = set()
        for entry in log.entries:
            if entry["event"] == "begun":
                self._begin(name, last, entry)
            elif entry["event"] == "sum":
                self.sums += 1
            elif entry["event"] == "message":
                self._note(name, last, noted, entry)
            elif entry["event"] == "opened secrets":
                self.opened.add(entry)

    def _begin(self, name: str, last: dict[str, int], entry: dict[str, Any]) -> None:
        session, number = entry["session"], entry["round"]
        if number <= last.get(session, 0):
            self.findings.append(f"{name}: round {number} begun after round {last[session]}")
        last[session] = number
        self.begun.add((session, number))

    def _note(
        self, name: str, last: dict[str, int], noted: set[tuple[Any, ...]], entry: dict[str, Any]
    ) -> None:
        self.messages += 1
        names = ("session", "round", "phase", "direction", "hospital")
        key = tuple(entry[field] for field in names)
        where = f"round {key[1]}, {key[2]}, hospital {key[4]}"
        if key in noted:
            self.findings.append(f"{name}: {where}: a second message")
        if last.get(key[0]) != key[1]:
            self.findings.append(f"{name}: {where}: not the round begun last")
        noted.add(key)
        ends = self._seen.setdefault(key, {"sent": set(), "received": set()})
        ends[entry["way"]].add(entry["digest"])

    def compare(self) -> int:
        """How many messages both ends have noted; one that differs is a finding."""
        compared = 0
        for key, ends in self._seen.items():
            if ends["sent"] and ends["received"]:
                compared += 1
                if not ends["received"] <= ends["sent"]:
                    where = f"round {key[1]}, {key[2]}, hospital {key[4]}"
                    self.findings.append(f"{where}: received otherwise than it was sent")
        return compared


class _Opened:
    """Which of each hospital's two secrets its neighbours gave shares of, by round."""

    def __init__(self) -> None:
        self._seeds: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._keys: dict[tuple[str, int], set[int]] = defaultdict(set)

    def add(self, entry: dict[str, Any]) -> None:
        where = (entry["session"], entry["round"])
        self._seeds[where] |= set(entry["self_masks"])
        self._keys[where] |= set(entry["mask_keys"])

    @property
    def count(self) -> int:
        return sum(map(len, self._seeds.values())) + sum(map(len, self._keys.values()))

    def findings(self) -> list[str]:
        return [
            f"round {where[1]}: both secrets of hospital {one} were opened"
            for where, seeds in self._seeds.items()
            for one in sorted(seeds & self._keys[where])
        ]
