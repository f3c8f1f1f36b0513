"""A server that lies: every lie is refused, and no hospital's secret is given away."""

from __future__ import annotations

import dataclasses

import pytest

from repro.errors import InputError
from repro.secagg import Hospital, Identity, Refused, Server, messages
from repro.secagg.messages import Kind
from repro.secagg.rounds import SERVER
from tests.secagg.parties import Stage, make_round


def refused(stage: Stage, hospital: int, call, *arguments, aborts: bool = True) -> None:
    with pytest.raises(Refused):
        call(*arguments)
    assert (stage.hospitals[hospital].phase == "aborted") == aborts


def roster_of(stage, ids):
    return messages.Roster(tuple(bytes(stage.sent["advertise"][i]) for i in ids)).to_bytes()


@pytest.mark.parametrize("ids", [[1, 1, 2], [0, 1, 2], [1], []])
def test_roster_with_duplicates_oneself_or_too_few(ids):
    stage = Stage()
    stage.play("share")
    message = stage.as_server(Kind.ROSTER, roster_of(stage, ids))
    refused(stage, 0, stage.hospitals[0].share_keys, message)


def test_roster_with_a_stranger():
    """The server cannot invent a hospital: its keys are not in the directory."""
    stage, stranger = Stage(), Identity()
    stage.play("share")
    keys = messages.Advertise(bytes(range(32)), bytes(range(1, 33))).to_bytes()
    forged = messages.wrap(Kind.ADVERTISE, 9, stage.round, stranger, keys)
    payload = messages.Roster((bytes(stage.sent["advertise"][1]), bytes(forged))).to_bytes()
    refused(stage, 0, stage.hospitals[0].share_keys, stage.as_server(Kind.ROSTER, payload))


def test_roster_beyond_the_neighbours():
    """On a k-regular graph the server cannot add a hospital that is no neighbour."""
    stage = Stage(8, 3, neighbours=4)
    stage.play("share")
    far = next(i for i in range(1, 8) if i not in stage.round.graph[0])
    ids = sorted([*stage.round.graph[0], far])
    message = stage.as_server(Kind.ROSTER, roster_of(stage, ids))
    refused(stage, 0, stage.hospitals[0].share_keys, message)


def test_roster_with_replaced_or_repeated_keys():
    """Keys of the server's own are not signed by the hospital; a copied key is seen."""
    stage = Stage()
    stage.play("share")
    keys = messages.Advertise(bytes(range(32)), bytes(range(1, 33))).to_bytes()
    forged = messages.wrap(Kind.ADVERTISE, 1, stage.round, stage.party.server, keys)
    rest = [bytes(stage.sent["advertise"][i]) for i in (2, 3)]
    payload = messages.Roster((bytes(forged), *rest)).to_bytes()
    refused(stage, 0, stage.hospitals[0].share_keys, stage.as_server(Kind.ROSTER, payload))
    copied = stage.as_hospital(3, Kind.ADVERTISE, bytes(stage.sent["advertise"][2][56:-64]))
    payload = messages.Roster((rest[0], bytes(copied))).to_bytes()
    refused(stage, 1, stage.hospitals[1].share_keys, stage.as_server(Kind.ROSTER, payload))


def test_small_order_key_is_refused():
    """An all-zero X25519 key, signed by a colluding hospital, is no key."""
    stage = Stage()
    stage.play("share")
    weak = stage.as_hospital(3, Kind.ADVERTISE, bytes(32) + bytes(range(32)))
    zero = stage.as_hospital(2, Kind.ADVERTISE, bytes(range(32)) + bytes(32))
    payload = messages.Roster((bytes(zero), bytes(weak))).to_bytes()
    refused(stage, 0, stage.hospitals[0].share_keys, stage.as_server(Kind.ROSTER, payload))


def delivery_parts(stage, one):
    answers = stage.play("masked")
    payload = bytes(answers[one][56:-64])
    return messages.Delivery.from_bytes(payload, stage.round.bitmap_bytes)


@pytest.mark.parametrize(
    "change",
    ["swap", "drop", "double", "foreign", "without me", "tampered", "sharers"],
)
def test_delivery_that_is_not_what_was_shared(change):
    stage = Stage()
    good = delivery_parts(stage, 0)
    sealed, sharers = list(good.sealed), good.sharers
    if change == "swap":
        sealed[0], sealed[1] = (sealed[0][0], sealed[1][1]), (sealed[1][0], sealed[0][1])
    elif change == "drop":
        sealed.pop()
    elif change == "double":
        sealed[1] = sealed[0]
    elif change == "foreign":
        sealed[0] = (77, sealed[0][1])
    elif change == "without me":
        sharers = stage.round.to_bitmap({1, 2, 3})
    elif change == "tampered":
        owner, text = sealed[0]
        sealed[0] = (owner, bytes([text[0] ^ 1]) + text[1:])
    else:
        sharers = stage.round.to_bitmap({0, 1, 2})
    payload = messages.Delivery(sharers, tuple(sealed)).to_bytes()
    message = stage.as_server(Kind.DELIVERY, payload)
    refused(stage, 0, stage.hospitals[0].masked_input, message, stage.vectors[0])


