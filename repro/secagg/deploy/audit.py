"""What logs prove: of one party, that it kept to the protocol; of several, that they agree.

Checked of each log: no round number was begun twice or went back; at most one message a phase,
direction and hospital. Of several together: both ends of a message saw the same bytes; no
hospital's two secrets were opened in one round, its self mask by one neighbour and its mask key
by another; and nothing is missing: a party notes a message before it sends it, so what one end
has received is in the other end's log, or part of that log is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from repro.secagg.deploy.transcript import Log

# session, round, phase, direction, hospital: one message
Place: TypeAlias = tuple[str, int, str, str, int]
SEVERAL_TIMES = ("sums",)  # a bounded round's phase, in which a member may be asked again
_NAMED = 3  # rounds that a finding of missing messages names


@dataclass(frozen=True)
class LogAudit:
    """rounds: numbers begun, over all logs; sums: those that ended with a sum; messages: noted;
    compared: messages that two logs have; opened: (round, hospital) whose secret was asked for;
    findings: one line for each thing that is wrong or missing."""

    rounds: int
    sums: int
    messages: int
    compared: int
    opened: int
    findings: tuple[str, ...]


def audit(logs: Sequence[Log]) -> LogAudit:
    """Check verified logs, each by itself and against the others."""
    trail = _Trail()
    for log in logs:
        trail.follow(log)
    heads = {log.head for log in logs}
    for log in logs:
        before = log.entries[0].get("continues")
        if before is not None and before not in heads:
            trail.findings.append(
                f"{log.public.hex()[:12]}: goes on from a log that is not here, head {before[:12]}"
            )
    compared = trail.compare()
    findings = (*trail.findings, *trail.missing(), *trail.opened.findings())
    return LogAudit(
        len(trail.begun), trail.sums, trail.messages, compared, trail.opened.count, findings
    )


class _Trail:
    """What all logs say, gathered one log after another."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.begun: set[tuple[str, int]] = set()
        self.sums = self.messages = 0
        self.opened = _Opened()
        self._seen: dict[Place, dict[str, set[str]]] = {}  # way -> digests
        self._server = False  # whether there is a log of the server's
        self._hospitals: set[int] = set()  # those whose logs are there

    def follow(self, log: Log) -> None:
        name, last = log.public.hex()[:12], dict[str, int]()
        noted: set[Place] = set()
        for entry in log.entries:
            if entry["event"] == "opened":
                self._server |= entry["party"] == "server"
            elif entry["event"] == "begun":
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
        self, name: str, last: dict[str, int], noted: set[Place], entry: dict[str, Any]
    ) -> None:
        self.messages += 1
        key: Place = (
            entry["session"],
            entry["round"],
            entry["phase"],
            entry["direction"],
            entry["hospital"],
        )
        where = _where(key)
        if key in noted and entry["phase"] not in SEVERAL_TIMES:
            self.findings.append(f"{name}: {where}: a second message")
        if last.get(key[0]) != key[1]:
            self.findings.append(f"{name}: {where}: not the round begun last")
        noted.add(key)
        if (entry["way"] == "sent") == (entry["direction"] == "up"):
            self._hospitals.add(entry["hospital"])
        ends = self._seen.setdefault(key, {"sent": set(), "received": set()})
        ends[entry["way"]].add(entry["digest"])

    def compare(self) -> int:
        """How many messages both ends have noted; one that differs is a finding."""
        compared = 0
        for key, ends in self._seen.items():
            if ends["sent"] and ends["received"]:
                compared += 1
                if not ends["received"] <= ends["sent"]:
                    self.findings.append(f"{_where(key)}: received otherwise than it was sent")
        return compared

    def missing(self) -> list[str]:
        """A line for each party whose log is there and lacks what others received from it."""
        lacks: dict[str, list[Place]] = defaultdict(list)
        for key, ends in sorted(self._seen.items()):
            if ends["received"] and not ends["sent"]:
                direction, hospital = key[3], key[4]
                if direction == "down" and self._server:
                    lacks["the server's log"].append(key)
                elif direction == "up" and hospital in self._hospitals:
                    lacks[f"hospital {hospital}'s log"].append(key)
        return [f"{whose} lacks {_listed(places)}" for whose, places in lacks.items()]


def _where(key: Place) -> str:
    return f"round {key[1]}, {key[2]}, hospital {key[4]}"


def _listed(places: Sequence[Place]) -> str:
    """How many messages in which rounds."""
    rounds = sorted({(session, number) for session, number, *_ in places})
    named = ", ".join(str(number) for _, number in rounds[:_NAMED])
    more = f" and {len(rounds) - _NAMED} more" if len(rounds) > _NAMED else ""
    which = f"round{'s' * (len(rounds) > 1)} {named}{more}"
    count = f"{len(places)} message{'s' * (len(places) > 1)}"
    return f"{count} that others received from it, in {which}"


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

    def findings(self) -> Iterable[str]:
        return [
            f"round {where[1]}: both secrets of hospital {one} were opened"
            for where, seeds in self._seeds.items()
            for one in sorted(seeds & self._keys[where])
        ]
