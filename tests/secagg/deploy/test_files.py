"""Keys, counter and directory on disk: durable, private, and only ever moving forward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import Identity, Refused
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import (
    FederationDirectory,
    PinnedDirectory,
    Settings,
    load_directory,
)
from repro.secagg.deploy.keystore import (
    create_identity,
    load_identity,
    parse_public,
    public_path,
    read_public,
    write_private,
)

SESSION = b"s" * 32


def test_an_identity_comes_back_from_its_file(tmp_path):
    path = tmp_path / "a.key"
    made = create_identity(path)
    assert load_identity(path).public == made.public == read_public(public_path(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_replaced(tmp_path):
    path = tmp_path / "a.key"
    create_identity(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="never replaced"):
        create_identity(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o644])
def test_wider_permissions_are_refused(tmp_path, mode):
    path = tmp_path / "a.key"
    create_identity(path)
    path.chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        load_identity(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nxx\n"])
def test_what_is_no_key_is_one_line(tmp_path, content):
    write_private(tmp_path / "a.key", content)
    with pytest.raises(InputError, match="Ed25519") as caught:
        load_identity(tmp_path / "a.key")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "0x" + "00" * 31, " " + "00" * 32])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        parse_public(text)


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.integers(0, 30), max_size=20), missed=st.integers(0, 5))
def test_a_counter_that_is_reopened_every_time_never_repeats(tmp_path_factory, numbers, missed):
    """The oracle is three lines: after last, at most ``missed`` left out."""
    path, last = tmp_path_factory.mktemp("counter") / "rounds.json", 0
    for number in numbers:
        allowed = last < number <= last + 1 + missed
        try:
            FileCounter(path, missed).advance(SESSION, number)
        except Refused:
            assert not allowed
        else:
            assert allowed
            last = number
        assert FileCounter(path, missed).last(SESSION) == last


def test_sessions_are_counted_apart(tmp_path):
    counter = FileCounter(tmp_path / "rounds.json")
    counter.advance(SESSION, 3)
    counter.advance(b"t" * 32, 1)
    assert FileCounter(tmp_path / "rounds.json").last(SESSION) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": -1}', "{"])
def test_a_spoiled_counter_is_never_taken_for_an_empty_one(tmp_path, content):
    (tmp_path / "rounds.json").write_text(content)
    with pytest.raises(InputError, match="round counter"):
        FileCounter(tmp_path / "rounds.json")


def test_a_second_process_is_kept_out(tmp_path):
    with (
        open_counter(tmp_path / "rounds.json"),
        pytest.raises(InputError, match="no other process"),
        open_counter(tmp_path / "rounds.json"),
    ):
        pass
    with open_counter(tmp_path / "rounds.json"):  # free again
        pass


COUNT = """
import sys
from pathlib import Path
from repro.secagg.deploy.counter import FileCounter
counter = FileCounter(Path(sys.argv[1]))
for number in range(counter.last(b"s" * 32) + 1, 10**6):
    counter.advance(b"s" * 32, number)
    print(number, flush=True)
