"""The audit log: what can be changed in it unnoticed (nothing but its end), and what it proves."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Identity
from repro.secagg.deploy import transcript
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.transcript import Log, Transcript, open_transcript, read_log
from tests.secagg.deploy.federation import Deployment

SESSION = "5e" * 32


def written(path, identity, count=5):
    with open_transcript(path, identity, "hospital") as log:
        for number in range(count):
            log.append("begun", session=SESSION, round=number + 1, serial=1)
    return path.read_bytes().splitlines(keepends=True)


def test_a_log_is_read_back(tmp_path):
    identity = Identity()
    written(tmp_path / "a.log", identity)
    log = read_log(tmp_path / "a.log", identity.public)
    assert [entry["event"] for entry in log.entries] == ["opened"] + 5 * ["begun"]
    assert log.torn_bytes == 0


def test_every_change_is_found(tmp_path):
    """Any byte of any line, any line dropped, doubled or moved; except whole lines at the end,
    which is why the head is printed."""
    path, identity = tmp_path / "a.log", Identity()
    lines = written(path, identity)
    random = np.random.default_rng(0)
    changed = []
    for _ in range(200):
        at = int(random.integers(len(b"".join(lines)) - 1))
        raw = bytearray(b"".join(lines))
        raw[at] ^= int(random.integers(1, 256))
        changed.append(bytes(raw))
    for one in range(len(lines)):
        without = [line for place, line in enumerate(lines) if place != one]
        if one < len(lines) - 1:
            changed.append(b"".join(without))
        changed.append(b"".join([*lines[: one + 1], lines[one], *lines[one + 1 :]]))
    changed.append(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    # The same entry, of which a reader of JSON sees no difference.
    last, signature = lines[-1], json.loads(lines[-1])["signature"].encode()
    others = last.replace(b", ", b",  "), last.replace(signature, signature.upper())
    changed += [b"".join([*lines[:-1], other]) for other in others]
    for content in changed:
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_log(path, identity.public)
    path.write_bytes(b"".join(lines[:-1]))
    assert read_log(path).head != read_log_of(path, lines).head


def read_log_of(path, lines):
    path.write_bytes(b"".join(lines))
    return read_log(path)


def test_another_key_cannot_go_on_with_a_log(tmp_path):
    path = tmp_path / "a.log"
    written(path, Identity())
    with pytest.raises(InputError, match="rotate"):
        Transcript(path, Identity(), "hospital")


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_torn_last_line_is_dropped_and_noted(tmp_path, cut):
    """As kill -9 leaves it: the log goes on, and says how much was torn."""
    path, identity = tmp_path / "a.log", Identity()
    lines = written(path, identity)
    path.write_bytes(b"".join(lines)[:-cut])
    assert read_log(path).torn_bytes == len(lines[-1]) - cut
    with open_transcript(path, identity, "hospital") as log:
        log.append("begun", session=SESSION, round=9, serial=1)
    entries = read_log(path, identity.public).entries
    assert [entry["event"] for entry in entries][-2:] == ["opened", "begun"]
    assert entries[-2]["torn_bytes"] == len(lines[-1]) - cut
    assert len(entries) == len(lines) + 1


@pytest.mark.parametrize("kept", [0, 3])
def test_a_log_torn_in_its_first_line(tmp_path, kept):
    path, identity = tmp_path / "a.log", Identity()
    path.write_bytes(written(path, identity)[0][:kept])
    with open_transcript(path, identity, "hospital") as log:
        log.append("begun", session=SESSION, round=1, serial=1)
    assert len(read_log(path).entries) == 2


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[]\n", b"junk\n", b"junk"])
def test_what_is_no_log_is_one_line(tmp_path, content):
    (tmp_path / "a.log").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_log(tmp_path / "a.log")
    assert "\n" not in str(caught.value)


def message(number, way="sent", direction="up", phase="masked", digest="d", hospital=1):
    return {
        "event": "message",
        "way": way,
        "direction": direction,
        "session": "00",
        "round": number,
        "phase": phase,
        "hospital": hospital,
        "digest": digest,
    }


def begun(number):
    return {"event": "begun", "session": "00", "round": number}


def opened(number, seeds=(), keys=()):
    return {
        "event": "opened secrets",
        "session": "00",
        "round": number,
        "self_masks": list(seeds),
        "mask_keys": list(keys),
    }


def log_of(*entries, owner=b"o"):
    return Log(owner * 32, tuple(entries), "head", 0)


FINDINGS = {
    "a number twice": ([log_of(begun(1), begun(1))], "begun after round 1"),
    "a number that goes back": ([log_of(begun(2), begun(1))], "begun after round 2"),
    "a second message": ([log_of(begun(1), message(1), message(1))], "a second message"),
    "a message of an old round": (
        [log_of(begun(1), begun(2), message(1))],
        "not the round begun last",
    ),
    "two ends that differ": (
        [
            log_of(begun(1), message(1)),
            log_of(begun(1), message(1, "received", digest="e"), owner=b"p"),
        ],
        "received otherwise than it was sent",
    ),
    "both secrets of a hospital": (
        [
            log_of(begun(1), opened(1, seeds=[3], keys=[4])),
            log_of(begun(1), opened(1, seeds=[4]), owner=b"p"),
        ],
        "both secrets of hospital 4",
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_what_an_audit_finds(name):
    logs, expected = FINDINGS[name]
    findings = audit(logs).findings
    assert len(findings) == 1
    assert expected in findings[0]


def test_an_audit_of_honest_logs_finds_nothing():
    hospital = log_of(begun(1), message(1), begun(2), message(2), opened(2, seeds=[1], keys=[2]))
    server = log_of(begun(1), message(1, "received"), begun(2), {"event": "sum"}, owner=b"p")
    found = audit([hospital, server])
    assert found.findings == ()
    assert (found.rounds, found.sums, found.messages, found.compared, found.opened) == (
        2,
        1,
        3,
        1,
        2,
    )


def test_entries_are_json_that_anyone_can_read(tmp_path):
    lines = written(tmp_path / "a.log", Identity())
    assert [json.loads(line)["entry"] for line in lines] == list(range(6))


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Three rounds of a server and four hospitals; name -> the lines of its log."""
    deployment = Deployment(tmp_path_factory.mktemp("held"), opening=20.0)
    deployment.serve(3)
    deployment.take_part(3)
    names = ("server", *"0123")
    paths = {name: deployment.folder / name / "transcript.log" for name in names}
    return {name: path.read_bytes().splitlines(keepends=True) for name, path in paths.items()}


