"""Shares sealed for their holders so that a lie about them can be proved, by whoever is right.

Each share is sealed under a key of its own: X25519 between an ephemeral key, made for this share
only, and the holder's seal key. The owner signs ephemeral key, commitments and ciphertext.
A holder that cannot open what is signed, or finds another share in it than is committed to,
signs a complaint. The owner answers by the ephemeral key's secret half, with which everybody can
do what the holder has done: if the share comes out right the holder lied, if not (or without
an answer) the owner did. Only the complaining holder's own share is laid open by that, which it
could have given away itself (the argument of complaints in verifiable secret sharing, Feldman,
FOCS 1987, section 4).
"""

from __future__ import annotations

from dataclasses import replace

from repro.secagg.errors import Refused
from repro.secagg.keys import AgreementKey, Identity, commit, seal, unseal, verify
from repro.secagg.messages import SEALED_BYTES, SIGNATURE_BYTES, SealedShare
from repro.secagg.rounds import Round
from repro.secagg.shamir import SHARE_BYTES, parse

NO_COMPLAINT = bytes(SIGNATURE_BYTES)  # in its place: "the owner's signature is no good"
OWN = bytes(SEALED_BYTES)  # nothing is sealed for oneself

Shares = tuple[bytes, bytes]  # of the self-mask seed, of the mask key


def sealed_share(
    round_: Round,
    owner: int,
    identity: Identity,
    holder: int,
    shares: Shares,
    ephemeral: AgreementKey,
    seal_key: bytes,
) -> SealedShare:
    """The owner's entry for a holder. ephemeral: used for nothing else; seal_key: the holder's."""
    key, associated = _channel(round_, owner, holder, ephemeral, seal_key)
    sealed = seal(key, shares[0] + shares[1], associated)
    entry = _entry(round_, owner, holder, shares, ephemeral.public, sealed)
    signature = identity.sign("sealed share", _statement(round_, owner, entry))
    return replace(entry, signature=signature)


def own_share(round_: Round, owner: int, shares: Shares) -> SealedShare:
    """The owner's entry for itself: commitments only."""
    return _entry(round_, owner, owner, shares, bytes(32), OWN)


def signed_by(round_: Round, owner: int, entry: SealedShare) -> bool:
    public = round_.directory.hospitals[owner]
    return verify(public, "sealed share", _statement(round_, owner, entry), entry.signature)


def opened(
    round_: Round, owner: int, entry: SealedShare, key: AgreementKey, public: bytes
) -> Shares:
    """The shares in an entry; Refused if they do not come out or are not those committed to.

    (key, public): the holder's seal key and the entry's ephemeral public one; or the ephemeral
    secret one and the holder's public seal key, with the same result.
    """
    sealing_key, associated = _channel(round_, owner, entry.holder, key, public)
    plain = unseal(sealing_key, entry.sealed, associated)
    shares = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
    for share in shares:
        parse(share)
    right = (
        share_commitment(round_, "seed", owner, entry.holder, shares[0]),
        share_commitment(round_, "key", owner, entry.holder, shares[1]),
    )
    if right != (entry.self_mask_commitment, entry.mask_key_commitment):
        raise Refused(f"a share of hospital {owner} that is not the one it committed to")
    return shares


def sealed_rightly(
    round_: Round, owner: int, entry: SealedShare, secret: bytes, seal_key: bytes
) -> bool:
    """Whether the ephemeral key's ``secret`` half proves the entry good."""
    try:
        key = AgreementKey(secret)
        if key.public != entry.ephemeral:
            return False
        opened(round_, owner, entry, key, seal_key)
    except Refused:
        return False
    return True


def complaint(round_: Round, owner: int, holder: int, identity: Identity) -> bytes:
    """The holder's signature under: what the owner sealed for me is no good."""
    return identity.sign("complaint", _pair(round_, owner, holder))


def complained(round_: Round, owner: int, holder: int, signature: bytes) -> bool:
    public = round_.directory.hospitals[holder]
    return verify(public, "complaint", _pair(round_, owner, holder), signature)


def share_commitment(round_: Round, secret: str, owner: int, holder: int, share: bytes) -> bytes:
    return commit(round_.context, b"share", secret.encode(), owner, holder, share)


def _entry(
    round_: Round, owner: int, holder: int, shares: Shares, ephemeral: bytes, sealed: bytes
) -> SealedShare:
    return SealedShare(
        holder,
        ephemeral,
        share_commitment(round_, "seed", owner, holder, shares[0]),
        share_commitment(round_, "key", owner, holder, shares[1]),
        sealed,
        bytes(SIGNATURE_BYTES),
    )


def _channel(
    round_: Round, owner: int, holder: int, key: AgreementKey, public: bytes
) -> tuple[bytes, bytes]:
    """The key that seals this share, and the data the ciphertext is bound to."""
    sealing_key = key.agree(public, round_.context, "seal", owner, holder)
    return sealing_key, _pair(round_, owner, holder)


def _pair(round_: Round, owner: int, holder: int) -> bytes:
    return round_.context + owner.to_bytes(8, "little") + holder.to_bytes(8, "little")


def _statement(round_: Round, owner: int, entry: SealedShare) -> bytes:
    return round_.context + owner.to_bytes(8, "little") + entry.signed()
