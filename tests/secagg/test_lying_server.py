"""A server that lies: every lie is refused, and no hospital's secret is given away."""

from __future__ import annotations

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Hospital, Identity, Refused, Server, messages, sealing
from repro.secagg.hospital import sharer_statement
from repro.secagg.messages import Kind
from repro.secagg.rounds import SERVER
from tests.secagg.parties import Stage, make_round


def refused(stage: Stage, hospital: int, call, *arguments, aborts: bool = True) -> None:
    with pytest.raises(Refused):
        call(*arguments)
    assert (stage.hospitals[hospital].phase == "aborted") == aborts


def advertised(stage, one, mask_key, seal_key):
    keys = messages.Advertise.of(stage.round, mask_key, seal_key)
    return stage.as_hospital(one, Kind.ADVERTISE, keys.to_bytes())


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
    keys = messages.Advertise.of(stage.round, bytes(range(32)), bytes(range(1, 33))).to_bytes()
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
    keys = messages.Advertise.of(stage.round, bytes(range(32)), bytes(range(1, 33))).to_bytes()
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
    weak = advertised(stage, 3, bytes(32), bytes(range(32)))
    zero = advertised(stage, 2, bytes(range(32)), bytes(32))
    payload = messages.Roster((bytes(zero), bytes(weak))).to_bytes()
    refused(stage, 0, stage.hospitals[0].share_keys, stage.as_server(Kind.ROSTER, payload))


def delivery_parts(stage, one):
    """What the server delivers to hospital ``one``: [(owner, entry)]."""
    answers = stage.play("verify")
    return list(messages.Delivery.from_bytes(bytes(answers[one][56:-64])).sealed)


def verdict_of(stage, one, sealed):
    """What hospital ``one`` says of these entries: {owner: complaint}."""
    payload = messages.Delivery(tuple(sealed)).to_bytes()
    reply = stage.hospitals[one].verify_shares(stage.as_server(Kind.DELIVERY, payload))
    return dict(messages.UpheldComplaints.from_bytes(bytes(reply[56:-64])).complaints)


@pytest.mark.parametrize("change", ["double", "foreign", "for another", "mine", "few"])
def test_delivery_that_is_not_what_was_sealed_for_it(change):
    """Above all: an entry that its owner signed for somebody else is no ground for a complaint,
    with which the server would have that other share opened."""
    stage = Stage()
    sealed = delivery_parts(stage, 0)
    theirs = stage.server._entries
    sealed = {
        "double": [sealed[0], sealed[0], sealed[2]],
        "foreign": [*sealed[:2], (77, sealed[2][1])],
        "for another": [(1, theirs[1, 2].to_bytes()), *sealed[1:]],
        "mine": [(0, theirs[0, 0].to_bytes()), *sealed],
        "few": sealed[:1],
    }[change]
    payload = messages.Delivery(tuple(sealed)).to_bytes()
    message = stage.as_server(Kind.DELIVERY, payload)
    refused(stage, 0, stage.hospitals[0].verify_shares, message)


@pytest.mark.parametrize("field", range(6))
def test_a_server_that_tampers_with_a_sealed_share_gets_no_complaint(field):
    """Whatever part of an entry it changes, the hospital signs nothing that would make the owner
    open the share, and does not go on with that owner."""
    stage = Stage()
    sealed = delivery_parts(stage, 0)
    owner, entry = sealed[1]
    at = sum(messages.SealedShare.SIZES[:field])
    changed = bytearray(entry)
    changed[at] ^= 1
    if field == 0:  # the holder's id
        payload = messages.Delivery(((owner, bytes(changed)), sealed[2])).to_bytes()
        message = stage.as_server(Kind.DELIVERY, payload)
        refused(stage, 0, stage.hospitals[0].verify_shares, message)
        return
    verdict = verdict_of(stage, 0, [sealed[0], (owner, bytes(changed)), sealed[2]])
    assert verdict == {owner: sealing.NO_COMPLAINT}
    everybody = stage.as_server(Kind.SHARERS, stage.round.to_bitmap(range(4)))
    refused(stage, 0, stage.hospitals[0].masked_input, everybody, stage.vectors[0])


def test_swapped_entries_are_seen():
    stage = Stage()
    (a, of_a), (b, of_b), third = delivery_parts(stage, 0)
    verdict = verdict_of(stage, 0, [(a, of_b), (b, of_a), third])
    assert verdict == {a: sealing.NO_COMPLAINT, b: sealing.NO_COMPLAINT}


@pytest.mark.parametrize("sharers", [{1, 2, 3}, {0}, {0, 1}, set()])
def test_sharers_without_me_or_too_few(sharers):
    stage = Stage()
    stage.play("masked")
    message = stage.as_server(Kind.SHARERS, stage.round.to_bitmap(sharers))
    refused(stage, 0, stage.hospitals[0].masked_input, message, stage.vectors[0])


def test_sharers_with_one_whose_shares_were_never_delivered():
    stage = Stage()
    sealed = delivery_parts(stage, 0)
    assert verdict_of(stage, 0, sealed[:2]) == {}
    message = stage.as_server(Kind.SHARERS, stage.round.to_bitmap({0, 1, 2, 3}))
    refused(stage, 0, stage.hospitals[0].masked_input, message, stage.vectors[0])


