"""Bytes from strangers: round trips, every length checked, fuzzed, nothing allocated on a lie."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.secagg import Refused, messages
from repro.secagg.messages import Kind
from tests.secagg.parties import FIELD, Stage, make_round

PARTY, ROUND = make_round(5, 3)
BITMAP = ROUND.bitmap_bytes

PARSERS = {
    "Advertise": messages.Advertise.from_bytes,
    "Roster": messages.Roster.from_bytes,
    "SealedShare": messages.SealedShare.from_bytes,
    "Share": messages.Share.from_bytes,
    "Delivery": messages.Delivery.from_bytes,
    "UpheldComplaints": messages.UpheldComplaints.from_bytes,
    "Accused": messages.Accused.from_bytes,
    "Opened": messages.Opened.from_bytes,
    "Sharers": lambda raw: messages.Sharers.from_bytes(raw, BITMAP),
    "masked": lambda raw: messages.Masked.from_bytes(raw, FIELD, 6),
    "Survivors": lambda raw: messages.Survivors.from_bytes(raw, BITMAP),
    "Consistency": messages.Consistency.from_bytes,
    "Confirmation": messages.Confirmation.from_bytes,
    "Unmask": messages.Unmask.from_bytes,
    "bitmap": ROUND.from_bitmap,
    "envelope": lambda raw: messages.unwrap(raw, Kind.SHARE, ROUND),
    "advertised": lambda raw: messages.unwrap_first(raw, Kind.ADVERTISE, ROUND),
    "sender": messages.sender_of,
    "phase": messages.phase_of,
}
ids = st.integers(0, 2**64 - 1)


def raw(size):
    return st.binary(min_size=size, max_size=size)


def listed(entry):
    return st.lists(entry, max_size=4)


def list_of(kind, entry):
    return st.tuples(listed(entry)), lambda entries: kind(tuple(entries))


share_fields = st.tuples(
    ids, raw(32), raw(32), raw(32), raw(messages.SEALED_BYTES), raw(messages.SIGNATURE_BYTES)
)
# Only the fields are drawn; messages are built outside the strategies, where shapes are checked.
MESSAGES = {
    "Advertise": (st.tuples(raw(32), raw(32), raw(56)), messages.Advertise),
    "Roster": list_of(messages.Roster, raw(messages.ADVERTISE_BYTES)),
    "SealedShare": (share_fields, messages.SealedShare),
    "Share": (
        st.tuples(raw(32), listed(share_fields)),
        lambda seed, many: messages.Share(seed, tuple(messages.SealedShare(*f) for f in many)),
    ),
    "Delivery": list_of(messages.Delivery, st.tuples(ids, raw(messages.SealedShare.SIZE))),
    "UpheldComplaints": list_of(messages.UpheldComplaints, st.tuples(ids, raw(64))),
    "Accused": list_of(messages.Accused, st.tuples(ids, raw(64))),
    "Opened": list_of(messages.Opened, st.tuples(ids, raw(32))),
    "Sharers": (st.tuples(raw(BITMAP)), messages.Sharers),
    "Survivors": (
        st.tuples(raw(BITMAP), listed(st.tuples(ids, raw(64)))),
        lambda bitmap, entries: messages.Survivors(bitmap, tuple(entries)),
    ),
    "Consistency": (st.tuples(raw(64)), messages.Consistency),
    "Confirmation": list_of(messages.Confirmation, st.tuples(ids, raw(64))),
    "Unmask": list_of(messages.Unmask, st.tuples(ids, raw(33))),
}


def drawn(data, name):
    fields, build = MESSAGES[name]
    return build(*data.draw(fields))


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
@settings(max_examples=40)
def test_round_trip_and_canonical_length(name, data):
    """to_bytes inverts from_bytes; one byte more or less is refused."""
    message = drawn(data, name)
    encoded = message.to_bytes()
    assert PARSERS[name](encoded) == message
    for wrong in (encoded + b"\0", encoded[:-1]):
        with pytest.raises(Refused):
            PARSERS[name](wrong)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=200)
def test_fuzzed_bytes_raise_nothing_but_refused(name, data):
    """Random bytes, and well-formed ones with bytes replaced, inserted and cut."""
    if name in MESSAGES and data.draw(st.booleans()):
        good = bytearray(drawn(data, name).to_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, max(0, len(good) - 1)))
            good[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        fuzzed = bytes(good)
    else:
        fuzzed = data.draw(st.binary(max_size=400))
    with contextlib.suppress(Refused):
        PARSERS[name](fuzzed)


@given(header=st.binary(max_size=60), tail=st.binary(max_size=80))
@settings(max_examples=300)
def test_fuzzed_envelopes_are_refused(header, tail):
    """No envelope passes without its sender's signature, whatever its header says."""
    good = messages.wrap(Kind.SHARE, 0, ROUND, PARTY.hospitals[0], b"payload")
    for fuzzed in (header + bytes(good[len(header) :]), header + tail, bytes(good) + tail):
        if fuzzed != bytes(good):
            with pytest.raises(Refused):
                messages.unwrap(fuzzed, Kind.SHARE, ROUND)


@pytest.mark.parametrize(
    "name", ["Roster", "Share", "Delivery", "UpheldComplaints", "Confirmation", "Unmask"]
)
def test_a_lying_count_allocates_nothing(name):
    """A count of 2³² − 1 entries in a short message is refused before anything is allocated."""
    prefix = {"Share": bytes(32)}.get(name, b"")
    lie = prefix + b"\xff" * 4 + bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            PARSERS[name](lie)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_bitmaps_name_only_the_roster():
    assert ROUND.from_bitmap(ROUND.to_bitmap({0, 4})) == {0, 4}
    for bad in (b"", b"\x20", b"\0\0"):
        with pytest.raises(Refused):
            ROUND.from_bitmap(bad)


def test_no_honest_message_is_longer_than_the_receiver_allows():
    for hospitals, dimension in ((4, 6), (12, 1), (3, 500)):
        stage = Stage(hospitals, hospitals // 2 + 1, dimension=dimension)
        received = []
        stage.play(
            tamper=lambda phase, one, message, kept=received: kept.append(message) or message
        )
        sent = [m for phase in stage.sent.values() for m in phase.values()]
        assert len(sent) == 6 * hospitals
        longest = max(map(len, [*sent, *received]))
        assert longest <= messages.max_message_bytes(stage.round)


def test_bytes_per_hospital_are_those_of_float32():
    """At the paper's size a masked input is 1.0000 × float32; the whole round is below 1.001."""
    stage = Stage(10, 4, neighbours=4, dimension=20_000)
    stage.play()
    each = sum(len(messages_[0]) for messages_ in stage.sent.values())
    overhead = each - 4 * 20_000
    assert (overhead + 4 * 4_802_122) / (4 * 4_802_120) < 1.001
