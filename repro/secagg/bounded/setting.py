"""What everybody knows before a bounded round: the bound, the committee, who holds which mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from repro.checks import check_count, check_counts
from repro.errors import InputError
from repro.secagg import context, graph
from repro.secagg.bounded.bound import NormBound
from repro.secagg.context import DIGEST_BYTES
from repro.secagg.rounds import SESSION_BYTES, Directory

PHASES = ("keys", "offer", "complaints", "nonces", "proof", "answers", "confirm", "masks")
MAX_FAULTS = 3  # 10 members, 120 masks a hospital: beyond that masks cost more than they hide
_LARGEST = 2**63


@dataclass(frozen=True, kw_only=True)
class BoundedRound:
    """The public settings of one round. Everybody holds an equal one, or nothing verifies.

    directory, session, number, model, training, application: as in ``repro.secagg.Round``.
    bound: what each hospital proves. length: of the vectors. faults: t, the members of the
    committee of 3·t + 1 hospitals that may lie, vanish or tell the server all they know.
    minimum: no sum of fewer hospitals is unmasked; 0 for more than half of them. Where c of them
    may work with the server it sees the sum of the others, minimum − c or more.
    """

    directory: Directory
    session: bytes
    number: int
    bound: NormBound
    length: int
    model: bytes
    training: bytes
    application: bytes = b""
    faults: int = 1
    minimum: int = 0

    def __post_init__(self) -> None:
        sizes = {"session": SESSION_BYTES, "model": DIGEST_BYTES, "training": DIGEST_BYTES}
        for name, size in sizes.items():
            if len(getattr(self, name)) != size:
                raise InputError(name, f"{len(getattr(self, name))} bytes", f"{size} bytes")
        object.__setattr__(self, "number", check_count("round", self.number))
        check_counts(self, length=1, faults=1, minimum=0)
        if self.number >= _LARGEST:
            raise InputError("round", self.number, "1 to 2^63 - 1")
        count = len(self.directory.hospitals)
        most = min(MAX_FAULTS, (count - 1) // 3)
        if self.faults > most:
            needs = f"{3 * self.faults + 1} of the {count} hospitals on the committee"
            raise InputError("faults", self.faults, f"1 to {most}: it needs {needs}")
        if self.minimum == 0:
            object.__setattr__(self, "minimum", count // 2 + 1)
        if not 2 <= self.minimum <= count:
            raise InputError("minimum", self.minimum, f"2 to {count}")
        if self.bound.hospitals < count:
            raise InputError("bound.hospitals", self.bound.hospitals, f"{count} or more")

    @cached_property
    def roster(self) -> tuple[int, ...]:
        return tuple(sorted(self.directory.hospitals))

    @cached_property
    def committee(self) -> tuple[int, ...]:
        """3·t + 1 hospitals, ascending, that a hash of session and directory picks.

        The same in every round of a session: drawn anew each time, it would sooner or later be one
        of which more than t work with the server.
        """
        seed = context.part_digest("bounded committee", self.session + self.directory.digest)
        ranked = sorted(self.roster, key=lambda one: graph.hashed(seed, one))
        return tuple(sorted(ranked[: 3 * self.faults + 1]))

    @cached_property
    def masks(self) -> tuple[frozenset[int], ...]:
        """For each of a hospital's masks, who holds its seed: all members but t.

        Replicated secret sharing (Ito, Saito and Nishizeki, 1987): of any t members, one mask
        is held by none; of any t that lie, each mask is held by t + 1 others or more.
        """
        everybody = frozenset(self.committee)
        return tuple(
            everybody - frozenset(without) for without in combinations(self.committee, self.faults)
        )

    def held_by(self, member: int) -> list[int]:
        """The numbers of the masks whose seeds the member holds."""
        return [number for number, holders in enumerate(self.masks) if member in holders]

    @property
    def quorum(self) -> int:
        """2·t + 1: any two such sets of members have an honest one in common."""
        return 2 * self.faults + 1

    @cached_property
    def context(self) -> bytes:
        """32 bytes over all of it: what every key, signature and ciphertext is bound to."""
        numbers = (self.number, self.length, self.faults, self.minimum)
        packed = b"".join(one.to_bytes(8, "little") for one in numbers)
        contents = {
            "directory": self.directory.digest,
            "session": self.session + packed,
            "bound": self.bound.canonical(),
            "model": self.model,
            "training": self.training,
            "application": self.application,
        }
        digests = (context.part_digest(f"bounded {name}", c) for name, c in contents.items())
        return context.part_digest("bounded round", b"".join(digests))
