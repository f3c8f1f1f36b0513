"""Every one-byte corruption of every message is refused, or harms nobody but its sender."""

from __future__ import annotations

import numpy as np
import pytest

from repro.secagg import Refused, RoundFailed
from repro.secagg.messages import HEADER_BYTES, SIGNATURE_BYTES, Kind
from tests.secagg.parties import Stage

SERVER_KINDS = {
    "share": Kind.ROSTER,
    "verify": Kind.DELIVERY,
    "masked": Kind.SHARERS,
    "consistency": Kind.SURVIVORS,
    "unmask": Kind.CONFIRMATION,
}


def corruptions(message):
    for at in range(len(message)):
        for flip in (0x01, 0x80):
            corrupted = bytearray(message)
            corrupted[at] ^= flip
            yield corrupted


def test_in_transit_every_byte_of_every_message():
    """Any byte changed on the way, both directions, K = 3: refused by the receiver, which goes
    on unharmed to the exact sum when the true message comes."""
    stage = Stage(3, 2, dimension=2)
    tried = 0

    def attack_hospital(phase, one, message):
        nonlocal tried
        if phase != "advertise" and one == 0:
            for corrupted in corruptions(message):
                tried += 1
                with pytest.raises(Refused):
                    stage.respond(phase, one, corrupted)

    answers = dict.fromkeys(stage.round.roster, bytearray())
    server, sent = stage.server, 0
    while server.phase != "done":
        phase, replies = server.phase, []
        for one, message in answers.items():
            attack_hospital(phase, one, message)
            replies.append(stage.respond(phase, one, message))
        corrupted = list(corruptions(replies[0]))
        sent += len(corrupted)
        answers = server.receive([*corrupted, *replies])
    assert len(server.refusals) == sent
    assert sent > 1500
    assert tried > 1500
    np.testing.assert_array_equal(server.total, stage.expected(range(3)))


@pytest.mark.parametrize("phase", SERVER_KINDS)
def test_by_a_lying_server(phase):
    """The server itself corrupts one byte of what it sends hospital 0, and signs that.
    About 80 places in each message.

    Either hospital 0 refuses (and is lost) or what it does changes nothing; the sum of the
    survivors is exact in every case."""
    length = payload_length(phase)
    harmless = 0
    for at in range(0, length, 1 + length // 80):  # the transit test meets every byte
        stage = Stage(3, 2, dimension=2)

        def tamper(now, one, message, stage=stage, at=at):
            if now != phase or one != 0:
                return message
            payload = bytearray(message[HEADER_BYTES:-SIGNATURE_BYTES])
            payload[at] ^= 1 << (at % 8)
            return stage.as_server(SERVER_KINDS[phase], bytes(payload))

        total = stage.play(tamper=tamper)
        np.testing.assert_array_equal(total, stage.expected(stage.server.survivors))
        answered = 0 in stage.sent["unmask"]
        harmless += answered
        caught = stage.server.refusals or 0 in stage.server.excluded
        assert answered or stage.hospitals[0].phase == "aborted" or caught
    assert harmless == 0


def payload_length(phase):
    lengths = {}

    def note(now, one, message):
        lengths.setdefault((now, one), len(message) - HEADER_BYTES - SIGNATURE_BYTES)
        return message

    Stage(3, 2, dimension=2).play(tamper=note)
    return lengths[phase, 0]


@pytest.mark.parametrize("phase", ["share", "verify", "consistency", "unmask"])
def test_by_a_lying_hospital(phase):
    """Hospital 0 corrupts one byte of what it sends, and signs that: the sum of the survivors
    is exact, or the round fails without one. (What it may do unseen is choose its own input:
    a wrong key of its own or a wrong masked input is a wrong vector of its own.)"""
    kind = Kind[phase.upper()]
    reference = Stage(3, 2, dimension=2)
    reference.play()
    length = len(reference.sent[phase][0]) - HEADER_BYTES - SIGNATURE_BYTES
    exact = tried = 0
    for at in range(0, length, 1 + length // 80):
        tried += 1
        stage = Stage(3, 2, dimension=2)

        def forge(now, one, reply, stage=stage, at=at):
            if now != phase or one != 0:
                return reply
            payload = bytearray(reply[HEADER_BYTES:-SIGNATURE_BYTES])
            payload[at] ^= 1 << (at % 8)
            return stage.as_hospital(0, kind, bytes(payload))

        try:
            total = stage.play(forge=forge)
        except RoundFailed:
            continue
        exact += 1
        np.testing.assert_array_equal(total, stage.expected(stage.server.survivors))
    assert exact > 0.6 * tried
