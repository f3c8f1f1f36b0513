"""Many rounds between a serving and a joining side: sums, restarts, rotation, refusals."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from repro.errors import InputError
from repro.secagg import Contribution, Hospital, Identity, Refused
from repro.secagg.deploy.announcement import ANNOUNCEMENT_BYTES, HELLO_BYTES, Announcement, Hello
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.counter import FileCounter
from repro.secagg.deploy.joining import Server, join
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import state_id
from repro.secagg.transport.peers import CHALLENGE_BYTES
from repro.secagg.transport.wire import LENGTH_BYTES, Deadline, receive_frame, send_frame
from tests.secagg.deploy.federation import Deployment


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path)


def test_three_rounds_with_everybody(deployment):
    deployment.serve(3)
    deployment.take_part(3)
    assert not deployment.errors
    assert list(deployment.results()) == [1, 2, 3]
    for number in (1, 2, 3):
        deployment.check(number, range(4))
    found = audit([deployment.log(name) for name in ("server", "0", "1", "2", "3")])
    assert found.findings == ()
    assert (found.rounds, found.sums) == (3, 3)
    assert found.compared == found.messages / 2


def test_what_the_server_announces_reaches_every_hospital(deployment, tmp_path):
    (tmp_path / "model").write_bytes(b"the global model")
    heard = []

    def contribution(announced):
        heard.append((announced.number, announced.application))
        return Contribution(deployment.vector(0, announced.number), 1)

    deployment.serve(1, application=tmp_path / "model")
    deployment.join(0, 1, contribution)
    deployment.take_part(1, range(1, 4))
    assert heard == [(1, b"the global model")]


def test_training_may_take_longer_than_a_connection_lives(tmp_path):
    """A slow hospital prepares once, comes again and is in the same round."""
    deployment = Deployment(tmp_path, opening=20.0, introduction=1.0)
    made = []

    def slow(announced):
        made.append(announced.number)
        time.sleep(2.5)
        return Contribution(deployment.vector(0, announced.number), 1)

    deployment.serve(1)
    deployment.join(0, 1, slow)
    deployment.take_part(1, range(1, 4))
    assert made == [1]
    deployment.check(1, range(4))


def test_nobody_came_costs_no_number(tmp_path):
    """Openings to which nobody comes do not use rounds up, or who stays away is locked out."""
    deployment = Deployment(tmp_path, opening=0.1)
    deployment.serve(1)
    deployment.until(lambda: sum("0 hospitals left" in x for x in deployment.lines) >= 3)
    deployment.limits.__dict__["opening"] = 5.0
    deployment.take_part(1)
    assert list(deployment.results()) == [1]


def speak_first(deployment, one):
    """Hospital ``one`` advertises in the open round and then dies, its counter written."""
    place = deployment.place(str(one))
    identity = load_identity(place.key)
    with socket.create_connection(deployment.address, timeout=20) as connection:
        raw = receive_frame(connection, 1000, Deadline(20.0))
        greeting, challenge = raw[:ANNOUNCEMENT_BYTES], bytes(raw[ANNOUNCEMENT_BYTES:])
        announced = Announcement.from_bytes(greeting, deployment.public["server"])
        hello = Hello(one, state_id(place.state), 0, False)
        send_frame(connection, hello.to_bytes(identity, greeting, challenge))
        receive_frame(connection, 1000, Deadline(20.0))
        round_ = deployment.directory.round(announced.number)
        FileCounter(place.state / "rounds.json").advance(round_.session, round_.number)
        send_frame(connection, Hospital(one, identity, round_).advertise_keys())
    return announced.number


def test_a_hospital_that_died_in_a_round_comes_back_in_the_next(tmp_path):
    deployment = Deployment(tmp_path, opening=1.5)
    deployment.serve(2)
    assert speak_first(deployment, 3) == 1
    for one in range(4):
        deployment.join(one, 2 if one < 3 else 1)
    deployment.finish()
    assert not deployment.errors
    assert any("begun before" in line for line in deployment.lines)
    deployment.check(1, range(3))
    deployment.check(2, range(4))
    # ``speak_first`` writes no log, and that is what the audit has to say.
    (finding,) = audit([deployment.log(name) for name in ("server", "0", "1", "2", "3")]).findings
    assert finding == "hospital 3's log lacks 1 message that others received from it, in round 1"


def test_a_server_that_restarts_goes_on_with_the_next_number(deployment):
    for first in (1, 2):
        deployment.serve(1)
        deployment.take_part(1)
        deployment.check(first, range(4))
    assert list(deployment.results()) == [1, 2]


def test_keys_are_rotated_and_revoked_while_everybody_runs(tmp_path):
    """Hospital 3 gets a new key between two rounds; the old one is refused by name."""
    deployment = Deployment(tmp_path, opening=20.0)
    deployment.serve(2, pause=2.0)
    for one in range(4):
        deployment.join(one, 2 if one < 3 else 1)
    deployment.until(lambda: 1 in deployment.results())
    deployment.check(1, range(4))
    deployment.publish(deployment.directory.changed(hospitals={3: deployment.create("new")}))
    deployment.threads[4].join(20)  # hospital 3's old process
    address = Server(*deployment.address, wait=20.0)
    with pytest.raises(InputError, match="not been revoked"):
        join(deployment.place("3"), address, lambda _: None, rounds=1)
    vector = deployment.vector(3, 1)
    join(
        deployment.place("new"), address, lambda _: Contribution(vector, 4), rounds=1, patience=30.0
    )
    deployment.finish()
    deployment.check(1, range(4))  # of the session that began with the new key


def test_hospitals_with_another_directory_say_so(deployment):
    """The server has not been handed the new directory yet."""
    old = (deployment.folder / "directory.json").read_bytes()
    deployment.serve(1)
    for one in range(3):
        deployment.join(one, 1)
    time.sleep(0.1)
    deployment.publish(deployment.directory.changed(hospitals={3: deployment.create("new")}))
    reports = []
    with pytest.raises(TimeoutError):
        join(
            deployment.place("new"),
            Server(*deployment.address, wait=5.0),
            lambda _: None,
            rounds=1,
            patience=1.0,
            report=reports.append,
        )
    (deployment.folder / "directory.json").write_bytes(old)
    deployment.finish()
    assert any("another directory than this one of serial 2" in line for line in reports)


class Impostor(threading.Thread):
    """Says one thing to whoever connects."""

    def __init__(self, greeting):
        super().__init__()
        self.greeting, self.heard = greeting, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.1)
        self.stop = threading.Event()
        self.start()

    def run(self):
        while not self.stop.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            with connection:
                send_frame(connection, self.greeting + bytes(CHALLENGE_BYTES))
                connection.settimeout(2)
                heard = b""
                with contextlib.suppress(OSError):
                    while len(heard) < LENGTH_BYTES + HELLO_BYTES:
                        part = connection.recv(1000)
                        if not part:
                            break
                        heard += part
                self.heard.append(heard)
        self.listener.close()


def announcements(deployment):
    server = load_identity(deployment.folder / "server" / "key")
    directory = deployment.directory
    right = Announcement.of(1, directory.session, directory.digest)
    flipped = bytearray(right.to_bytes(server))
    flipped[6] ^= 1  # the number
    return {
        "not signed by the server": right.to_bytes(Identity()),
        "another number than was signed": bytes(flipped),
        "too short": b"RSAN",
        "another session": Announcement(1, b"t" * 32, directory.digest).to_bytes(server),
        "another directory": Announcement(1, directory.session, bytes(32)).to_bytes(server),
        "a jump to the last number": Announcement(
            2**64 - 1, directory.session, directory.digest
        ).to_bytes(server),
        "a jump past what may be missed": Announcement(
            18, directory.session, directory.digest
        ).to_bytes(server),
    }


def test_no_announcement_but_the_right_one_is_answered(deployment):
    """A server that cannot announce is sent nothing, one that jumps no more than who this is; no
    number is used up."""
    for case, greeting in announcements(deployment).items():
        impostor = Impostor(greeting)
        try:
            with pytest.raises(TimeoutError):
                join(
                    deployment.place("0"),
                    Server(*impostor.listener.getsockname(), wait=5.0),
                    lambda announced: Contribution(deployment.vector(0), 1),
                    rounds=1,
                    patience=0.2,
                )
        finally:
            impostor.stop.set()
            impostor.join(10)
        assert impostor.heard, case
        sizes = {LENGTH_BYTES + HELLO_BYTES} if "a jump" in case else {0}
        assert set(map(len, impostor.heard)) == sizes, case
    assert not (deployment.folder / "0" / "rounds.json").exists()


def test_a_round_trip_of_an_announcement():
    server = Identity()
    announced = Announcement.of(7, b"s" * 32, b"d" * 32, b"bytes", seconds=9)
    read = Announcement.from_bytes(announced.to_bytes(server), server.public)
    assert read == announced
    assert read.filled(b"bytes").application == b"bytes"
    with pytest.raises(Refused, match="other bytes"):
        read.filled(b"byte")
    for cut in range(len(announced.to_bytes(server))):
        with pytest.raises(Refused):
            Announcement.from_bytes(announced.to_bytes(server)[:cut], server.public)


def test_an_opening_ends_soon_after_enough_hospitals_are_in(tmp_path):
    """Three of four come; the opening would last a minute."""
    deployment = Deployment(tmp_path, opening=60.0, enough=3, stragglers=0.3)
    began = time.monotonic()
    deployment.serve(1)
    deployment.take_part(1, range(3))
    assert time.monotonic() - began < 30
    deployment.check(1, range(3))