"""


def test_kill_9_at_any_moment_loses_no_number(tmp_path):
    """What was said to have been begun is on the disk, however often the process is killed."""
    path, said = tmp_path / "rounds.json", 0
    for delay in (0.3, 0.01, 0.05, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", COUNT, str(path)], stdout=subprocess.PIPE, text=True
        )
        first = int(process.stdout.readline())
        assert first == said + 1 or first == said + 2  # one may be stored and not yet said
        time.sleep(delay)
        process.kill()
        numbers = [first, *map(int, process.stdout.read().split())]
        process.wait()
        process.stdout.close()
        assert numbers == list(range(first, first + len(numbers)))
        said = numbers[-1]
        assert FileCounter(path).last(SESSION) in (said, said + 1)


class Parties:
    """An operator, a server and four hospitals, and their first directory."""

    def __init__(self):
        self.operator, self.server = Identity(), Identity()
        self.hospitals = [Identity() for _ in range(5)]
        self.first = FederationDirectory(
            operator=self.operator.public,
            serial=1,
            session=SESSION,
            server=self.server.public,
            hospitals={one: self.hospitals[one].public for one in range(4)},
            settings=Settings(threshold=2, neighbours=2, dimension=5),
        )


@pytest.fixture
def parties():
    return Parties()


def test_a_directory_comes_back_from_its_file(tmp_path, parties):
    path = tmp_path / "directory.json"
    parties.first.write(path, parties.operator)
    read = load_directory(path, parties.operator.public)
    assert read == parties.first
    assert read.digest == parties.first.digest


def test_no_byte_of_a_directory_can_be_changed(tmp_path, parties):
    """Every value replaced in turn: refused, whether it still parses or not."""
    path = tmp_path / "directory.json"
    parties.first.write(path, parties.operator)
    written = json.loads(path.read_text())
    changes = {
        "format": "another",
        "operator": parties.server.public.hex(),
        "serial": 2,
        "session": "00" * 32,
        "server": parties.hospitals[4].public.hex(),
        "hospitals": {**written["hospitals"], "2": parties.hospitals[4].public.hex()},
        "settings": {**written["settings"], "clip_range": 1e6},
        "revoked": [parties.hospitals[4].public.hex()],
        "signature": "00" * 64,
    }
    assert set(changes) == set(written)
    for name, value in changes.items():
        path.write_text(json.dumps(written | {name: value}))
        with pytest.raises(InputError):
            load_directory(path, parties.operator.public)
    for name in written:
        path.write_text(json.dumps({key: v for key, v in written.items() if key != name}))
        with pytest.raises(InputError):
            load_directory(path, parties.operator.public)
    path.write_text(json.dumps(written | {"more": 1}))
    with pytest.raises(InputError):
        load_directory(path, parties.operator.public)


def test_only_the_operator_that_is_known_counts(tmp_path, parties):
    path, impostor = tmp_path / "directory.json", Identity()
    key = impostor.public
    forged = replace(parties.first, operator=key, serial=2, server=key)
    with pytest.raises(InputError, match="operator"):
        forged.write(path, parties.operator)
    forged.write(path, impostor)
    with pytest.raises(InputError, match="operator"):
        load_directory(path, parties.operator.public)


def test_rotation_and_revocation(parties):
    second = parties.first.changed(hospitals={1: parties.hospitals[4].public})
    assert second.serial == 2
    assert second.session != parties.first.session  # who is new begins with everybody else
    assert second.changed(remove=[0]).session == second.session
    assert second.hospitals[1] == parties.hospitals[4].public
    assert second.revoked == {parties.hospitals[1].public}
    third = second.changed(server=Identity().public, remove=[0], new_session=True)
    assert sorted(third.hospitals) == [1, 2, 3]
    assert {parties.server.public, parties.hospitals[0].public} < third.revoked
    assert third.session != second.session
    third.succeeds(second)
    third.succeeds(parties.first)
    with pytest.raises(InputError, match="revoked"):
        third.changed(hospitals={0: parties.hospitals[0].public})
    with pytest.raises(InputError, match="hospital"):
        third.changed(remove=[7])


def test_a_directory_never_goes_back(tmp_path, parties):
    """An older file, another of the same serial, one that forgets a revocation; after a restart
    too."""
    path, seen = tmp_path / "directory.json", tmp_path / "seen.json"

    def accepts(directory):
        directory.write(path, parties.operator)
        said = []
        current = PinnedDirectory(path, parties.operator.public, seen, said.append).current()
        assert bool(said) == (current != directory)
        return current == directory

    second = parties.first.changed(hospitals={1: parties.hospitals[4].public})
    assert accepts(parties.first)
    assert accepts(second)
    assert accepts(second)
    assert not accepts(parties.first)
    assert not accepts(parties.first.changed(hospitals={2: Identity().public}))
    assert not accepts(replace(parties.first, serial=3))  # it forgets the revocation


def test_bad_settings_are_found_when_the_directory_is_made(parties):
    for wrong in ({"threshold": 1}, {"neighbours": 5}, {"dimension": 0}, {"max_weight": 0}):
        with pytest.raises(InputError):
            parties.first.changed(
                settings=Settings(**{"threshold": 2, "neighbours": 2, "dimension": 5} | wrong)
            )


def test_a_key_of_another_user_is_refused(tmp_path, monkeypatch):
    create_identity(tmp_path / "a.key")
    if os.geteuid() == 0:
        os.chown(tmp_path / "a.key", 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match="this user"):
        load_identity(tmp_path / "a.key")