@pytest.mark.parametrize("name", ["server", "2"])
def test_a_log_whose_end_is_gone_is_named(tmp_path, held, name):
    """Cut anywhere before the last message that another party received: the audit says whose log
    it is and which rounds are not whole in it. Behind it nothing is missing."""
    path = tmp_path / "cut.log"

    def findings(length):
        path.write_bytes(b"".join(held[name][:length]))
        logs = [read_log_of(tmp_path / "whole.log", held[one]) for one in held if one != name]
        return audit([read_log(path), *logs]).findings

    entries = [json.loads(line) for line in held[name]]
    sent = [at for at, entry in enumerate(entries) if entry.get("way") == "sent"]
    assert findings(len(entries)) == findings(sent[-1] + 1) == ()
    for length in (sent[0] + 1, len(entries) // 2, sent[-1]):
        (finding,) = findings(length)
        whose = "the server's log" if name == "server" else "hospital 2's log"
        assert finding.startswith(f"{whose} lacks ")
        assert str(entries[sent[-1]]["round"]) in finding
    (finding,) = findings(sent[-1])
    assert finding == f"{whose} lacks 1 message that others received from it, in round 3"


def resigned(entries, identity):
    """A log of these entries: whole, chained and signed."""
    lines, head = [], "0" * 64
    for number, entry in enumerate(entries):
        entry = {**entry, "entry": number, "previous": head}
        entry.pop("signature", None)
        signature = identity.sign(transcript._PURPOSE, transcript._canonical(entry))
        lines.append(json.dumps(entry | {"signature": signature.hex()}).encode() + b"\n")
        head = hashlib.sha256(lines[-1][:-1]).hexdigest()
    return b"".join(lines)


WRONG = ["x", -1, 1.5, None, True, [], {}, "00" * 31, [-1], ["x"]]


def test_every_field_of_every_event_is_validated(tmp_path, held):
    """Signed and chained as it should be, one field replaced or gone: one line that names it,
    never a traceback; a value is let through only where it is one that the field may have."""
    identity, path, seen = Identity(), tmp_path / "a.log", set()
    for line in [*held["server"], *held["1"]]:
        entry = json.loads(line)
        if entry["event"] in seen:
            continue
        seen.add(entry["event"])
        first = json.loads(held["server"][0]) | {"public": identity.public.hex()}
        before = [] if entry["event"] == "opened" else [first]
        if not before:
            entry["public"] = identity.public.hex()
        path.write_bytes(resigned([*before, entry], identity))
        assert audit([read_log(path)]).rounds >= 0
        for name in set(entry) - {"entry", "previous", "signature"}:
            changes = [{**entry, name: value} for value in WRONG if value != entry[name]]
            changes.append({key: value for key, value in entry.items() if key != name})
            refused = 0
            for changed in changes:
                path.write_bytes(resigned([*before, changed], identity))
                try:
                    audit([read_log(path)])
                except InputError as caught:
                    refused += "\n" not in str(caught)
            assert refused >= len(changes) - 3, (entry["event"], name)
        path.write_bytes(resigned([*before, entry | {"more": 1}], identity))
        with pytest.raises(InputError, match="more"):
            read_log(path)
    assert {"opened", "begun", "message", "sum", "done", "opened secrets"} <= seen


def test_a_round_that_is_no_number_is_one_line(tmp_path):
    identity, path = Identity(), tmp_path / "a.log"
    first = written(path, identity, 1)
    entries = [json.loads(line) for line in first]
    path.write_bytes(resigned([entries[0], entries[1] | {"round": "x"}], identity))
    with pytest.raises(InputError, match=r'line 2.*round, not "x"'):
        read_log(path)


def test_a_log_that_has_grown_is_set_aside_between_rounds_and_audited_as_one(tmp_path, monkeypatch):
    """Also when it was killed between setting aside and going on; a part that is lost is named."""
    monkeypatch.setattr(transcript, "LARGEST", 1500)
    me, path = Identity(), tmp_path / "transcript.log"
    for first in (1, 4):
        with open_transcript(path, me, "hospital") as log:
            for number in range(first, first + 3):
                log.append("begun", session=SESSION, round=number, serial=1)
                log.append("done", session=SESSION, round=number)
        if first == 1:
            path.rename(tmp_path / "transcript-000002.log")  # as if killed there
    files = sorted(tmp_path.glob("*.log"))
    assert len(files) >= 4
    assert all(file.stat().st_size < 2600 for file in files)
    logs = [read_log(file, me.public) for file in files]
    found = audit(logs)
    assert (found.rounds, found.findings) == (6, ())
    lost = audit(logs[:1] + logs[2:])
    assert len(lost.findings) == 1
    assert logs[1].head[:12] in lost.findings[0]
    # Whoever archives the earliest ones finds none of the others overwritten.
    files[0].rename(tmp_path / "archived")
    kept = {file.name: file.read_bytes() for file in files[1:-1]}
    with open_transcript(path, me, "hospital") as log:
        for number in range(7, 12):
            log.append("begun", session=SESSION, round=number, serial=1)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