def test_no_share_is_given_out_of_one_that_was_left_out():
    """Hospital 0 holds a share of 3's secrets, which 3 has sealed well, but 3 is no sharer: its
    share stays where it is, whatever comes."""
    stage = Stage()
    stage.play("verify")
    del stage.answers[3]
    assert sorted(stage.play("masked")) == [0, 1, 2]
    stage.play("consistency")
    assert sorted(stage.hospitals[0]._held) == [0, 1, 2]
    np.testing.assert_array_equal(stage.play(), stage.expected(range(3)))


def accused_message(stage, complaints):
    return stage.as_server(Kind.ACCUSED, messages.Accused(tuple(complaints)).to_bytes())


def complaint_by(stage, owner, holder, signer=None):
    identity = stage.party.hospitals[holder if signer is None else signer]
    return holder, sealing.complaint(stage.round, owner, holder, identity)


@pytest.mark.parametrize(
    "lie", ["none", "forged", "by another", "of another", "double", "stranger", "mine", "many"]
)
def test_nothing_is_opened_without_its_holders_complaint(lie):
    """The server may ask for any share to be opened: it gets none whose holder has not signed,
    and never as many as reveal a secret."""
    stage = Stage(6, 4)
    stage.play("masked")
    complaints = {
        "none": [],
        "forged": [(1, bytes(64))],
        "by another": [complaint_by(stage, 0, 1, signer=2)],
        "of another": [complaint_by(stage, 3, 1)],
        "double": 2 * [complaint_by(stage, 0, 1)],
        "stranger": [(77, bytes(64))],
        "mine": [complaint_by(stage, 0, 0)],
        "many": [complaint_by(stage, 0, one) for one in (1, 2, 3, 4)],
    }[lie]
    refused(stage, 0, stage.hospitals[0].open_shares, accused_message(stage, complaints))


def test_shares_are_opened_once_and_before_masking():
    stage = Stage()
    answers = stage.play("masked")
    message = accused_message(stage, [complaint_by(stage, 0, 1)])
    reply = stage.hospitals[0].open_shares(message)
    assert [one for one, _ in messages.Opened.from_bytes(bytes(reply[56:-64])).secrets] == [1]
    refused(stage, 0, stage.hospitals[0].open_shares, message)
    stage.hospitals[1].masked_input(answers[1], stage.vectors[1])
    late = accused_message(stage, [complaint_by(stage, 1, 0)])
    refused(stage, 1, stage.hospitals[1].open_shares, late, aborts=False)


def survivors_message(stage, one, survivors, colluders=()):
    """SURVIVORS to hospital ``one``, with the neighbours' true signatures where there are any.
    Colluders sign whatever the server has told."""
    near = sorted(stage.round.graph[one] & set(survivors))
    told = sharer_statement(stage.round, stage.server._sharers)
    signed = stage.server._masked_with | {
        other: stage.hospitals[other]._identity.sign("sharers", told) for other in colluders
    }
    signatures = tuple((other, signed.get(other, bytes(64))) for other in near)
    payload = messages.Survivors(stage.round.to_bitmap(survivors), signatures).to_bytes()
    return stage.as_server(Kind.SURVIVORS, payload)


@pytest.mark.parametrize("survivors", [{1, 2, 3}, {0, 1}, set(), {0}])
def test_survivors_without_me_or_too_few(survivors):
    stage = Stage()
    stage.play("consistency")
    message = survivors_message(stage, 0, survivors)
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


def test_fewer_survivors_than_the_round_asks_for_are_not_confirmed():
    """Though every secret could be given back: the server is not the one to decide that."""
    stage = Stage(5, 3, minimum_survivors=5)
    stage.play("consistency")
    message = survivors_message(stage, 0, {0, 1, 2, 3})
    with pytest.raises(Refused, match="5 survivors"):
        stage.hospitals[0].consistency_check(message)


def test_survivors_that_never_shared():
    """Hospital 4 vanished before sharing, so it cannot have survived, even if it says so."""
    stage = Stage(5, 3)
    stage.play("share")
    del stage.answers[4]
    stage.play("consistency")
    message = survivors_message(stage, 0, range(5), colluders=[1, 2, 3, 4])
    refused(stage, 0, stage.hospitals[0].consistency_check, message)


def test_a_hospital_told_of_other_sharers_is_not_unmasked():
    """The server tells hospital 3 that only its colluders 1 and 2 have shared, so that it is
    masked with nobody honest. An honest server refuses the input; a lying one that counts it
    in finds that hospital 0, which knows better, does not confirm."""
    stage = Stage()
    stage.play("masked")
    lie = messages.Sharers(stage.round.to_bitmap({1, 2, 3}))
    stage.answers[3] = stage.as_server(Kind.SHARERS, lie.to_bytes())
    stage.play("consistency")
    assert stage.server.survivors == {0, 1, 2}
    assert "masked with others" in stage.server.refusals[0]
    stage.server._masked_with[3] = bytes(stage.sent["masked"][3][56 : 56 + 64])
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
    stage.play("masked")
    del stage.answers[3]
    answers = stage.play("unmask")
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


def test_settings_of_others_are_bad_input():
    party, round_ = make_round(3, 2)
    with pytest.raises(InputError):
        Hospital(1, party.hospitals[0], round_)
    with pytest.raises(InputError):
        Server(party.hospitals[0], round_)
