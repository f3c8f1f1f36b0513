"""A hospital's side of a bounded round: its vector, masked, and the proof of its norm, masked."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import numpy as np

from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.circuit import Circuit, blinding
from repro.secagg.bounded.member import Member, mask_key
from repro.secagg.bounded.messages import (
    SEED_BYTES,
    Complaint,
    MemberKey,
    Offer,
    Proof,
    array_digest,
    challenge_from,
    seed_commitment,
)
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.keys import AgreementKey, Identity, seal
from repro.secagg.masks import subtract_mask
from repro.secagg.shamir import Entropy


class BoundedHospital:
    """One hospital in one round: ``offer``, ``published`` if accused, ``prove``; each once.

    Joins the round when it is made, for its part on the committee too: its identity's counter
    lets no round be played twice, not after a restart either. entropy: n -> n secret uniform
    bytes. Raises Refused for a round that is not its next one.
    """

    def __init__(
        self,
        hospital: int,
        identity: Identity,
        round_: BoundedRound,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        identity.join(round_.session, round_.number)
        self.id, self.round = hospital, round_
        self._identity, self._entropy = identity, entropy
        self._seeds = [entropy(SEED_BYTES) for _ in round_.masks]
        self._elements: np.ndarray | None = None
        self._offer: Offer | None = None
        self._keys: dict[int, MemberKey] = {}
        self._member = hospital in round_.committee
        self._proved = False

    def member(self, kind: type[Member] = Member) -> Member:
        """This hospital's part on the committee; Refused if it has none, or a second time."""
        if not self._member:
            raise Refused("no part on the committee, or a second one")
        self._member = False
        return kind(self.id, self._identity, self.round, entropy=self._entropy)

    def offer(self, keys: Collection[MemberKey], vector: np.ndarray) -> tuple[Offer, np.ndarray]:
        """The vector less all its masks, (length,) field elements; and the seeds, sealed.

        vector: (length,) int64, whose Euclidean norm is at most the bound's; InputError for
        another one. keys: the members'; one without a key is given no seeds. Raises Refused for
        fewer keys than a quorum, or one that its owner has not signed.
        """
        if self._offer is not None:
            raise Refused("a second vector in one round")
        self._elements = self._checked(vector)
        self._keys = {key.member: key for key in keys if key.genuine(self.round)}
        if len(self._keys) < len(keys):
            raise Refused("keys that are not the committee's")
        if len(self._keys) < self.round.quorum:
            raise Refused(f"keys of {len(self._keys)} members; a quorum is {self.round.quorum}")
        ephemeral = AgreementKey(self._entropy(32))
        sealed = {
            member: seal(
                ephemeral.agree(key.public, self.round.context, "seeds", self.id, member),
                b"".join(self._seeds[mask] for mask in self.round.held_by(member)),
                self.round.context,
            )
            for member, key in sorted(self._keys.items())
        }
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
        the server has kept back has not, and neither has one that speaks of another offer, or
        of another key: these are not answered.
        """
        if self._offer is None:
            raise Refused("complaints about nothing")
        if not all(one.concerns(self.round, self._offer, self._keys) for one in complaints):
            raise Refused("a complaint of nobody that seeds were sealed for")
        return {complaint.mask: self._seeds[complaint.mask] for complaint in complaints}

    def prove(self, nonces: Mapping[int, bytes]) -> tuple[Proof, np.ndarray]:
        """The proof for the matrix that the members' nonces draw, less its masks."""
        if self._offer is None or self._elements is None or self._proved:
            raise Refused("a proof that is out of place")
        challenge = challenge_from(self.round, self._keys.values(), nonces)
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

    def _checked(self, vector: np.ndarray) -> np.ndarray:
        self.round.check(vector, 1)
        elements: np.ndarray = np.mod(vector, P).astype(FIELD.dtype)
        return elements

    def _provable(self, circuit: Circuit, projections: np.ndarray) -> bool:
        """An honest vector's are not with probability ``bound.failure``: no proof of it is made,
        since one that fails could show something of it."""
        return circuit.keeps(projections)

    def _masked(self, elements: np.ndarray, what: str) -> np.ndarray:
        result = elements.copy()
        for mask, seed in enumerate(self._seeds):
            subtract_mask(FIELD, result, mask_key(self.round, seed, what, self.id, mask))
        return result