def test_shares_of_another_holder_do_not_open():
    """A ciphertext is bound to its holder: sent to another, it is refused."""
    stage = Stage()
    answers = stage.play("masked")
    read = lambda one: messages.Delivery.from_bytes(bytes(answers[one][56:-64]), 1)  # noqa: E731
    mine, theirs = read(0), dict(read(1).sealed)
    sealed = tuple((o, theirs.get(o, text)) for o, text in mine.sealed)
    message = stage.as_server(Kind.DELIVERY, messages.Delivery(mine.sharers, sealed).to_bytes())
    refused(stage, 0, stage.hospitals[0].masked_input, message, stage.vectors[0])


def survivors_message(stage, one, survivors):
    """SURVIVORS to hospital ``one``, with the neighbours' true signatures where there are any."""
    near = sorted(stage.round.graph[one] & set(survivors))
    signed = stage.server._masked_with
    signatures = tuple((other, signed.get(other, bytes(64))) for other in near)
    payload = messages.Survivors(stage.round.to_bitmap(survivors), signatures).to_bytes()
    return stage.as_server(Kind.SURVIVORS, payload)


@pytest.mark.parametrize("survivors", [{1, 2, 3}, {0, 1}, set(), {0}])
def test_survivors_without_me_or_too_few(survivors):
    stage = Stage()
    stage.play("consistency")
    message = survivors_message(stage, 0, survivors)
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


def test_survivors_that_never_shared():
    """Hospital 4 vanished before sharing, so it cannot have survived."""
    stage = Stage(5, 3)
    answers = stage.server.advertise_keys(h.advertise_keys() for h in stage.hospitals.values())
    answers = stage.server.share_keys(stage.hospitals[i].share_keys(answers[i]) for i in range(4))
    for i in range(4):
        stage.hospitals[i].masked_input(answers[i], stage.vectors[i])
    message = survivors_message(stage, 0, {0, 1, 2, 4})
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


def test_a_hospital_told_of_other_sharers_is_not_unmasked():
    """The server tells hospital 3 that only its colluders 1 and 2 have shared, so that it is
    masked with nobody honest. An honest server refuses the input; a lying one that counts it
    in finds that hospital 0, which knows better, does not confirm."""
    stage = Stage()
    answers = stage.play("masked")
    full = messages.Delivery.from_bytes(bytes(answers[3][56:-64]), stage.round.bitmap_bytes)
    fewer = tuple((owner, sealed) for owner, sealed in full.sealed if owner != 0)
    lie = messages.Delivery(stage.round.to_bitmap({1, 2, 3}), fewer)
    answers[3] = stage.as_server(Kind.DELIVERY, lie.to_bytes())
    masked = {i: stage.hospitals[i].masked_input(m, stage.vectors[i]) for i, m in answers.items()}
    stage.server.masked_input(masked.values())
    assert stage.server.survivors == {0, 1, 2}
    assert "masked with others" in stage.server.refusals[0]
    stage.server._masked_with[3] = bytes(masked[3][56 : 56 + 64])
    message = survivors_message(stage, 0, {0, 1, 2, 3})
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


@pytest.mark.parametrize("change", ["missing", "double", "swapped", "foreign"])
def test_survivors_without_their_neighbours_signatures(change):
    stage = Stage()
    answers = stage.play("consistency")
    good = messages.Survivors.from_bytes(bytes(answers[0][56:-64]), stage.round.bitmap_bytes)
    (a, of_a), (b, of_b), third = good.signatures
    signatures = {
        "missing": ((a, of_a), (b, of_b)),
        "double": ((a, of_a), (a, of_a), third),
        "swapped": ((a, of_b), (b, of_a), third),
        "foreign": ((a, of_a), (b, of_b), (77, third[1])),
    }[change]
    payload = messages.Survivors(good.survivors, signatures).to_bytes()
    message = stage.as_server(Kind.SURVIVORS, payload)
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


def test_survivors_in_two_pieces_are_not_confirmed():
    """Two gaps of k/2 cut the ring: each piece would show its own sum, so nobody signs."""
    stage = Stage(12, 3, neighbours=4)
    ring = ring_order(stage.round)
    alive = {ring[i] for i in range(12) if i not in (4, 5, 10, 11)}
    assert "one piece" in stage.round.shortfall(alive, alive)
    stage.play("consistency")
    message = survivors_message(stage, ring[0], alive)
    refused(stage, ring[0], stage.hospitals[ring[0]].consistency_check, message)


def ring_order(round_):
    """The ring behind the graph: neighbours at distance one share the most neighbours."""
    ring = [round_.roster[0]]
    while len(ring) < len(round_.roster):
        near = round_.graph[ring[-1]] - set(ring)
        ring.append(max(near, key=lambda n: len(round_.graph[n] & round_.graph[ring[-1]])))
    return ring


