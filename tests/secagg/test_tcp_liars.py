"""A hospital inside the round that lies over TCP, message by message: it loses its place, and the
others' sum is exact, long before a phase of 100 s is over."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import struct
import time

import numpy as np
import pytest

from repro.secagg import messages
from repro.secagg.messages import HEADER_BYTES, SIGNATURE_BYTES, Advertise, Kind, wrap
from repro.secagg.transport.wire import send_frame
from tests.secagg.loopback import DIMENSION, Loopback, advertised, vector_of

LIAR, OTHERS, ALL = 3, [0, 1, 2], [0, 1, 2, 3]


def signed(loopback, kind, payload, sender=LIAR):
    """An envelope under the liar's key, whoever it says it is from."""
    return wrap(kind, sender, loopback.round, loopback.party.hospitals[LIAR], payload)


def masked(values, count=DIMENSION):
    """Its masked input with these elements instead of its own."""

    def lie(loopback, hospital, message):
        honest = hospital.masked_input(message, vector_of(LIAR))
        signature = bytes(honest[HEADER_BYTES : HEADER_BYTES + SIGNATURE_BYTES])
        return [signed(loopback, Kind.MASKED, signature + np.full(count, values, "<u4").tobytes())]

    return lie


def sealed_otherwise(**changes):
    """Its SHARE with some fields of each sealed share drawn anew, and no signature to fit."""

    def lie(loopback, hospital, message):
        share = messages.Share.from_bytes(hospital.share_keys(message)[HEADER_BYTES:-64])
        entries = tuple(
            dataclasses.replace(
                one, **{name: os.urandom(len(getattr(one, name))) for name in changes}
            )
            for one in share.shares
        )
        changed = messages.Share(share.seed_commitment, entries).to_bytes()
        return [signed(loopback, Kind.SHARE, changed)]

    return lie


def of(kind, payload, sender=LIAR, times=1):
    return lambda loopback, *_: times * [signed(loopback, kind, payload, sender)]


LIES = {
    "an unreduced element": ("masked", masked(2**31 - 1), OTHERS),
    "a vector too short": ("masked", masked(1, 5), OTHERS),
    "a vector too long": ("masked", masked(1, DIMENSION + 1), OTHERS),
    "another's name on its keys": (
        "advertise",
        of(Kind.ADVERTISE, bytes(Advertise.SIZE), 0),
        OTHERS,
    ),
    "another's name on its shares": ("share", of(Kind.SHARE, bytes(200), 0), OTHERS),
    "an empty share": ("share", of(Kind.SHARE, bytes(36)), OTHERS),
    "a later phase's messages": (
        "share",
        of(Kind.MASKED, bytes(64 + 4 * DIMENSION), times=3),
        OTHERS,
    ),
    "garbage": ("share", lambda *_: [os.urandom(184) for _ in range(100)], OTHERS),
    "sealed garbage": ("share", sealed_otherwise(sealed=True), OTHERS),
    "other commitments": (
        "share",
        sealed_otherwise(self_mask_commitment=True, mask_key_commitment=True),
        OTHERS,
    ),
    "its input twice": ("masked", lambda _, h, m: 2 * [h.masked_input(m, vector_of(LIAR))], ALL),
    "wrong shares at the end": (
        "unmask",
        of(Kind.UNMASK, messages.Unmask(tuple((one, bytes(33)) for one in ALL)).to_bytes()),
        ALL,
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_hospital_is_the_only_one_lost(name):
    phase, lie, survivors = LIES[name]
    # Who never advertises is waited for until the opening ends.
    loopback = Loopback(4, 3, phase=100.0, opening=4.0 if phase == "advertise" else None)
    started = time.monotonic()
    loopback.join(*OTHERS)
    connection, hospital, message = loopback.reach(LIAR, phase)
    with connection, contextlib.suppress(OSError):  # cut off before all is sent
        for frame in lie(loopback, hospital, message):
            send_frame(connection, frame)
        connection.settimeout(60)
        connection.recv(1 << 16)  # the server's answer or its end; then this one leaves
    loopback.check(survivors)
    assert time.monotonic() - started < 60


ENDS = {
    "reset": lambda connection: connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    ),
    "half-closed": lambda connection: connection.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_connection_that_ends_in_the_middle_of_a_message(how):
    loopback = Loopback(4, 3, phase=100.0)
    started = time.monotonic()
    loopback.join(*OTHERS)
    connection, _, _ = loopback.reach(LIAR, "masked")
    connection.sendall(struct.pack("<Q", 1000) + b"RSAG")
    ENDS[how](connection)
    if how == "reset":
        connection.close()
    loopback.check(OTHERS)
    connection.close()
    assert time.monotonic() - started < 60


def test_who_advertises_early_and_then_says_nothing_is_not_waited_for_twice():
    """It costs the others one time-out of one phase."""
    loopback = Loopback(4, 3, phase=3.0, opening=100.0)
    hospital, connection = advertised(loopback, LIAR)
    with connection:
        loopback.join(*OTHERS)
        loopback.check(OTHERS)
    assert hospital.phase == "share"
