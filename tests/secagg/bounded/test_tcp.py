"""Bounded rounds over real sockets: killed processes, cheats, mutated messages, frame limits."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import Identity, Refused, envelope
from repro.secagg.bounded import BoundedHospital, HospitalSide, ServerSide, wire
from repro.secagg.bounded.setting import PHASES
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.loopback import run_on_loopback
from repro.secagg.transport.tcp_hospital import take_part
from repro.secagg.transport.tcp_server import TcpServer
from tests.secagg.bounded.parties import make, outsider, vector
from tests.secagg.bounded.test_round import Huge, OtherSeeds, TooLong


def check(result, round_, accepted):
    assert result.survivors == tuple(accepted)
    np.testing.assert_array_equal(result.total, sum(vector(one) for one in accepted))


@pytest.mark.parametrize(
    ("phase", "moment"),
    [("masked", "after"), ("proof", "before"), ("masks", "after"), ("sums", "before")],
)
def test_a_member_s_process_is_killed(phase, moment):
    """SIGKILL: the round goes on with the other three members, no time-out is waited for."""
    party, round_ = make(5)
    victim = round_.committee[0]
    result = run_on_loopback(party, round_, vector, dies={victim: (phase, moment)}, timeout=300.0)
    proved = PHASES.index(phase) > PHASES.index("proof")
    check(result, round_, [one for one in round_.roster if proved or one != victim])


class Network:
    """A server in a thread, hospitals in threads. kinds: the classes that play some of them."""

    def __init__(self, party, round_, kinds=None, phase=30.0):
        self.party, self.round, self.kinds = party, round_, kinds or {}
        self.server = TcpServer(limits=Limits(phase=phase))
        self.sides, self.observed = {}, []

    def side(self, one):
        kind = self.kinds.get(one, BoundedHospital)
        return HospitalSide(one, self.party.hospitals[one], self.round, kind=kind)

    def take_part(self, one):
        with contextlib.suppress(Refused, OSError):
            self.sides[one] = self.side(one)
            take_part(self.server.address, self.sides[one], lambda: vector(one), timeout=60.0)

    def play(self):
        threads = [
            threading.Thread(target=self.take_part, args=(one,)) for one in self.round.roster
        ]
        for thread in threads:
            thread.start()
        try:
            return self.server.run_round(
                self.party.server, self.round, observe=lambda *seen: self.observed.append(seen)
            )
        finally:
            self.server.close()
            for thread in threads:
                thread.join(60)


@pytest.mark.parametrize("cheat", [TooLong, Huge, OtherSeeds])
@pytest.mark.parametrize("on_the_committee", [False, True])
def test_a_cheat_is_named_and_the_others_go_on(cheat, on_the_committee):
    party, round_ = make()
    liar = round_.committee[0] if on_the_committee else outsider(round_)
    network = Network(party, round_, {liar: cheat})
    result = network.play()
    check(result, round_, [one for one in round_.roster if one != liar])
    assert set(result.excluded) == {liar}


@pytest.mark.parametrize(("hospitals", "faults"), [(4, 1), (5, 1), (8, 2)])
def test_frame_limits_are_what_an_honest_party_sends_at_most(hospitals, faults):
    network = Network(*make(hospitals, faults))
    result = network.play()
    check(result, network.round, network.round.roster)
    assert {side.phase for side in network.sides.values()} == {"done"}
    longest = dict.fromkeys(PHASES, 0)
    for way, phase, _, message in network.observed:
        if way == "received":
            longest[phase] = max(longest[phase], len(message))
        assert len(message) <= wire.longest(network.round)
    for phase, length in longest.items():
        if phase == "seeds":
            assert not length
            continue
        room = wire.frame_limit(phase, network.round)
        assert length <= room
        # Complaints are none here; who is on the committee has no longer message than it may.
        assert length == room or phase in ("complaints", "sums")


def test_the_traffic_is_what_went_through():
    network = Network(*make(5))
    traffic = network.play().traffic
    for way, counted in (("received", traffic.up_bytes), ("sent", traffic.down_bytes)):
        seen = sum(len(message) for one, _, _, message in network.observed if one == way)
        assert seen == sum(counted.values())


@pytest.fixture(scope="module")
def conversation():
    """Every message of one round: phase, from whom, bytes; the round; its parties."""
    party, round_ = make(5)
    sides = {one: HospitalSide(one, party.hospitals[one], round_) for one in round_.roster}
    server, said = ServerSide(party.server, round_), []
    inbox = dict.fromkeys(sides)
    while server.phase != "done":
        phase, replies = server.phase, []
        for one, message in inbox.items():
            reply = (
                sides[one].advertise_keys()
                if message is None
                else sides[one].answer(message, lambda one=one: vector(one))
            )
            said += [(phase, "server", message)] if message is not None else []
            said.append((phase, "hospital", reply))
            replies.append(reply)
        inbox = server.receive(replies)
    return party, round_, said


@given(data=st.data())
def test_a_changed_message_is_refused_and_nothing_else(conversation, data):
    """Any byte of any message, by whoever has no key: Refused, and the receiver is as it was."""
    party, round_, said = conversation
    phase, sender, message = data.draw(st.sampled_from(said))
    at = data.draw(st.integers(0, len(message) - 1))
    changed = bytearray(message)
    changed[at] ^= data.draw(st.integers(1, 255))
    changed = changed[: data.draw(st.integers(0, len(changed)))] or changed
    if sender == "hospital":
        server = ServerSide(party.server, round_)
        server.phase = phase
        server._take(changed)
        assert len(server.refusals) == 1
        assert server.awaited == set(round_.roster)
        assert not server._said
        return
    one = round_.committee[0]
    side = HospitalSide.__new__(HospitalSide)
    side.round, side.phase, side.id = round_, phase, one
    with pytest.raises(Refused):
        side.answer(changed, lambda: vector(one))
    assert side.phase == phase


@given(payload=st.binary(max_size=300), phase=st.sampled_from(PHASES))
def test_a_signed_message_of_any_content_is_refused_or_read(conversation, payload, phase):
    """What a hospital or the server signs may still be garbage: no other exception comes of it."""
    party, round_, _ = conversation
    one = round_.committee[0]
    server = ServerSide(party.server, round_)
    server.phase = phase
    identity = party.hospitals[one]
    server._take(envelope.wrap(wire.ANSWER[phase], one, round_, identity, payload))
    assert one in server.awaited or one in server._said
    if phase == "advertise":
        return
    side = HospitalSide.__new__(HospitalSide)
    side.round, side.phase, side.id, side._identity = round_, phase, one, identity
    side._hospital = BoundedHospital.__new__(BoundedHospital)
    side._hospital.round, side._hospital.id, side._hospital._offer = round_, one, None
    side._member, side._keys = None, []
    kind = wire.EXCHANGES[phase][0]
    message = envelope.wrap(kind, 2**64 - 1, round_, party.server, payload)
    with pytest.raises((Refused, InputError)):
        side.answer(message, lambda: vector(one)[1:])
    assert side.phase == "aborted" or phase == "masked"


def test_a_hospital_of_another_model_is_told_in_what_it_differs():
    party, round_ = make(5)
    _, other = make(5, directory=party.directory, session=party.session, model=b"m" * 32)
    server = ServerSide(party.server, round_)
    server.receive([
        HospitalSide(one, party.hospitals[one], other if one == 4 else round_).advertise_keys()
        for one in round_.roster
    ])  # fmt: skip
    assert server.refusals == ["advertise: hospital 4 holds another model"]


def test_whose_identity_is_another_s_is_refused():
    party, round_ = make(5)
    with pytest.raises(InputError, match="hospital"):
        HospitalSide(0, party.hospitals[1], round_)
    with pytest.raises(InputError, match="identity"):
        ServerSide(Identity(), round_)


def test_a_vector_is_sent_once():
    party, round_ = make(5)
    sides = {one: HospitalSide(one, party.hospitals[one], round_) for one in round_.roster}
    server = ServerSide(party.server, round_)
    asked = server.receive([side.advertise_keys() for side in sides.values()])
    sides[0].answer(asked[0], lambda: vector(0))
    with pytest.raises(Refused, match="masked in phase complaints"):
        sides[0].answer(asked[0], lambda: vector(0))
    with pytest.raises(Refused, match="second advertisement"):
        sides[0].advertise_keys()


def test_a_message_that_comes_twice_counts_once():
    party, round_ = make(5)
    sides = {one: HospitalSide(one, party.hospitals[one], round_) for one in round_.roster}
    server = ServerSide(party.server, round_)
    first = [side.advertise_keys() for side in sides.values()]
    asked = server.receive([*first, first[0]])
    assert server.refusals == ["advertise: a message that is late or came twice, from 0"]
    offers = [sides[one].answer(message, lambda one=one: vector(one))
              for one, message in asked.items()]  # fmt: skip
    server.receive([*offers, offers[1]])
    assert not server.excluded  # whoever replays a message costs nobody a place


@pytest.mark.parametrize("whose", ["a hospital's", "the server's"])
def test_nobody_speaks_for_the_other_side(whose):
    """A hospital that signs what only the server sends, and the server a hospital's message."""
    party, round_ = make(5)
    liar = round_.committee[0]
    if whose == "a hospital's":
        kind, sender, identity = wire.EXCHANGES["masked"][0], liar, party.hospitals[liar]
    else:
        kind, sender, identity = wire.ANSWER["masked"], 2**64 - 1, party.server
    message = envelope.wrap(kind, sender, round_, identity, b"")
    with pytest.raises(Refused, match="stranger"):
        envelope.unwrap(message, kind, round_)
