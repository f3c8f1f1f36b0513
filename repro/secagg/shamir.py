"""Shamir's secret sharing (Comm. ACM 22(11), 1979) of 256-bit secrets.

Over GF(p) with p = 2²⁵⁶ + 297, the smallest prime that holds every 32-byte secret, so a secret
is shared whole: no chunks, no padding. A share is the 33-byte value of the polynomial at the
holder's place (1, 2, …) in the roster; the place is not sent, the holder is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from repro.secagg.errors import Refused

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33

Entropy = Callable[[int], bytes]


def split(
    secret: bytes, threshold: int, places: Iterable[int], entropy: Entropy
) -> dict[int, bytes]:
    """One share for each place; any ``threshold`` of them give the secret back, fewer nothing.

    secret: 32 bytes. places: distinct, from 1 on. entropy: n -> n uniform bytes.
    """
    coefficients = [_uniform(entropy) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    return {place: _evaluate(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from at least ``threshold`` shares (place -> share); exactly that many are used.

    Raises Refused for too few shares, a share that is no field element, or shares that do not
    belong to a 32-byte secret. Wrong shares may also give a wrong secret: callers check it
    against what its owner has published.
    """
    if len(shares) < threshold:
        raise Refused(f"{len(shares)} shares of a secret that takes {threshold}")
    chosen = {place: parse(shares[place]) for place in sorted(shares)[:threshold]}
    secret = (
        sum(share * _lagrange_at_zero(place, chosen) for place, share in chosen.items()) % PRIME
    )
    if secret >> (8 * SECRET_BYTES):
        raise Refused("shares that belong to no 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def parse(share: bytes) -> int:
    """The field element of a share; Refused if it is none."""
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise Refused("a share that is no element of the share field")
    return value


def _uniform(entropy: Entropy) -> int:
    while True:  # 257 random bits are below p about every other time
        value = int.from_bytes(entropy(SHARE_BYTES), "big") & ((1 << 257) - 1)
        if value < PRIME:
            return value


def _evaluate(coefficients: list[int], place: int) -> int:
    value = 0
    for coefficient in coefficients:  # Horner, highest power first, the secret last
        value = (value * place + coefficient) % PRIME
    return value


def _lagrange_at_zero(place: int, places: Iterable[int]) -> int:
    top = bottom = 1
    for other in places:
        if other != place:
            top = top * other % PRIME
            bottom = bottom * (other - place) % PRIME
    return top * pow(bottom, -1, PRIME) % PRIME
