"""Slow lines are waited for as long as bytes come; strangers and the silent are not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from repro.secagg import Contribution, Hospital, Identity
from repro.secagg.deploy import announcement
from repro.secagg.deploy.announcement import ANNOUNCEMENT_BYTES, Hello
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import state_id
from repro.secagg.errors import Refused
from repro.secagg.transport.quiet import Once, Quiet
from repro.secagg.transport.tcp_hospital import listen
from repro.secagg.transport.wire import Deadline, receive_frame, send_frame
from tests.secagg.deploy.federation import Deployment

MODEL = b"the global model" * 375_000  # 6 MB


class SlowLine(threading.Thread):
    """Carries bytes to and from the server, each way at its own rate (bytes a second)."""

    def __init__(self, address, down=1e9, up=1e9):
        super().__init__(daemon=True)
        self.server, self.rates, self.carried = address, {"down": down, "up": up}, 0
        self.listener, self.stop = socket.create_server(("127.0.0.1", 0)), threading.Event()
        self.listener.settimeout(0.1)
        self.ends = []
        self.address = self.listener.getsockname()
        self.start()

    def run(self):
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                near, _ = self.listener.accept()
                # Small buffers, so that what the server has sent the line has nearly carried.
                far = socket.socket()
                self.ends += (near, far)
                for end in (near, far):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                far.connect(self.server)
                for source, sink, way in ((near, far, "up"), (far, near, "down")):
                    carry = (source, sink, way)
                    threading.Thread(target=self._carry, args=carry, daemon=True).start()
        self.listener.close()

    def close(self):
        self.stop.set()
        self.join(10)
        for end in self.ends:
            end.close()

    def _carry(self, source, sink, way):
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 15):
                time.sleep(len(part) / self.rates[way])
                sink.sendall(part)
                self.carried += len(part) if way == "down" else 0
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def slow_line():
    """Makes slow lines, which end with the test."""
    lines = []

    def make(*arguments, **rates):
        lines.append(SlowLine(*arguments, **rates))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A file of 6 MB, and room for it."""
    monkeypatch.setattr(announcement, "APPLICATION_ROOM", 8 << 20)
    (tmp_path / "model").write_bytes(MODEL)
    return tmp_path / "model"


def test_one_download_serves_every_connection_and_round(tmp_path, model, slow_line):
    """6 MB at 3 MB/s where an introduction may take 0.5 s; training outlives the connection, and
    the second round is about the same model: it is fetched once, and the hospital is in both."""
    deployment = Deployment(tmp_path, opening=25.0, introduction=0.5)
    deployment.serve(2, application=model)
    line, heard = slow_line(deployment.address, down=3e6), []

    def slow(announced):
        heard.append((announced.number, announced.application == MODEL))
        time.sleep(2.5)
        return Contribution(deployment.vector(0, announced.number), 1)

    deployment.join(0, 2, slow, address=line.address)
    for one in range(1, 4):
        deployment.join(one, 2)
    deployment.finish(100)
    assert heard == [(1, True), (2, True)]
    deployment.check(1, range(4))
    deployment.check(2, range(4))
    assert len(MODEL) < line.carried < 1.5 * len(MODEL)


def test_an_opening_goes_on_for_a_hospital_that_is_being_sent_the_model(tmp_path, model, slow_line):
    """At 1 MB/s it takes three times the opening, and three times an introduction."""
    deployment = Deployment(tmp_path, opening=2.0, introduction=2.0, phase=30.0)
    deployment.serve(1, application=model)
    line = slow_line(deployment.address, down=1e6)
    for one in range(4):
        deployment.join(one, 1, address=line.address if one == 3 else deployment.address)
    deployment.finish()
    deployment.check(1, range(4))


def test_a_phase_goes_on_for_a_masked_input_that_is_on_its_way(tmp_path, monkeypatch, slow_line):
    """1.2 MB at 150 kB/s where a phase waits 4 s for the silent."""
    monkeypatch.setattr("tests.secagg.deploy.federation.DIMENSION", 300_000)
    deployment = Deployment(tmp_path, opening=20.0, phase=4.0)
    deployment.serve(1)
    line = slow_line(deployment.address, up=1.5e5)
    for one in range(4):
        deployment.join(one, 1, address=line.address if one == 3 else deployment.address)
    deployment.finish()
    deployment.check(1, range(4))


def test_who_is_slower_than_allowed_is_cut_off_and_says_how_far_it_came(tmp_path, model, slow_line):
    deployment = Deployment(tmp_path, opening=6.0, rate=2e6, grace=0.5)
    deployment.serve(1, application=model)
    line = slow_line(deployment.address, down=2e5)
    for one in range(3):
        deployment.join(one, 1)
    deployment.join(3, 1, address=line.address, patience=3.0)
    deployment.finish()
    deployment.check(1, range(3))
    told = [line for line in deployment.lines if "in the middle of a message of 6 MB" in line]
    assert "MB came through in" in told[0]
    assert any("hospital 3: it takes less than 2e+06 bytes a second" in x for x in deployment.lines)