def test_a_split_view_confirms_nothing():
    """Told of different survivors, hospitals sign different sets; no quorum, no unmasking."""
    stage = Stage(5, 3)
    answers = stage.play("consistency")
    other = {one: survivors_message(stage, one, {0, 1, 2}) for one in (0, 1)}
    signed = {}
    for one in range(5):
        message = other[one] if one < 2 else answers[one]
        reply = stage.hospitals[one].consistency_check(message)
        signed[one] = bytes(reply[56:-64])
    for some in ([0, 1, 2], [0, 1, 3], [2, 3, 4]):
        payload = messages.Confirmation(tuple((i, signed[i]) for i in some)).to_bytes()
        message = stage.as_server(Kind.CONFIRMATION, payload)
        for one in {0, 1} if 0 in some else set():
            if stage.hospitals[one].phase == "unmask":
                refused(stage, one, stage.hospitals[one].unmask, message)
    assert stage.hospitals[2].unmask(message)  # a true quorum of its own view


@pytest.mark.parametrize("change", ["few", "double", "stranger", "forged", "dead"])
def test_confirmation_without_a_true_quorum(change):
    stage = Stage()
    answers = stage.play("unmask")
    payload = bytes(answers[0][56:-64])
    good = list(messages.Confirmation.from_bytes(payload).signatures)
    assert len(good) == 3
    changed = {
        "few": good[:2],
        "double": [good[0], good[1], good[1]],
        "stranger": [*good[:2], (99, good[2][1])],
        "forged": [*good[:2], (good[2][0], bytes(64))],
        "dead": [*good[:2], (3, good[2][1])],
    }[change]
    message = stage.as_server(Kind.CONFIRMATION, messages.Confirmation(tuple(changed)).to_bytes())
    refused(stage, 0, stage.hospitals[0].unmask, message)


def test_second_unmask_request_is_refused():
    """And so is any request after the round is over, or out of order, without an abort."""
    stage = Stage()
    answers = stage.play("unmask")
    assert stage.hospitals[0].unmask(answers[0])
    refused(stage, 0, stage.hospitals[0].unmask, answers[0], aborts=False)
    refused(stage, 1, stage.hospitals[1].consistency_check, answers[1], aborts=False)
    refused(stage, 1, stage.hospitals[1].advertise_keys, aborts=False)
    assert stage.hospitals[1].unmask(answers[1])


def test_alive_and_dead_at_once_cannot_be_asked_for():
    """One share per neighbour leaves a hospital, of the kind its confirmed survivors imply."""
    stage = Stage()
    answers = stage.play("masked")
    masked = [stage.hospitals[i].masked_input(answers[i], stage.vectors[i]) for i in (0, 1, 2)]
    answers = stage.server.masked_input(masked)
    answers = stage.server.consistency_check(
        stage.hospitals[i].consistency_check(answers[i]) for i in (0, 1, 2)
    )
    held = dict(stage.hospitals[0]._held)
    reply = stage.hospitals[0].unmask(answers[0])
    shares = messages.Unmask.from_bytes(bytes(reply[56:-64])).shares
    assert [owner for owner, _ in shares] == [0, 1, 2, 3]
    for owner, share in shares:
        of_seed, of_key = held[owner]
        assert share == (of_key if owner == 3 else of_seed)


def test_messages_of_another_round_session_or_key_change_nothing():
    stage, other = Stage(), Stage()
    stage.play("share")
    foreign = other.play("share")
    refused(stage, 0, stage.hospitals[0].share_keys, foreign[0], aborts=False)
    _, later = make_round(4, 3, party=stage.party, number=2)
    stale = messages.wrap(Kind.ROSTER, SERVER, later, stage.party.server, b"\0\0\0\0")
    refused(stage, 0, stage.hospitals[0].share_keys, stale, aborts=False)
    unsigned = messages.wrap(Kind.ROSTER, SERVER, stage.round, Identity(), b"\0\0\0\0")
    refused(stage, 0, stage.hospitals[0].share_keys, unsigned, aborts=False)
    by_hospital = stage.as_hospital(1, Kind.ROSTER, b"\0\0\0\0")
    refused(stage, 0, stage.hospitals[0].share_keys, by_hospital, aborts=False)


def test_an_identity_joins_a_round_once():
    """Else a server could replay keys that it recovered from dead hospitals."""
    party, round_ = make_round(3, 2)
    Hospital(0, party.hospitals[0], round_)
    with pytest.raises(Refused):
        Hospital(0, party.hospitals[0], round_)
    earlier = dataclasses.replace(round_, number=0)
    with pytest.raises(Refused):
        Hospital(0, party.hospitals[0], earlier)
    with pytest.raises(InputError):
        Hospital(1, party.hospitals[0], round_)
    with pytest.raises(InputError):
        Server(party.hospitals[0], round_)
