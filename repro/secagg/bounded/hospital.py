"""A hospital's side of a bounded round: its vector, masked, and the proof of its norm, masked."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Mapping

import numpy as np

from repro.errors import InputError
from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.circuit import Circuit, blinding
from repro.secagg.bounded.messages import (
    Complaint,
    MemberKey,
    Offer,
    Proof,
    array_digest,
    seed_commitment,
)
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.keys import AgreementKey, Identity, derive, seal
from repro.secagg.masks import subtract_mask
from repro.secagg.shamir import Entropy


class BoundedHospital:
    """One hospital in one round: ``offer``, ``published`` if accused, ``prove``; each once.

    vector: (length,) int64, whose Euclidean norm is at most the bound's. Raises InputError for
    another one. entropy: n -> n secret uniform bytes.
    """

    def __init__(
        self,
        hospital: int,
        identity: Identity,
        round_: BoundedRound,
        vector: np.ndarray,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self.id, self.round = hospital, round_
        self._identity, self._entropy = identity, entropy
        self._seeds = [entropy(32) for _ in round_.masks]
        self._elements = self._checked(vector)
        self._offer: Offer | None = None
        self._proved = False
        identity.join(round_.session, round_.number)

    def _checked(self, vector: np.ndarray) -> np.ndarray:
        if vector.shape != (self.round.length,) or vector.dtype != np.int64:
            given = f"{vector.shape} of {vector.dtype}"
            raise InputError("vector", given, f"({self.round.length},) of int64")
        norm, bound = math.hypot(*vector.astype(np.float64)), self.round.bound.norm
        if norm > bound:
            raise InputError("vector", f"a norm of {norm:.6g}", f"a norm of at most {bound:.6g}")
        elements: np.ndarray = np.mod(vector, P).astype(FIELD.dtype)
        return elements

    def offer(self, keys: Collection[MemberKey]) -> tuple[Offer, np.ndarray]:
        """The vector less all its masks, (length,) field elements; and the seeds, sealed.

        keys: the members'; one without a key is given no seeds. Raises Refused for fewer keys
        than a quorum, or one that its owner has not signed.
        """
        if self._offer is not None:
            raise Refused("a second vector in one round")
        known = {key.member: key for key in keys if key.genuine(self.round)}
        if len(known) < len(keys) or not set(known) <= set(self.round.committee):
            raise Refused("keys that are not the committee's")
        if len(known) < self.round.quorum:
            raise Refused(f"keys of {len(known)} members; a quorum is {self.round.quorum}")
        ephemeral = AgreementKey(self._entropy(32))
        sealed = {}
        for member in sorted(known):
            key = ephemeral.agree(
                known[member].public, self.round.context, "seeds", self.id, member
            )
            seeds = b"".join(self._seeds[mask] for mask in self.round.held_by(member))
            sealed[member] = seal(key, seeds, self.round.context)
        masked = self._masked(self._elements, "vector")
        commitments = tuple(
            seed_commitment(self.round, self.id, mask, seed)
            for mask, seed in enumerate(self._seeds)
        )
        parts = (self.id, array_digest(masked), commitments, ephemeral.public, sealed)
        signature = self._identity.sign("offer", Offer(*parts).digest(self.round))
        self._offer = Offer(*parts, signature)
        return self._offer, masked

    def published(self, complaints: Collection[Complaint]) -> dict[int, bytes]:
        """Mask -> its seed, for those that a member says it was not given.

        A member that lies has that seed anyway, so nothing is given away by it. One whose key
        the server has kept back has not, and is not answered.
        """
        if self._offer is None:
            raise Refused("complaints about nothing")
        for complaint in complaints:
            known = complaint.member in self._offer.sealed and complaint.hospital == self.id
            if not known or not complaint.genuine(self.round):
                raise Refused("a complaint of nobody that seeds were sealed for")
        return {complaint.mask: self._seeds[complaint.mask] for complaint in complaints}

    def prove(self, challenge: bytes) -> tuple[Proof, np.ndarray]:
        """The proof for the matrix that ``challenge`` is the key of, less its masks."""
        if self._offer is None or self._proved:
            raise Refused("a proof that is out of place")
        self._proved = True
        circuit = Circuit(self.round.bound)
        projections = project(challenge, self.round.bound.rows, self._elements[None])[0]
        if not self._provable(circuit, projections):
            raise Refused("projections of its vector that are longer than the bound allows")
        proof = circuit.prove(projections, blinding(self._entropy(32), circuit.blinding_size))
        masked = self._masked(proof.astype(FIELD.dtype), "proof")
        parts = (self.id, self._offer.digest(self.round), challenge, array_digest(masked))
        signature = self._identity.sign("proof", Proof(*parts).digest(self.round))
        return Proof(*parts, signature), masked

    def _provable(self, circuit: Circuit, projections: np.ndarray) -> bool:
        """An honest vector's are not with probability ``bound.failure``: no proof of it is made,
        since one that fails could show something of it."""
        return circuit.keeps(projections)

    def _masked(self, elements: np.ndarray, what: str) -> np.ndarray:
        result = elements.copy()
        for mask, seed in enumerate(self._seeds):
            subtract_mask(FIELD, result, mask_key(self.round, seed, what, self.id, mask))
        return result


def mask_key(round_: BoundedRound, seed: bytes, what: str, hospital: int, mask: int) -> bytes:
    """The key of one of a hospital's masks: of its vector, or of its proof."""
    return derive(seed, round_.context, "bounded", what, hospital, mask)


def seeds_opened(
    round_: BoundedRound, offer: Offer, member: int, opened: bytes
) -> Mapping[int, bytes]:
    """Mask -> seed, of those that came out as they were committed to."""
    held = round_.held_by(member)
    if len(opened) != 32 * len(held):
        return {}
    seeds = {mask: opened[32 * at : 32 * at + 32] for at, mask in enumerate(held)}
    return {
        mask: seed
        for mask, seed in seeds.items()
        if seed_commitment(round_, offer.hospital, mask, seed) == offer.commitments[mask]
    }
