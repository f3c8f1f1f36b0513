"""Round numbers go up by one: no repeats, no jumps; and the session is nobody's choice."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import (
    Hospital,
    Identity,
    MemoryCounter,
    Refused,
    joint_session,
    messages,
    session_commitment,
)
from repro.secagg.messages import Kind
from tests.secagg.parties import Stage, make_round

SESSION = bytes(32)


@given(numbers=st.lists(st.integers(0, 12), max_size=30), missed=st.integers(0, 3))
def test_only_the_next_number_is_joined(numbers, missed):
    """Against a plain reading of the rule; a refused number leaves the counter as it was."""
    counter, last = MemoryCounter(missed), 0
    for number in numbers:
        if number in range(last + 1, last + 2 + missed):
            counter.advance(SESSION, number)
            last = number
        else:
            with pytest.raises(Refused):
                counter.advance(SESSION, number)


@pytest.mark.parametrize("number", [0, 2, 3, 100, 2**63, 2**64 - 1])
def test_a_jump_is_refused_and_locks_nobody_out(number):
    """The server that asks for round 2^64 - 1 does not use up the others."""
    identity = Identity()
    with pytest.raises(Refused, match="the next one is round 1"):
        identity.join(SESSION, number)
    identity.join(SESSION, 1)
    with pytest.raises(Refused):
        identity.join(SESSION, 1)
    identity.join(SESSION, 2)
    identity.join(bytes(31) + b"\1", 1)  # sessions are counted apart


def test_a_server_cannot_look_for_a_number_whose_graph_it_likes():
    """It would have to hold every round up to it; a hospital asked for it does not even make
    keys. (On 100 hospitals with 10 colluders some number below 20,000 or so surrounds a victim.)
    """
    party, round_ = make_round(9, 3, 4)
    for number in (2, 5, 17_423):
        chosen = dataclasses.replace(round_, number=number)
        with pytest.raises(Refused, match="the next one is round 1"):
            Hospital(7, party.hospitals[7], chosen)
    Hospital(7, party.hospitals[7], round_)


def test_the_counter_is_asked_before_any_key_is_drawn():
    """Were the process killed right after it, nothing of the round would have been sent."""
    asked = []

    class Counter:
        def advance(self, session, number):
            asked.append((session, number))
            raise Refused("not now")

    party, round_ = make_round(3, 2)
    identity = Identity(lambda _: party.hospitals[0].secret, counter=Counter())
    drawn = []
    with pytest.raises(Refused):
        Hospital(0, identity, round_, entropy=lambda n: drawn.append(n) or bytes(n))
    assert asked == [(round_.session, 1)]
    assert drawn == []


def test_with_its_counter_kept_a_restarted_hospital_does_not_repeat_a_round():
    counter = MemoryCounter()  # stands for one on disk
    party, round_ = make_round(3, 2)
    secret = party.hospitals[0].secret
    Hospital(0, Identity(lambda _: secret, counter=counter), round_)
    with pytest.raises(Refused):
        Hospital(0, Identity(lambda _: secret, counter=counter), round_)


def test_even_a_forgetful_hospital_masks_nothing_on_replayed_shares():
    """A counter that forgets: the hospital makes fresh keys, so shares that neighbours sealed for
    its old ones do not open; it complains and goes on with none of them."""
    stage = Stage()
    stage.play("masked")
    again = Hospital(0, Identity(lambda _: stage.party.hospitals[0].secret), stage.round)
    again.advertise_keys()
    old = messages.Roster(tuple(bytes(stage.sent["advertise"][one]) for one in (1, 2, 3)))
    again.share_keys(stage.as_server(Kind.ROSTER, old.to_bytes()))
    entries = stage.server._entries
    replayed = messages.Delivery(tuple((o, entries[o, 0].to_bytes()) for o in (1, 2, 3)))
    reply = again.verify_shares(stage.as_server(Kind.DELIVERY, replayed.to_bytes()))
    accused = messages.UpheldComplaints.from_bytes(bytes(reply[56:-64])).complaints
    assert [owner for owner, _ in accused] == [1, 2, 3]
    for sharers in ({0, 1, 2, 3}, {0}):
        message = stage.as_server(Kind.SHARERS, stage.round.to_bitmap(sharers))
        with pytest.raises(Refused):
            again.masked_input(message, stage.vectors[0])
    # Nor do its neighbours answer the complaints: their round has gone on.
    stage.hospitals[1].masked_input(
        stage.as_server(Kind.SHARERS, stage.round.to_bitmap(range(4))), stage.vectors[1]
    )
    complaint = messages.Accused(((0, accused[0][1]),)).to_bytes()
    with pytest.raises(Refused):
        stage.hospitals[1].open_shares(stage.as_server(Kind.ACCUSED, complaint))


def test_missed_rounds_are_a_setting():
    with pytest.raises(InputError):
        MemoryCounter(-1)


def nonces_of(*ids):
    nonces = {one: bytes([one]) * 32 for one in ids}
    return {one: session_commitment(one, nonce) for one, nonce in nonces.items()}, nonces


def test_a_session_is_made_by_all():
    """Any nonce changes it; the order in which they came does not."""
    commitments, nonces = nonces_of(1, 2, 3)
    session = joint_session(commitments, nonces)
    assert len(session) == 32
    assert joint_session(commitments, dict(reversed(nonces.items()))) == session
    for one in nonces:
        others = {**nonces, one: bytes([one + 10]) * 32}
        committed = {i: session_commitment(i, nonce) for i, nonce in others.items()}
        assert joint_session(committed, others) != session


@pytest.mark.parametrize("lie", ["changed", "missing", "short", "extra", "another's"])
def test_a_nonce_cannot_be_chosen_after_the_others_are_seen(lie):
    commitments, nonces = nonces_of(1, 2, 3)
    if lie == "changed":
        nonces[3] = bytes(32)
    elif lie == "missing":
        del nonces[3]
    elif lie == "short":
        nonces[3] = b""
        commitments[3] = session_commitment(3, b"")
    elif lie == "extra":
        nonces[4] = bytes(32)
    else:
        commitments[3], nonces[3] = commitments[2], nonces[2]
    with pytest.raises(Refused):
        joint_session(commitments, nonces)
