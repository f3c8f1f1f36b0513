"""What everybody knows before a bounded round: the bound, the committee, who holds which mask."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from repro.checks import check_counts
from repro.errors import InputError
from repro.secagg import context, graph
from repro.secagg.bounded.bound import NormBound
from repro.secagg.encoding import Decoded
from repro.secagg.rounds import BaseRound

# In "seeds" only hospitals answer that a member has complained of, if there are any; "sums" may
# come several times. In the others than OF_HOSPITALS members of the committee speak.
PHASES = (
    "advertise",
    "masked",
    "complaints",
    "seeds",
    "nonces",
    "proof",
    "answers",
    "confirm",
    "masks",
    "sums",
)
OF_HOSPITALS = ("advertise", "masked", "seeds", "proof")
FEWEST = 4  # hospitals: a committee of which one may lie
MAX_FAULTS = 3  # 10 members, 120 masks a hospital: beyond that masks cost more than they hide


@dataclass(frozen=True, kw_only=True)
class BoundedRound(BaseRound):
    """The public settings of one round. Everybody holds an equal one, or nothing verifies.

    bound: what each hospital proves of its vector of int64. faults: t, the members of the
    committee of 3·t + 1 hospitals that may lie, vanish or tell the server all they know.
    minimum: no sum of fewer hospitals is unmasked; 0 for more than half of them. Where c of them
    may work with the server it sees the sum of the others, minimum − c or more.
    """

    bound: NormBound
    faults: int = 1
    minimum: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, faults=1, minimum=0)
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

    def check(self, vector: np.ndarray, weight: int) -> None:
        """All vectors count alike: a weight is in the vector, and in the bound on it."""
        if vector.shape != (self.length,) or vector.dtype != np.int64:
            given = f"{vector.shape} of {vector.dtype}"
            raise InputError("vector", given, f"({self.length},) of int64")
        if weight != 1:
            raise InputError("weight", weight, "1")
        norm, bound = float(np.linalg.norm(vector.astype(np.float64))), self.bound.norm
        if norm > bound:
            raise InputError("vector", f"a norm of {norm:.6g}", f"a norm of at most {bound:.6g}")

    def decode(self, total: np.ndarray, survivors: Collection[int]) -> Decoded:
        """The plain mean. No sum is impossible: every vector in it was proved."""
        return Decoded(total / len(survivors), len(survivors), 0, 0.0)

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
    def parts(self) -> dict[str, bytes]:
        numbers = (one.to_bytes(8, "little") for one in (self.faults, self.minimum))
        sizes = self.number.to_bytes(8, "little"), self.length.to_bytes(8, "little")
        contents = {
            "round": self.session + sizes[0],
            "directory": self.directory.digest,
            "thresholds": b"".join(numbers),
            "encoding": sizes[1] + self.bound.canonical(),
            "model": self.model,
            "training": self.training,
            "application": self.application,
        }
        return {name: context.part_digest(f"bounded {name}", c) for name, c in contents.items()}
