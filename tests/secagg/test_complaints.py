"""Who seals garbage or wrong shares is named and left out before anybody masks; nobody else is."""

from __future__ import annotations

import dataclasses
import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.secagg import Refused, RoundFailed, messages, run_round, sealing
from repro.secagg.keys import AgreementKey, seal
from repro.secagg.messages import Kind
from tests.secagg.parties import Stage, field_sum, field_vectors, make_round

HONEST = sealing.sealed_share


def resigned(round_, owner, identity, entry):
    """The entry with its owner's signature under what it now says."""
    signature = identity.sign("sealed share", sealing._statement(round_, owner, entry))
    return dataclasses.replace(entry, signature=signature)


def changing(signed=True, **fields):
    """Seals as it should, then makes these fields of the entry anew; signed again unless said."""

    def lie(round_, owner, identity, *rest):
        entry = HONEST(round_, owner, identity, *rest)
        changed = dataclasses.replace(entry, **{name: make() for name, make in fields.items()})
        return resigned(round_, owner, identity, changed) if signed else changed

    return lie


def other_shares(round_, owner, identity, holder, shares, ephemeral, seal_key):
    """Sealed well, but not the shares committed to."""
    entry = HONEST(round_, owner, identity, holder, shares, ephemeral, seal_key)
    key, associated = sealing._channel(round_, owner, holder, ephemeral, seal_key)
    changed = dataclasses.replace(entry, sealed=seal(key, bytes(66), associated))
    return resigned(round_, owner, identity, changed)


def no_share(round_, owner, identity, holder, shares, ephemeral, seal_key):
    """Sealed well and committed to, but no elements of the share field."""
    nonsense = (b"\xff" * 33, shares[1])
    return HONEST(round_, owner, identity, holder, nonsense, ephemeral, seal_key)


def for_nobody(*arguments):
    """Sealed under a key that is not the holder's."""
    return HONEST(*arguments[:-1], stranger())


def stranger():
    return AgreementKey(secrets.token_bytes(32)).public


def drawn(size):
    return lambda: secrets.token_bytes(size)


garbage = changing(sealed=drawn(messages.SEALED_BYTES))
LIES = {
    "garbage": garbage,
    "other shares": other_shares,
    "other commitments": changing(mask_key_commitment=drawn(32)),
    "no share": no_share,
    "for nobody": for_nobody,
    "weak ephemeral": changing(ephemeral=lambda: bytes(32)),
    "another ephemeral than the one whose secret half is shown": changing(ephemeral=stranger),
    "unsigned": changing(signed=False, signature=drawn(64)),
}


def lying(monkeypatch, lies, victims=None):
    """Hospitals in ``lies`` seal by their function, for all holders or for ``victims`` only."""

    def sealed_share(round_, owner, identity, holder, *rest):
        lie = lies.get(owner, HONEST) if victims is None or holder in victims else HONEST
        return lie(round_, owner, identity, holder, *rest)

    monkeypatch.setattr(sealing, "sealed_share", sealed_share)


@pytest.mark.parametrize("victims", [None, {1}])
@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_bad_shares_are_named_and_left_out_before_masking(lie, victims, monkeypatch):
    """For every holder or for one: the liar alone is excluded, no masked input of it is ever
    asked for, the others go on to their exact sum."""
    lying(monkeypatch, {4: lie}, victims)
    stage = Stage(5, 3)
    sharers = stage.play("masked")
    assert sorted(sharers) == [0, 1, 2, 3]
    assert list(stage.server.excluded) == [4]
    total = stage.play()
    assert stage.server.survivors == {0, 1, 2, 3}
    np.testing.assert_array_equal(total, stage.expected(range(4)))
    assert {hospital.phase for one, hospital in stage.hospitals.items() if one != 4} == {"done"}


def test_in_whole_rounds_and_on_sparse_graphs(monkeypatch):
    """K = 12, k = 4, two liars far apart: the program that plays rounds goes through the phase
    of answers, and its record names both."""
    party, round_ = make_round(12, 3, 4)
    far = next(i for i in range(1, 12) if not (round_.graph[i] | {i}) & (round_.graph[0] | {0}))
    lying(monkeypatch, {0: garbage, far: other_shares})
    vectors = field_vectors(round_)
    result = run_round(party, round_, vectors.__getitem__)
    assert set(result.excluded) == {0, far}
    reasons = ("sealed bad shares for", "did not answer")  # 4 complaints are too many to answer
    assert all(why.startswith(reasons) for why in result.excluded.values())
    expected = field_sum(round_, vectors, set(range(12)) - {0, far})
    np.testing.assert_array_equal(result.total, expected)


def complain_of(stage, holder, owners, good=True):
    """A VERIFY message of ``holder``'s with complaints of these owners."""
    identity = stage.party.hospitals[holder]
    sign = lambda owner: sealing.complaint(stage.round, owner, holder, identity)  # noqa: E731
    signed = tuple((o, sign(o) if good else sealing.NO_COMPLAINT) for o in owners)
    return stage.as_hospital(holder, Kind.VERIFY, messages.UpheldComplaints(signed).to_bytes())


