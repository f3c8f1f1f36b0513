"""The audit log: what can be changed in it unnoticed (nothing but its end), and what it proves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Identity
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.transcript import Log, Transcript, open_transcript, read_log

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
