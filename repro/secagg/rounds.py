"""What everybody knows before a round: who takes part, the thresholds, what vectors mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from repro.checks import check_count, check_counts
from repro.errors import InputError
from repro.secagg import context, graph
from repro.secagg.context import DIGEST_BYTES
from repro.secagg.encoding import Decoded, VectorEncoding
from repro.secagg.errors import Refused
from repro.secagg.field import Field
from repro.secagg.keys import PUBLIC_BYTES

# Between verify and masked there is a phase "open" where a hospital has been accused.
PHASES = ("advertise", "share", "verify", "masked", "consistency", "unmask")
SERVER = 2**64 - 1  # the server's id in a message; hospitals' ids are below
MAX_HOSPITALS = 2**16
COMMITTEE = 64  # signatures are the cost that grows with K: 36 of them take 3 ms to verify
SESSION_BYTES = 32
MAX_LENGTH = 2**32 - 8  # of a vector, its encoding's extra elements not counted
REMEMBERED = 16  # answers about sets of hospitals, in a Round

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Directory:
    """Who is who: everybody's Ed25519 public key, 32 bytes, known to all beforehand.

    That this list is right is the one thing the protocol has to assume (Bonawitz et al. 2017,
    section 6.2, call it the PKI): a server that could write it would play every neighbour itself.
    """

    server: bytes
    hospitals: Mapping[int, bytes]

    def __post_init__(self) -> None:
        keys = [self.server, *self.hospitals.values()]
        if any(len(key) != PUBLIC_BYTES for key in keys) or len(set(keys)) != len(keys):
            raise InputError("directory", f"{len(keys)} keys", "distinct public keys of 32 bytes")
        if any(not 0 <= one < SERVER for one in self.hospitals):
            raise InputError("directory", sorted(self.hospitals), "ids from 0 to 2^64 - 2")
        if not 2 <= len(self.hospitals) <= MAX_HOSPITALS:
            raise InputError("hospitals", len(self.hospitals), f"2 to {MAX_HOSPITALS}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over everybody's id and key."""
        keys = (one.to_bytes(8, "little") + self.hospitals[one] for one in sorted(self.hospitals))
        return context.part_digest("directory", self.server + b"".join(keys))


@dataclass(frozen=True, kw_only=True)
class BaseRound(ABC):
    """What the rounds of both protocols have in common.

    directory: everybody's identity. session: 32 bytes that name the federation's run, not
        chosen by the server alone (see ``joint_session``). number: the round in it, 1, 2, …
    length: coordinates of the vectors.
    model: ``model_digest`` of what the updates are relative to, 32 bytes; training: digest of
        the training's settings, 32 bytes; application: anything else that all must agree on.
        A hospital computes these from what it holds itself, never from a server's word.
    """

    directory: Directory
    session: bytes
    number: int
    length: int
    model: bytes
    training: bytes
    application: bytes = b""

    def __post_init__(self) -> None:
        sizes = {"session": SESSION_BYTES, "model": DIGEST_BYTES, "training": DIGEST_BYTES}
        for name, size in sizes.items():
            if len(getattr(self, name)) != size:
                raise InputError(name, f"{len(getattr(self, name))} bytes", f"{size} bytes")
        object.__setattr__(self, "number", check_count("round", self.number))
        check_counts(self, length=1)
        if self.number >= 2**64:
            raise InputError("round", self.number, "1 to 2^64 - 1")
        if self.length > MAX_LENGTH:
            raise InputError("length", self.length, f"1 to {MAX_LENGTH}")

    @cached_property
    def roster(self) -> tuple[int, ...]:
        """All hospitals, ascending."""
        return tuple(sorted(self.directory.hospitals))

    @property
    @abstractmethod
    def parts(self) -> dict[str, bytes]:
        """Digests of all settings, by name (``context.PARTS``): what hospitals must agree on."""

    @cached_property
    def context(self) -> bytes:
        """32 bytes over all parts: what every key, signature and message is bound to."""
        return context.combined(self.parts)

    @abstractmethod
    def check(self, vector: np.ndarray, weight: int) -> None:
        """Raise InputError for a contribution, (length,), that the round does not take."""

    @abstractmethod
    def decode(self, total: np.ndarray, survivors: Collection[int]) -> Decoded:
        """What the survivors' sum says; ImpossibleSum if it is none."""