@pytest.mark.parametrize("good", [True, False])
def test_who_complains_without_cause_is_named_instead(good):
    """And what its victims lay open is its own share of their secrets, nothing else."""
    stage = Stage(5, 3)

    def forge(phase, one, reply):
        return complain_of(stage, 4, [0, 2], good) if (phase, one) == ("verify", 4) else reply

    total = stage.play(forge=forge)
    assert list(stage.server.excluded) == [4]
    assert stage.server.survivors == {0, 1, 2, 3}
    np.testing.assert_array_equal(total, stage.expected(range(4)))
    for message in stage.sent.get("open", {}).values():
        opened = messages.Opened.from_bytes(bytes(message[56:-64])).secrets
        assert [holder for holder, _ in opened] == [4]
    assert sorted(stage.sent.get("open", {})) == ([0, 2] if good else [])


@pytest.mark.parametrize("answer", ["silent", "wrong secret", "other holders"])
def test_an_accused_that_does_not_prove_its_case_is_left_out(answer, monkeypatch):
    lying(monkeypatch, {4: garbage}, {1, 2})
    stage = Stage(5, 3)

    def forge(phase, one, reply):
        if phase != "open":
            return reply
        holders = (1, 2) if answer == "wrong secret" else (1, 3)
        secrets_ = tuple((holder, secrets.token_bytes(32)) for holder in holders)
        payload = b"nothing" if answer == "silent" else messages.Opened(secrets_).to_bytes()
        return stage.as_hospital(4, Kind.OPEN, payload)

    total = stage.play(forge=forge)
    assert list(stage.server.excluded) == [4]
    np.testing.assert_array_equal(total, stage.expected(range(4)))


def test_complaints_that_cannot_be_lose_their_sender_only():
    """Of itself, of a stranger, or signed by nobody: the message is refused."""
    for owner in (4, 77, 0):
        stage = Stage(5, 3)
        payload = messages.UpheldComplaints(((owner, bytes(63) + b"\1"),)).to_bytes()
        bad = stage.as_hospital(4, Kind.VERIFY, payload)
        total = stage.play(
            forge=lambda phase, one, reply, bad=bad: bad if (phase, one) == ("verify", 4) else reply
        )
        assert stage.server.excluded == {}
        assert len(stage.server.refusals) == 1
        np.testing.assert_array_equal(total, stage.expected(range(4)))


def test_an_accuser_does_not_go_on_with_whom_it_accused(monkeypatch):
    """A server that keeps the liar in loses every hospital the liar cheated."""
    lying(monkeypatch, {4: garbage})
    stage = Stage(5, 3)
    stage.play("open")
    everybody = stage.as_server(Kind.SHARERS, stage.round.to_bitmap(range(5)))
    for one in range(4):
        with pytest.raises(Refused, match="does not hold"):
            stage.hospitals[one].masked_input(everybody, stage.vectors[one])


def test_too_many_liars_fail_the_round_by_name(monkeypatch):
    lying(monkeypatch, dict.fromkeys((2, 3, 4), garbage))
    stage = Stage(5, 3)
    with pytest.raises(RoundFailed, match="nothing was unmasked") as failure:
        stage.play()
    assert failure.value.culprits == (2, 3, 4)
    assert failure.value.phase in ("verify", "open")


@given(
    hospitals=st.integers(5, 8),
    liars=st.dictionaries(
        st.integers(0, 7), st.sampled_from([*LIES.values(), "complains"]), max_size=2
    ),
    victims=st.sets(st.integers(0, 7), min_size=1),
)
@settings(max_examples=8)
def test_only_liars_are_named_and_every_cheat_is(hospitals, liars, victims):
    """Any two liars of any kinds: who is excluded has lied; who sealed badly for an honest
    hospital is excluded; the survivors' sum is exact or the round fails."""
    liars = {one: lie for one, lie in liars.items() if one < hospitals}
    sealers = {one: lie for one, lie in liars.items() if lie != "complains"}
    stage = Stage(hospitals, hospitals // 2 + 1)

    def forge(phase, one, reply):
        if phase != "verify" or liars.get(one) != "complains":
            return reply
        return complain_of(stage, one, [min(set(range(hospitals)) - set(liars))])

    with pytest.MonkeyPatch.context() as patch:
        lying(patch, sealers, victims)
        try:
            total = stage.play(forge=forge)
        except RoundFailed as failure:
            total, named = None, set(failure.culprits)
        else:
            named = set(stage.server.excluded)
    assert named <= set(liars)
    if total is None:
        return
    cheated = {one for one in sealers if victims & set(range(hospitals)) - set(liars) - {one}}
    complainers = {one for one, lie in liars.items() if lie == "complains"}
    assert cheated | complainers <= named
    np.testing.assert_array_equal(total, stage.expected(stage.server.survivors))
    assert set(range(hospitals)) - set(liars) <= stage.server.survivors
