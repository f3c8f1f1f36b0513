"""A session's 32 bytes, which fix who neighbours whom in every round: chosen by all together.

Commit and reveal (Blum 1981): each hospital draws a nonce and shows its hash; when all hashes
are there, the nonces. The session is uniform if one honest hospital saw all hashes before it
showed its nonce. Whoever then withholds a nonce can force a new attempt, which everybody sees,
so attempts are to be counted, not repeated without end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from repro.secagg.errors import Refused

NONCE_BYTES = 32


def session_commitment(hospital: int, nonce: bytes) -> bytes:
    """What a hospital shows first. nonce: 32 uniform bytes, used once."""
    named = hospital.to_bytes(8, "little") + nonce
    return hashlib.sha256(b"repro secagg session commitment v2" + named).digest()


def joint_session(commitments: Mapping[int, bytes], nonces: Mapping[int, bytes]) -> bytes:
    """The session from all commitments and the nonces behind them; the same in any order.

    Refused if a nonce is missing, of the wrong length or not the one committed to.
    """
    if set(commitments) != set(nonces):
        odd = sorted(set(commitments) ^ set(nonces))
        raise Refused(f"commitments and nonces of different hospitals: {odd}")
    digest = hashlib.sha256(b"repro secagg session v2")
    for one in sorted(nonces):
        nonce = nonces[one]
        if len(nonce) != NONCE_BYTES or session_commitment(one, nonce) != commitments[one]:
            raise Refused(f"a nonce that hospital {one} did not commit to")
        digest.update(one.to_bytes(8, "little") + nonce)
    return digest.digest()
