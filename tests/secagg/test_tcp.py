"""Real sockets and processes: kill -9, garbage, oversized frames, half-open connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from functools import partial

import numpy as np
import pytest

from repro.secagg import Hospital, Refused, RoundFailed
from repro.secagg.messages import ADVERTISE_BYTES, Kind, max_message_bytes, wrap
from repro.secagg.rounds import PHASES
from repro.secagg.transport.loopback import run_on_loopback
from repro.secagg.transport.tcp_hospital import take_part
from repro.secagg.transport.tcp_server import TcpServer
from repro.secagg.transport.wire import receive_frame, send_frame
from tests.secagg.parties import field_sum, field_vectors, make_round

DIMENSION = 300


def vector_of(hospital, dimension=DIMENSION):
    """A hospital's vector, made in its own process (so this is a picklable function)."""
    return np.random.default_rng(hospital).integers(0, 2**31 - 1, dimension).astype("<u4")


def expected(round_, members, dimension=DIMENSION):
    return field_sum(round_, {one: vector_of(one, dimension) for one in members}, members)


@pytest.mark.parametrize(
    ("phase", "moment"),
    [(phase, "before") for phase in PHASES[1:]] + [("masked", "after"), ("unmask", "after")],
)
def test_a_killed_process_does_not_stop_the_round(phase, moment):
    """SIGKILL in each phase: the sum of those whose masked input arrived, and no time-out
    is waited for (the phase time-out is far above what the test may take)."""
    party, round_ = make_round(4, 3, dimension=DIMENSION)
    started = time.monotonic()
    result = run_on_loopback(party, round_, vector_of, dies={2: (phase, moment)}, timeout=300.0)
    assert time.monotonic() - started < 200
    in_sum = PHASES.index(phase) > PHASES.index("masked") or (phase, moment) == ("masked", "after")
    assert result.survivors == ((0, 1, 2, 3) if in_sum else (0, 1, 3))
    np.testing.assert_array_equal(result.total, expected(round_, result.survivors))


def test_killed_before_the_first_message():
    """One that never advertises is waited for until the time-out, then the round goes on."""
    party, round_ = make_round(4, 3, dimension=DIMENSION)
    result = run_on_loopback(party, round_, vector_of, drop={"advertise": {1}}, timeout=15.0)
    assert result.survivors == (0, 2, 3)
    np.testing.assert_array_equal(result.total, expected(round_, [0, 2, 3]))


def test_below_threshold_over_the_wire():
    """Two of four killed in the same phase: a clear failure, and every process ends."""
    party, round_ = make_round(4, 3, dimension=DIMENSION)
    with pytest.raises(RoundFailed, match="masked: 2 hospitals left"):
        run_on_loopback(party, round_, vector_of, drop={"masked": {0, 3}}, timeout=300.0)


class Loopback:
    """A TCP server in a thread, honest hospitals in threads, and room for an attacker."""

    def __init__(self, hospitals=3, threshold=2, dimension=DIMENSION, **options):
        self.party, self.round = make_round(hospitals, threshold, dimension=dimension)
        self.server = TcpServer(**{"timeout": 60.0, **options})
        self.dimension = dimension
        self.result = self.error = None
        self.threads = [threading.Thread(target=self._serve)]
        self.threads[0].start()

    def _serve(self):
        try:
            self.result = self.server.run_round(self.party.server, self.round)
        except RoundFailed as failure:
            self.error = failure

    def hospital(self, one):
        return Hospital(one, self.party.hospitals[one], self.round)

    def join(self, *ids):
        for one in ids:
            vector = partial(vector_of, one, self.dimension)
            thread = threading.Thread(target=self._take_part, args=(one, vector))
            self.threads.append(thread)
            thread.start()

    def _take_part(self, one, vector):
        with contextlib.suppress(Refused, OSError):
            take_part(self.server.address, self.hospital(one), vector, timeout=60.0)

    def connect(self):
        return socket.create_connection(self.server.address, timeout=30.0)

    def finish(self):
        for thread in self.threads:
            thread.join(timeout=100.0)
            assert not thread.is_alive()
        self.server.close()
        if self.error:
            raise self.error
        return self.result

    def check(self, members):
        result = self.finish()
        assert result.survivors == tuple(members)
        np.testing.assert_array_equal(result.total, expected(self.round, members, self.dimension))