def greeted(deployment):
    """A connection, the announcement on it and its challenge."""
    connection = socket.create_connection(deployment.address, timeout=20)
    raw = receive_frame(connection, 1000, Deadline(20.0))
    return connection, raw[:ANNOUNCEMENT_BYTES], bytes(raw[ANNOUNCEMENT_BYTES:])


def hello_of(deployment, one, greeting, challenge, identity=None):
    place = deployment.place(str(one))
    known = Hello(one, state_id(place.state), 0, True)
    return known.to_bytes(identity or load_identity(place.key), greeting, challenge)


def test_a_hospital_that_falls_silent_is_told_why_it_is_cut_off(tmp_path):
    """It has the model and does not advertise: the opening does not wait for it."""
    deployment = Deployment(tmp_path, opening=20.0, introduction=1.0)
    deployment.serve(1)
    connection, greeting, challenge = greeted(deployment)
    with connection:
        send_frame(connection, hello_of(deployment, 3, greeting, challenge))
        assert receive_frame(connection, 1000, Deadline(20.0)) == b"+"
        with pytest.raises(Refused, match="the server says: it has not introduced itself in 1 s"):
            listen(connection, 1000, Deadline(20.0))
    deployment.take_part(1)


def attempts(deployment):
    """What a stranger may send: name -> (greeting, challenge) -> frames."""
    spied, greeting, challenge = greeted(deployment)
    replayed = hello_of(deployment, 3, greeting, challenge)
    spied.close()
    return {
        "nothing": lambda *_: b"",
        "garbage": lambda *_: bytes(109),
        "a hello under another key": lambda *told: hello_of(deployment, 3, *told, Identity()),
        "a hello of an unknown hospital": lambda greeting, challenge: Hello(
            9, bytes(16), 0, True
        ).to_bytes(Identity(), greeting, challenge),
        "another connection's hello": lambda *_: replayed,
    }


def test_no_stranger_is_sent_the_application(tmp_path, model):
    """Without mutual TLS: of 6 MB a client that proves no identity gets not one byte."""
    deployment = Deployment(tmp_path, opening=30.0, introduction=1.0)
    deployment.serve(1, application=model)
    for name, frame in attempts(deployment).items():
        connection, greeting, challenge = greeted(deployment)
        with connection, contextlib.suppress(ConnectionResetError):
            message = frame(greeting, challenge)
            if message:
                send_frame(connection, message)
            assert connection.recv(1 << 16) == b"", name
    deployment.take_part(1)
    deployment.check(1, range(4))


def test_no_hospital_advertises_for_another(tmp_path):
    """An insider on the path that replays hospital 0's first message as its own does not take its
    place."""
    deployment = Deployment(tmp_path, opening=20.0)
    deployment.serve(1)
    places = [deployment.place(str(one)) for one in (0, 3)]
    round_ = deployment.directory.round(1)
    copied = Hospital(0, load_identity(places[0].key), round_).advertise_keys()
    for message in (copied, b"x"):
        connection, greeting, challenge = greeted(deployment)
        with connection:
            send_frame(connection, hello_of(deployment, 3, greeting, challenge))
            assert receive_frame(connection, 1000, Deadline(20.0)) == b"+"
            send_frame(connection, message)
            with pytest.raises(Refused, match="its own name"):
                listen(connection, 1000, Deadline(20.0))
    deployment.take_part(1)
    deployment.check(1, range(4))


def test_a_crowd_of_strangers_does_not_fill_the_log(tmp_path):
    deployment = Deployment(tmp_path, opening=30.0)
    deployment.serve(1)
    for _ in range(60):
        with socket.create_connection(deployment.address, timeout=20) as stranger:
            stranger.sendall(b"\xff" * 100)
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(1000):
                    pass
    deployment.take_part(1)
    assert 1 <= sum("127.0.0.1" in line for line in deployment.lines) <= 5
    assert deployment.results()[1][0]["refusals"] == []


def test_what_a_quiet_log_leaves_out_it_counts(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    quiet, once = Quiet(lines.append, burst=2, interval=60.0), Once(lines.append, interval=60.0)
    for number in range(10):
        quiet(f"line {number}")
    now[0] = 61.0
    quiet("line 10")
    assert lines == [
        "line 0",
        "line 1",
        "8 more lines like the ones before were left out",
        "line 10",
    ]
    lines.clear()
    for moment in (61.0, 62.0, 130.0):
        now[0] = moment
        once("again")
        once(f"at {moment}")
    assert lines == ["again", "at 61.0", "at 62.0", "again", "at 130.0"]
