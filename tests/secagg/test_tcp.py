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
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.loopback import run_on_loopback
from repro.secagg.transport.tcp_hospital import take_part
from repro.secagg.transport.tcp_server import TcpServer
from repro.secagg.transport.wire import receive_frame, send_frame
from tests.secagg.loopback import DIMENSION, Loopback, advertised, ended, expected, vector_of
from tests.secagg.parties import field_vectors, make_round


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
    loopback = Loopback(phase=300.0)
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


@pytest.mark.parametrize("attack", ["flood", "another round", "double"])
def test_a_hospital_that_misbehaves_later_is_the_only_one_lost(attack):
    loopback = Loopback(phase=6.0)  # what a hospital that falls silent costs
    hospital, connection = advertised(loopback, 2)
    loopback.join(0, 1)
    limit = max_message_bytes(loopback.round)
    with connection:
        message = receive_frame(connection, limit)
        share = hospital.share_keys(message)
        _, other = make_round(3, 2)
        with contextlib.suppress(OSError):
            if attack == "flood":
                connection.sendall((struct.pack("<Q", 1) + b"x") * 5000)
            elif attack == "double":
                send_frame(connection, share)
                send_frame(connection, share)
            else:
                identity = loopback.party.hospitals[2]
                send_frame(connection, wrap(Kind.SHARE, 2, other, identity, b""))
        if attack == "another round":
            connection.close()
        loopback.check([0, 1])


def test_a_stalled_large_frame_gives_way():
    """One that stops half-way is below the minimum rate as soon as its grace is over."""
    dimension = 100_000  # 0.4 MB
    loopback = Loopback(dimension=dimension, phase=120.0, grace=0.5, rate=1e6)
    loopback.join(1, 2)
    connection, hospital, sharers = loopback.reach(0, "masked")
    with connection:
        message = hospital.masked_input(sharers, vector_of(0, dimension))
        connection.sendall(struct.pack("<Q", len(message)) + message[:100_000])
        loopback.check([1, 2])


def test_late_comers_are_turned_away():
    """Who connects after the advertising is disconnected at once."""
    loopback = Loopback(phase=20.0)
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
    with TcpServer(limits=Limits(phase=0.2)) as server:
        party, round_ = make_round(3, 2, dimension=DIMENSION)
        with pytest.raises(RoundFailed):
            server.run_round(party.server, round_)
        server.limits = Limits(phase=60.0)
        _, second = make_round(3, 2, dimension=DIMENSION, party=party)
        threads = [
            threading.Thread(
                target=take_part,
                args=(server.address, Hospital(one, party.hospitals[one], second)),
                kwargs={"contribution": partial(vector_of, one)},
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