def ended(connection):
    """The server closes the connection (rather than waiting on it)."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


ATTACKS = {
    "random bytes": np.random.default_rng(0).bytes(5000),
    "oversized frame": struct.pack("<Q", 2**63) + b"x" * 100,
    "one byte too many": struct.pack("<Q", ADVERTISE_BYTES + 1) + b"x" * (ADVERTISE_BYTES + 1),
    "empty frame": struct.pack("<Q", 0),
    "garbage of the right length": struct.pack("<Q", ADVERTISE_BYTES) + b"x" * ADVERTISE_BYTES,
    "an http request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_garbage_from_a_stranger_costs_only_its_connection(name):
    loopback = Loopback()
    with loopback.connect() as stranger:
        stranger.sendall(ATTACKS[name])
        assert ended(stranger)
    loopback.join(0, 1, 2)
    loopback.check([0, 1, 2])


def test_half_open_connections_do_not_hold_the_round_up():
    """Silent peers, half a header, half a frame: the round is done long before any time-out,
    and they are disconnected when the advertising ends."""
    loopback = Loopback(timeout=300.0)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(loopback.connect()) for _ in range(21)]
        for peer, sent in zip(
            peers, [b"", b"\x01\x02", struct.pack("<Q", 184) + b"x"] * 7, strict=True
        ):
            peer.sendall(sent)
        started = time.monotonic()
        loopback.join(0, 1, 2)
        loopback.check([0, 1, 2])
        assert time.monotonic() - started < 100
        assert all(ended(peer) for peer in peers)


def advertised(loopback, one):
    """A connection on which hospital ``one`` has advertised, and the hospital."""
    hospital, connection = loopback.hospital(one), loopback.connect()
    send_frame(connection, hospital.advertise_keys())
    return hospital, connection


@pytest.mark.parametrize("attack", ["oversized", "garbage", "flood", "another round", "double"])
def test_a_hospital_that_misbehaves_later_is_the_only_one_lost(attack):
    loopback = Loopback(timeout=6.0)  # what a hospital that falls silent costs
    hospital, connection = advertised(loopback, 2)
    loopback.join(0, 1)
    limit = max_message_bytes(loopback.round)
    with connection:
        message = receive_frame(connection, limit)
        share = hospital.share_keys(message)
        _, other = make_round(3, 2)
        frames = {
            "oversized": struct.pack("<Q", limit + 1),
            "garbage": struct.pack("<Q", 200) + b"x" * 200,
            "flood": (struct.pack("<Q", 1) + b"x") * 5000,
            "another round": None,
            "double": None,
        }[attack]
        with contextlib.suppress(OSError):
            if frames:
                connection.sendall(frames)
            elif attack == "double":
                send_frame(connection, share)
                send_frame(connection, share)
            else:
                identity = loopback.party.hospitals[2]
                send_frame(connection, wrap(Kind.SHARE, 2, other, identity, b""))
        if attack in ("garbage", "another round"):
            connection.close()
        loopback.check([0, 1])


def test_a_stalled_large_frame_gives_way():
    """Large frames are read one at a time; one that stops half-way is cut off after ``stall``
    seconds and the others get their turn."""
    dimension = 400_000  # 1.6 MB, above SMALL_FRAME
    loopback = Loopback(dimension=dimension, timeout=120.0, stall=0.5)
    hospital, connection = advertised(loopback, 0)
    loopback.join(1, 2)
    with connection:
        limit = max_message_bytes(loopback.round)
        send_frame(connection, hospital.share_keys(receive_frame(connection, limit)))
        delivery = receive_frame(connection, limit)
        message = hospital.masked_input(delivery, vector_of(0, dimension))
        connection.sendall(struct.pack("<Q", len(message)) + message[:100_000])
        loopback.check([1, 2])


def test_late_comers_are_turned_away():
    """Who connects after the advertising is disconnected at once."""
    loopback = Loopback(timeout=20.0)
    connections = [advertised(loopback, one) for one in range(3)]
    with contextlib.ExitStack() as stack:
        for _, connection in connections:
            stack.enter_context(connection)
        limit = max_message_bytes(loopback.round)
        receive_frame(connections[0][1], limit)
        with loopback.connect() as late:
            assert ended(late)
        for _, connection in connections:
            connection.close()
    with pytest.raises(RoundFailed, match="share: 0 hospitals left"):
        loopback.finish()


def test_the_server_holds_rounds_one_after_another():
    """After a failed round the same listener serves the next one."""
    with TcpServer(timeout=0.2) as server:
        party, round_ = make_round(3, 2, dimension=DIMENSION)
        with pytest.raises(RoundFailed):
            server.run_round(party.server, round_)
        server.timeout = 60
        _, second = make_round(3, 2, dimension=DIMENSION, party=party, number=2)
        threads = [
            threading.Thread(
                target=take_part,
                args=(server.address, Hospital(one, party.hospitals[one], second)),
                kwargs={"vector": partial(vector_of, one)},
            )
            for one in range(3)
        ]
        for thread in threads:
            thread.start()
        result = server.run_round(party.server, second)
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(result.total, expected(second, range(3)))


def test_a_hospital_refuses_an_oversized_frame_from_the_server():
    party, round_ = make_round(3, 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def lie():
            connection, _ = listener.accept()
            with connection:
                receive_frame(connection, 10_000)
                connection.sendall(struct.pack("<Q", 2**40))

        thread = threading.Thread(target=lie)
        thread.start()
        vector = field_vectors(round_)[0]
        hospital = Hospital(0, party.hospitals[0], round_)
        with pytest.raises(Refused):
            take_part(listener.getsockname(), hospital, lambda: vector, timeout=30.0)
        thread.join()
