"""Hospitals that lie: a lie costs the liar its part, never the sum or anybody else's secret."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from repro.secagg import Refused, RoundFailed, messages
from repro.secagg.hospital import seed_commitment
from repro.secagg.messages import Kind
from tests.secagg.parties import Stage


def test_server_refuses_late_double_malformed_and_foreign_messages():
    """None of them loses the round or touches the sum."""
    stage, other = Stage(), Stage()
    other.play("share")
    good = [h.advertise_keys() for h in stage.hospitals.values()]
    bad = [good[0], b"", b"garbage" * 40, other.sent["advertise"][1], good[1][:-1]]
    answers = stage.server.advertise_keys([*good, *bad])
    assert len(stage.server.refusals) == len(bad)
    shares = [stage.hospitals[i].share_keys(m) for i, m in answers.items()]
    answers = stage.server.share_keys([good[2], *shares, shares[1]])
    verdicts = [stage.hospitals[i].verify_shares(m) for i, m in answers.items()]
    answers = stage.server.verify_shares([shares[0], *verdicts, verdicts[1]])
    masked = [stage.hospitals[i].masked_input(m, stage.vectors[i]) for i, m in answers.items()]
    wrong_length = stage.as_hospital(3, Kind.MASKED, bytes(84))
    signed = bytes(masked[3][56 : 56 + 64])
    not_reduced = stage.as_hospital(3, Kind.MASKED, signed + b"\xff" * 24)
    answers = stage.server.masked_input([masked[0], masked[0], wrong_length, not_reduced, *masked])
    replies = [stage.hospitals[i].consistency_check(m) for i, m in answers.items()]
    lie = stage.as_hospital(0, Kind.CONSISTENCY, bytes(64))
    answers = stage.server.consistency_check([lie, *replies, masked[1]])
    unmasked = [stage.hospitals[i].unmask(m) for i, m in answers.items()]
    total = stage.server.unmask([*unmasked, unmasked[0]])
    np.testing.assert_array_equal(total, stage.expected(range(4)))
    assert len(stage.server.refusals) == len(bad) + 2 + 2 + 4 + 2 + 1


def test_a_wrong_share_is_told_from_a_right_one():
    """A holder that lies about one share is overruled by the others; the sum is exact."""
    stage = Stage()
    answers = stage.play("unmask")
    replies = {i: stage.hospitals[i].unmask(m) for i, m in answers.items()}
    shares = list(messages.Unmask.from_bytes(bytes(replies[0][56:-64])).shares)
    shares[1] = (shares[1][0], bytes(33))
    replies[0] = stage.as_hospital(0, Kind.UNMASK, messages.Unmask(tuple(shares)).to_bytes())
    total = stage.server.unmask(replies.values())
    np.testing.assert_array_equal(total, stage.expected(range(4)))
    assert "wrong share of hospital 1 from 0" in stage.server.refusals[0]


def test_too_many_wrong_shares_fail_the_round_by_name():
    """Two of four lie about every share: with threshold 3 there is no sum, and both are named."""
    stage = Stage()
    answers = stage.play("unmask")
    replies = {i: stage.hospitals[i].unmask(m) for i, m in answers.items()}
    for liar in (0, 2):
        shares = messages.Unmask.from_bytes(bytes(replies[liar][56:-64])).shares
        wrong = messages.Unmask(tuple((owner, bytes(33)) for owner, _ in shares))
        replies[liar] = stage.as_hospital(liar, Kind.UNMASK, wrong.to_bytes())
    with pytest.raises(RoundFailed, match="3 shares of hospital") as failure:
        stage.server.unmask(replies.values())
    assert failure.value.culprits == (0, 2)


@pytest.mark.parametrize("lost", [True, False])
def test_an_owner_that_shared_another_secret_fails_the_round_by_name(lost, monkeypatch):
    """Shares of something else than was used: no wrong sum, but a failure that names it."""
    stage = Stage()
    liar = stage.hospitals[3]
    seed, key = liar._seed, liar._mask_key
    answers = stage.play("share")

    def share(one, message):
        if one != 3:
            return stage.hospitals[one].share_keys(message)
        liar._seed, true_secret = bytes(32), key.secret
        monkeypatch.setattr(key, "secret", bytes(32))
        reply = liar.share_keys(message)
        monkeypatch.setattr(key, "secret", true_secret)
        share_ = messages.Share.from_bytes(bytes(reply[56:-64]))
        liar._seed = seed
        honest = seed_commitment(stage.round, 3, seed)
        lie = dataclasses.replace(share_, seed_commitment=honest)
        return stage.as_hospital(3, Kind.SHARE, lie.to_bytes())

    stage.answers = stage.server.share_keys(share(i, m) for i, m in answers.items())
    stage.play("masked")
    if lost:
        del stage.answers[3]
    with pytest.raises(RoundFailed, match="hospital 3 to have shared what it used") as failure:
        stage.play()
    assert failure.value.culprits == (3,)


@pytest.mark.parametrize("lie", ["small order", "another's", "one key twice"])
def test_keys_that_neighbours_would_refuse_lose_only_their_owner(lie):
    """The server refuses them first, so that nobody else leaves because of them."""
    stage = Stage()
    good = {i: h.advertise_keys() for i, h in stage.hospitals.items()}
    keys = {
        "small order": (bytes(32), bytes(range(32))),
        "another's": (bytes(good[0][56:88]), bytes(range(32))),
        "one key twice": (bytes(range(32)), bytes(range(32))),
    }[lie]
    advertised = messages.Advertise.of(stage.round, *keys).to_bytes()
    good[2] = stage.as_hospital(2, Kind.ADVERTISE, advertised)
    answers = stage.server.advertise_keys(good.values())
    assert sorted(answers) == [0, 1, 3]
    assert len(stage.server.refusals) == 1


def test_a_phase_called_twice_does_not_touch_the_sum():
    stage = Stage()
    answers = stage.play("consistency")
    with pytest.raises(Refused):
        stage.server.masked_input([])
    for phase in ("consistency", "unmask"):
        replies = [stage.respond(phase, one, message) for one, message in answers.items()]
        with pytest.raises(Refused):
            stage.server.unmask([]) if phase == "consistency" else stage.server.masked_input([])
        server = stage.server
        receive = server.consistency_check if phase == "consistency" else server.unmask
        answers = receive(replies)
    np.testing.assert_array_equal(answers, stage.expected(range(4)))


def test_shares_for_the_wrong_holders_lose_only_their_owner():
    stage = Stage()
    answers = stage.play("share")
    shares = {i: stage.hospitals[i].share_keys(m) for i, m in answers.items()}
    parts = messages.Share.from_bytes(bytes(shares[2][56:-64]))
    fewer = messages.Share(parts.seed_commitment, parts.shares[:-1]).to_bytes()
    shares[2] = stage.as_hospital(2, Kind.SHARE, fewer)
    stage.answers = stage.server.share_keys(shares.values())
    assert sorted(stage.answers) == [0, 1, 3]
    np.testing.assert_array_equal(stage.play(), stage.expected([0, 1, 3]))


def test_server_phases_run_once_and_in_order():
    stage = Stage()
    with pytest.raises(Refused):
        stage.server.share_keys([])
    with pytest.raises(RoundFailed, match="advertise: 0 hospitals left"):
        stage.server.advertise_keys([])
    with pytest.raises(Refused):
        stage.server.advertise_keys([])
