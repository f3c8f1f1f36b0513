"""A secure sum as the planned coalition sees it: decoded, without the noise that it knows.

The stated ε of an arm whose noise is shared holds against the server and ``colluders`` hospitals,
in sums that lost ``drop_outs`` others. So an audited sum really loses that many, goes through
``PrivateSum`` (rounding, discrete Gaussian shares, sum in the field, decoding), and the attacker
then subtracts the colluders' shares, which they know exactly. What the colluders' own records add
is known too: they have none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from repro.audit.claim import AuditedClaim, Sharing
from repro.federated.shared import PrivateSum, Release
from repro.federated.shared.sum import Summation
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg.context import DIGEST_BYTES
from repro.shapes import Float, Shaped


@dataclass(frozen=True)
class Coalition:
    """Who is what in every audited sum."""

    honest: tuple[int, ...]  # in the sum, their noise unknown; the claim's hospital among them
    colluders: tuple[int, ...]  # in the sum

    @classmethod
    def planned(cls, claim: AuditedClaim, sharing: Sharing) -> Coalition:
        """As many colluders and lost hospitals as the claim reckons with."""
        rest = [one for one in sharing.weights if one != claim.hospital]
        left = rest[: len(rest) - sharing.noise.drop_outs]
        split = len(left) - sharing.noise.colluders
        return cls((claim.hospital, *left[:split]), tuple(left[split:]))

    @property
    def survivors(self) -> tuple[int, ...]:
        return tuple(sorted(self.honest + self.colluders))


class CoalitionSum(PrivateSum):
    """``stated``, watched by a coalition: ``seen`` gets what is left of every release.

    noise_part: of each share that is really added; 1 is what is stated, less is a control.
    secagg: None leaves the protocol out, which gives the same bits.
    """

    def __init__(
        self,
        stated: Summation,
        coalition: Coalition,
        *,
        seed: RootSeed,
        secagg: SecAggParameters | None,
        noise_part: float = 1.0,
    ) -> None:
        assert isinstance(stated, PrivateSum)  # an exact sum states nothing to audit
        super().__init__(
            stated.plan, stated.hospitals, seed=seed, purpose=stated.purpose, secagg=secagg
        )
        self.coalition, self._noise_part = coalition, noise_part
        self._added: dict[int, Shaped[np.ndarray, " size"]] = {}  # hospital -> its last share
        self.seen: list[Float[np.ndarray, " size"]] = []

    def again(self, seed: RootSeed) -> CoalitionSum:
        """The same with other noise, nothing seen yet, without the protocol."""
        return CoalitionSum(
            self, self.coalition, seed=seed, secagg=None, noise_part=self._noise_part
        )

    def add_up(
        self,
        shares: Mapping[int, Shaped[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> Release:
        found = super().add_up(shares, round=round, step=step, protocol=protocol, model=model)
        known = sum((self._added[one] for one in self.coalition.colluders), start=np.int64(0))
        self.seen.append(found.total - known * self.plan.granularity)
        return found

    def noise(self, hospital: int, *, round: int, step: int) -> Shaped[np.ndarray, " size"]:
        added = super().noise(hospital, round=round, step=step)
        if self._noise_part != 1:
            added = np.rint(added * self._noise_part).astype(np.int64)
        self._added[hospital] = added
        return added
