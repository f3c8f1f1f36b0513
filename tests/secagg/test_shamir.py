"""Shamir's scheme: any t shares give the secret, any t − 1 say nothing about it."""

from __future__ import annotations

import itertools
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.secagg import Refused, shamir

SECRETS = st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), b"\xff" * 32])


@given(secret=SECRETS, data=st.data())
def test_any_threshold_shares_give_the_secret(secret, data):
    places = data.draw(st.lists(st.integers(1, 500), min_size=1, max_size=12, unique=True))
    threshold = data.draw(st.integers(1, len(places)))
    shares = shamir.split(secret, threshold, places, secrets.token_bytes)
    chosen = data.draw(st.permutations(places))[:threshold]
    assert shamir.combine({p: shares[p] for p in chosen}, threshold) == secret
    assert shamir.combine(shares, threshold) == secret


def test_every_subset_of_five():
    """The paper's 5 shares, threshold 4: each subset of 4 or 5 works, each smaller is refused,
    and is no polynomial of a lower degree (chance 2⁻²⁵⁶)."""
    secret = secrets.token_bytes(32)
    shares = shamir.split(secret, 4, range(1, 6), secrets.token_bytes)
    for size in range(6):
        for chosen in itertools.combinations(shares, size):
            subset = {place: shares[place] for place in chosen}
            if size >= 4:
                assert shamir.combine(subset, 4) == secret
            else:
                with pytest.raises(Refused):
                    shamir.combine(subset, 4)
                assert size == 0 or shamir.combine(subset, size) != secret


@given(secret=SECRETS, other=SECRETS)
def test_fewer_shares_fit_every_secret(secret, other):
    """Perfect secrecy: t − 1 shares and *any* secret lie on exactly one polynomial."""
    shares = shamir.split(secret, 3, [1, 2, 3], secrets.token_bytes)
    points = {0: int.from_bytes(other, "big")}
    points |= {place: shamir.parse(shares[place]) for place in (1, 2)}
    third = lagrange(points, 3)
    forged = {1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}
    assert shamir.combine(forged, 3) == other


def lagrange(points, at):
    """Interpolation by the definition, in the field of the shares."""
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * (at - other) * pow(x - other, -1, shamir.PRIME)
        total += term
    return total % shamir.PRIME


def test_the_modulus_is_a_prime_above_every_secret():
    """Miller–Rabin with 64 fixed bases (error below 4⁻⁶⁴), and none smaller above 2²⁵⁶."""
    assert is_prime(shamir.PRIME)
    assert not any(is_prime(n) for n in range(2**256 + 1, shamir.PRIME, 2))


def is_prime(n):
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 66):
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def test_shares_that_are_no_field_elements_are_refused():
    good = shamir.split(bytes(32), 2, [1, 2], secrets.token_bytes)
    for bad in (b"", bytes(32), bytes(34), b"\xff" * 33, shamir.PRIME.to_bytes(33, "big")):
        with pytest.raises(Refused):
            shamir.combine({1: good[1], 2: bad}, 2)


def test_a_value_above_every_secret_is_refused():
    top = (shamir.PRIME - 1).to_bytes(33, "big")
    with pytest.raises(Refused):
        shamir.combine({1: top}, 1)


def test_coefficients_are_rejection_sampled():
    """257-bit draws at or above p are drawn again, not reduced (which would be biased)."""
    draws = iter([b"\xff" * 33, shamir.PRIME.to_bytes(33, "big"), (7).to_bytes(33, "big")])
    shares = shamir.split(bytes(32), 2, [1, 2], lambda size: next(draws))
    assert [shamir.parse(shares[place]) for place in (1, 2)] == [7, 14]