@dataclass(frozen=True, kw_only=True)
class Round(BaseRound):
    """The public settings of one round. Everybody holds an equal one, or nothing verifies.

    Directory, session and number, and nothing else, fix who neighbours whom.
    threshold: shares that reveal a secret, t; neighbours: k, each hospital's secrets are shared
        among itself and its k neighbours. k/2 < t ≤ k + 1: no two disjoint sets of t neighbours,
        so a hospital's two secrets need not both come out.
    encoding: what the vectors' field elements mean.
    quorum: confirmers (below) whose signature a survivor set needs, more than half of them: two
        different sets are both confirmed only if 2·quorum − confirmers of them sign twice.
        0 means as many as any round that can be unmasked has anyway, see ``usual_quorum``.
    minimum_survivors: no sum of fewer hospitals is unmasked, whatever the shares would allow.
    """

    threshold: int
    neighbours: int
    encoding: VectorEncoding
    quorum: int = 0
    minimum_survivors: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.directory.hospitals)
        check_counts(self, neighbours=1, threshold=1, quorum=0, minimum_survivors=1)
        if self.encoding.hospitals < count:
            expected = f"{count} or more, the directory's, so that no sum overflows"
            raise InputError("encoding.hospitals", self.encoding.hospitals, expected)
        graph.check_degree(self.neighbours, count)
        if not self.neighbours < 2 * self.threshold <= 2 * (self.neighbours + 1):
            raise InputError(
                "threshold",
                self.threshold,
                f"more than half of the {self.neighbours} neighbours and at most "
                f"{self.neighbours + 1} (they and the hospital itself)",
            )
        confirmers = self._confirmer_count
        if self.quorum == 0:
            object.__setattr__(self, "quorum", usual_quorum(count, self.neighbours, self.threshold))
        if not confirmers < 2 * self.quorum <= 2 * confirmers:
            raise InputError("quorum", self.quorum, f"{confirmers // 2 + 1} to {confirmers}")
        if not 2 <= self.minimum_survivors <= count:
            raise InputError("minimum_survivors", self.minimum_survivors, f"2 to {count}")

    @property
    def field(self) -> Field:
        return self.encoding.field

    @property
    def dimension(self) -> int:
        """Field elements in a masked vector."""
        return self.length + self.encoding.extra

    @cached_property
    def parts(self) -> dict[str, bytes]:
        thresholds = (self.threshold, self.neighbours, self.quorum, self.minimum_survivors)
        contents = {
            "round": self.session + _packed(self.number),
            "directory": self.directory.digest,
            "thresholds": _packed(*thresholds),
            "encoding": _packed(self.length) + self.encoding.canonical(),
            "model": self.model,
            "training": self.training,
            "application": self.application,
        }
        return {name: context.part_digest(name, content) for name, content in contents.items()}

    def check(self, vector: np.ndarray, weight: int) -> None:
        self.encoding.check(vector, weight)

    def decode(self, total: np.ndarray, survivors: Collection[int]) -> Decoded:
        return self.encoding.decode(total, len(survivors))

    @cached_property
    def placement(self) -> bytes:
        """The seed of graph and committee. Only what the server cannot vary from one attempt to
        the next enters: a model or an application's bytes it could try until a graph suits it."""
        fixed = self.session + _packed(self.number) + self.directory.digest
        return context.part_digest("placement", fixed)

    @cached_property
    def graph(self) -> dict[int, frozenset[int]]:
        """Hospital -> its neighbours."""
        return graph.regular_graph(self.roster, self.neighbours, self.placement)

    @cached_property
    def confirmers(self) -> frozenset[int]:
        """Whose signatures count in the consistency check: everybody's, or, on a sparse graph
        of more than ``COMMITTEE`` hospitals, a committee's that the placement's hash picks."""
        seed = b"repro secagg committee v2" + self.placement
        ranked = sorted(self.roster, key=lambda one: graph.hashed(seed, one))
        return frozenset(ranked[: self._confirmer_count])

    @property
    def _confirmer_count(self) -> int:
        return confirmer_count(len(self.roster), self.neighbours)

    def place(self, hospital: int) -> int:
        """The hospital's evaluation point in Shamir's scheme: its rank in the roster, from 1."""
        return self._places[hospital]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {hospital: rank for rank, hospital in enumerate(self.roster, start=1)}

    def holders(self, hospital: int, among: Collection[int]) -> list[int]:
        """Who of ``among`` holds shares of the hospital's secrets, itself included; ascending."""
        return [one for one in self._neighbourhoods[hospital] if one in among]

    @cached_property
    def _neighbourhoods(self) -> dict[int, list[int]]:
        return {one: sorted({one, *near}) for one, near in self.graph.items()}

    def shortfall(self, sharers: Collection[int], survivors: Collection[int]) -> str:
        """Why the survivors' sum cannot or must not be unmasked; empty if it can.

        sharers: the hospitals whose shares were delivered; survivors: those of them whose
        masked input is in the sum. The server and each hospital apply the same test.
        """
        return self._once(self._shortfall, frozenset(sharers), frozenset(survivors))

    def _shortfall(self, sharers: frozenset[int], survivors: frozenset[int]) -> str:
        if len(survivors) < self.minimum_survivors:
            return f"{self.minimum_survivors} survivors"
        missing = self.holders_missing(sharers, survivors)
        if missing or graph.connected(self.graph, survivors):
            return missing
        # Every piece of the graph would unmask on its own, and show its own sum.
        return "neighbours that keep the survivors in one piece"

    def holders_missing(self, sharers: Collection[int], present: Collection[int]) -> str:
        """What those present are short of to confirm and to give every sharer's secret back."""
        alive = set(present)
        if len(alive & self.confirmers) < self.quorum:
            return f"{self.quorum} of the {len(self.confirmers)} that confirm survivors"
        for one in sharers:
            if len(self.graph[one] & alive) + (one in alive) < self.threshold:
                return f"{self.threshold} holders of the shares of hospital {one}"
        return ""

    def to_bitmap(self, hospitals: Collection[int]) -> bytes:
        """One bit for each of the roster, lowest first; unused bits are zero."""
        return self._once(self._to_bitmap, frozenset(hospitals))

    def _to_bitmap(self, hospitals: frozenset[int]) -> bytes:
        bitmap = bytearray(self.bitmap_bytes)
        for one in hospitals:
            byte, bit = divmod(self._places[one] - 1, 8)
            bitmap[byte] |= 1 << bit
        return bytes(bitmap)

    def from_bitmap(self, bitmap: bytes) -> frozenset[int]:
        return self._once(self._from_bitmap, bitmap)

    def _from_bitmap(self, bitmap: bytes) -> frozenset[int]:
        unused = 8 * self.bitmap_bytes - len(self.roster)
        if len(bitmap) != self.bitmap_bytes or bitmap[-1] >> (8 - unused):
            raise Refused("a set of hospitals that names strangers")
        return frozenset(
            one for rank, one in enumerate(self.roster) if bitmap[rank // 8] >> rank % 8 & 1
        )

    def _once(self, question: Callable[..., Answer], *about: Any) -> Answer:
        """The answer, remembered: K hospitals played by one process all ask about the same few
        sets, and each answer takes K steps."""
        key = (question.__name__, *about)
        if key not in self._answers:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            self._answers[key] = question(*about)
        answer: Answer = self._answers[key]
        return answer

    @cached_property
    def _answers(self) -> dict[Any, Any]:
        return {}

    @property
    def bitmap_bytes(self) -> int:
        return (len(self.roster) + 7) // 8


def confirmer_count(hospitals: int, neighbours: int) -> int:
    """C: everybody confirms, or on a sparse graph at most ``COMMITTEE``."""
    return min(hospitals, COMMITTEE) if neighbours < hospitals - 1 else hospitals


def usual_quorum(hospitals: int, neighbours: int, threshold: int) -> int:
    """q: if all K share, each of the K neighbourhoods of k + 1 needs t that are left, and each
    hospital is in k + 1 of them: K·t/(k + 1) hospitals are left in any round that can be
    unmasked. A committee is a sample, and needs some room for chance: 55 %."""
    count = confirmer_count(hospitals, neighbours)
    if count < hospitals:
        return 55 * count // 100 + 1
    return max(-(-count * threshold // (neighbours + 1)), count // 2 + 1)


def _packed(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)
