"""Peers that are slow, silent, many or greedy: each costs itself, and the round is honest.

Phases may take 100 s here, so a round that is over in a few did not wait for the attacker.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Hospital, Identity, RoundFailed
from repro.secagg.messages import Kind, frame_limit, wrap
from repro.secagg.rounds import PHASES
from repro.secagg.transport import limits as limits_module
from repro.secagg.transport.limits import Limits, buffer_bytes
from repro.secagg.transport.peers import Peers
from repro.secagg.transport.tcp_hospital import take_part
from repro.secagg.transport.tcp_server import TcpServer
from repro.secagg.transport.wire import Deadline, receive_frame, send_frame
from tests import forked
from tests.secagg.loopback import Loopback, ended, expected, vector_of
from tests.secagg.parties import Stage, make_round

IN_SUM = dict.fromkeys(PHASES, False) | {"consistency": True, "unmask": True}


def members(phase):
    return [0, 1, 2, 3] if IN_SUM[phase] else [0, 1, 2]


def answer_of(loopback, hospital, phase, message):
    """What an honest hospital 3 would send now, framed."""
    if phase == "advertise":
        answer = bytes(hospital.advertise_keys())
    else:
        answer = bytes(hospital.answer(message, lambda: vector_of(3, loopback.dimension)))
    return struct.pack("<Q", len(answer)) + answer


def drip(connection, frame, first):
    """``first`` bytes, then one every 50 ms until the connection is cut."""
    with contextlib.suppress(OSError):
        connection.sendall(frame[:first])
        for byte in frame[first:]:
            time.sleep(0.05)
            connection.sendall(bytes([byte]))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("first", [0, 60], ids=["from the header on", "in the message"])
def test_a_dripping_peer_is_cut_off_in_every_phase(phase, first):
    opening = 6.0 if phase == "advertise" else None  # who never advertises is waited for that long
    loopback = Loopback(4, 3, phase=100.0, introduction=1.0, grace=0.5, opening=opening)
    started = time.monotonic()
    loopback.join(0, 1, 2)
    connection, hospital, message = loopback.reach(3, phase)
    drip(connection, answer_of(loopback, hospital, phase, message), first)
    connection.close()
    loopback.check(members(phase))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_refused_peer_is_no_longer_awaited(phase):
    """It keeps its connection open and says nothing more; nobody waits for it."""
    loopback = Loopback(4, 3, phase=100.0)
    started = time.monotonic()
    loopback.join(0, 1, 2)
    connection, _, _ = loopback.reach(3, phase)
    with connection:
        identity = loopback.party.hospitals[3]
        send_frame(connection, wrap(Kind[phase.upper()], 3, loopback.round, identity, b"wrong"))
        loopback.check(members(phase))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_phase_takes_no_longer_message_than_its_own(phase):
    """Also where another phase's would be thousands of times as long; and nobody is awaited
    who has answered, so its second message is refused by its header alone."""
    loopback = Loopback(4, 3, dimension=100_000, phase=100.0)
    loopback.join(0, 1, 2)
    connection, _, _ = loopback.reach(3, phase)
    with connection:
        connection.sendall(struct.pack("<Q", frame_limit(phase, loopback.round) + 1))
        assert ended(connection)
    loopback.check(members(phase))


@pytest.mark.parametrize(("hospitals", "neighbours"), [(2, 1), (4, 3), (9, 4), (20, 6)])
def test_frame_limits_are_what_an_honest_hospital_sends_at_most(hospitals, neighbours):
    """Exactly, at full attendance: no byte of room is left for a liar."""
    stage = Stage(hospitals, neighbours // 2 + 1, neighbours=neighbours)
    stage.play()
    for phase in PHASES:
        longest = max(map(len, stage.sent[phase].values()))
        if phase in ("verify", "masked"):  # complaints, of which there are none here
            assert longest <= frame_limit(phase, stage.round)
        else:
            assert longest == frame_limit(phase, stage.round)


def test_near_complete_frames_share_one_buffer():
    """Thirty hospitals stop one byte before the end of a message of a megabyte: the server
    keeps as many as its buffer has room for, and the phase's end is the round's."""
    count, dimension = 30, 260_000
    loopback = Loopback(count, count // 2 + 1, dimension=dimension, phase=6.0, turn=60.0)
    length = frame_limit("masked", loopback.round)
    assert length > 1_000_000
    stop, reached, held = threading.Event(), threading.Barrier(count + 1), []

    def greedy(one):
        connection, _, _ = loopback.reach(one, "masked")
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            reached.wait(60)
            connection.sendall(struct.pack("<Q", length) + bytes(length - 1))
            stop.wait(60)

    threads = [threading.Thread(target=greedy, args=(one,)) for one in range(count)]
    for thread in threads:
        thread.start()
    reached.wait(60)
    for _ in range(15):
        time.sleep(0.1)
        held.append(sum(len(peer.reader._body or b"") for peer in loopback.server._peers))
    stop.set()
    for thread in threads:
        thread.join(60)
    assert 2 * length <= max(held) <= buffer_bytes(length) < count * length / 3
    with pytest.raises(RoundFailed, match="masked: 0 hospitals left"):
        loopback.finish()


def test_frames_that_hold_the_buffer_give_way_to_those_that_wait(monkeypatch):
    """Four of nine keep the whole buffer with frames that never end, none below the minimum
    rate; their turn ends, and the other five are summed."""
    monkeypatch.setattr(limits_module, "_BUFFER_BYTES", 0)  # so four frames fill the buffer
    loopback = Loopback(9, 5, dimension=20_000, phase=6.0, turn=0.5, grace=90.0)
    length = frame_limit("masked", loopback.round)
    assert buffer_bytes(length) == 4 * length
    loopback.join(0, 1, 2, 3, 4)
    with contextlib.ExitStack() as stack:

        def hold(one):
            connection, _, _ = loopback.reach(one, "masked")
            stack.enter_context(connection)
            connection.sendall(struct.pack("<Q", length) + b"x" * 9)

        threads = [threading.Thread(target=hold, args=(one,)) for one in range(5, 9)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        loopback.check([0, 1, 2, 3, 4])
        assert time.monotonic() - started < 60


@pytest.mark.parametrize("introduction", [60.0, 1.0], ids=["by eviction", "by the clock"])
def test_silent_strangers_do_not_keep_hospitals_out(introduction):
    """Sixty-four connections on which nothing is said, where sixteen may be held."""
    loopback = Loopback(3, 2, phase=100.0, introduction=introduction, peers=16)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(loopback.connect()) for _ in range(64)]
        if introduction < 60:
            assert all(ended(stranger) for stranger in strangers)
        started = time.monotonic()
        loopback.join(0, 1, 2)
        loopback.check([0, 1, 2])
        assert time.monotonic() - started < 50
        assert all(ended(stranger) for stranger in strangers)


def test_the_crowd_that_comes_from_one_host_is_evicted_first():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        peers = Peers(listener, Limits(peers=6))
        peers.accepting, peers.capacity = True, 6
        with contextlib.ExitStack() as stack:
            alone = stack.enter_context(socket.create_connection(address, timeout=10))
            for _ in range(20):
                crowd = socket.create_connection(address, 10, source_address=("127.0.0.2", 0))
                stack.enter_context(crowd)
                list(peers.poll(0.05))
            assert len(list(peers)) == 6
            alone.settimeout(0.05)
            with pytest.raises(TimeoutError):  # still connected
                alone.recv(1)
        peers.shut_down()


def serve_with_few_descriptors(pipe, secret, round_, miscounted):
    """In a process of its own: a round with 64 descriptors, and what it cost."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    if miscounted:  # as if other threads had opened files meanwhile
        limits_module._descriptors_in_use = lambda: -100
    with TcpServer(limits=Limits(phase=60.0)) as server:
        pipe.send(server.address)
        spent = time.process_time()
        result = server.run_round(Identity(lambda _: secret), round_)
        pipe.send((result.survivors, result.total, time.process_time() - spent))


@pytest.mark.parametrize("miscounted", [False, True], ids=["counted", "used up meanwhile"])
def test_exhausted_descriptors_end_an_honest_round(miscounted):
    """120 strangers against 64 descriptors: hospitals get in, and the server does not spin."""
    party, round_ = make_round(3, 2, dimension=300)
    context = forked.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, party.server.secret, round_, miscounted)
    process = context.Process(target=serve_with_few_descriptors, args=arguments, daemon=True)
    process.start()
    try:
        assert ours.poll(60)
        address = ours.recv()
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(socket.create_connection(address, timeout=10))
            time.sleep(1.0)
            for one in range(3):
                hospital = Hospital(one, party.hospitals[one], round_)
                vector = vector_of(one)
                threading.Thread(
                    target=take_part, args=(address, hospital, lambda vector=vector: vector)
                ).start()
            assert ours.poll(30)
            survivors, total, seconds = ours.recv()
    finally:
        process.join(10)
        process.kill()
    assert survivors == (0, 1, 2)
    np.testing.assert_array_equal(total, expected(round_, [0, 1, 2]))
    assert seconds < 1.5


def test_too_few_descriptors_for_the_roster_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(limits_module, "descriptor_limit", lambda: 40)
    party, round_ = make_round(60, 31)
    with TcpServer() as server, pytest.raises(InputError, match="ulimit -n"):
        server.run_round(party.server, round_)


def test_a_hospital_waits_once_for_a_whole_message():
    """A server that drips a byte every 0.3 s is left after the time-out, not after each byte."""
    party, round_ = make_round(3, 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def lie():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                receive_frame(connection, 10_000)
                connection.sendall(struct.pack("<Q", 200))
                for _ in range(40):
                    time.sleep(0.3)
                    connection.sendall(b"x")

        thread = threading.Thread(target=lie)
        thread.start()
        hospital = Hospital(0, party.hospitals[0], round_)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            take_part(listener.getsockname(), hospital, lambda: None, timeout=1.0)
        assert 0.9 < time.monotonic() - started < 6  # forty bytes would take 12 s
        thread.join(30)


def test_a_hospital_sends_to_nobody_who_will_not_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stop = threading.Event()

        def sip():
            while not stop.is_set():
                theirs.recv(1000)
                time.sleep(0.05)

        thread = threading.Thread(target=sip)
        thread.start()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send_frame(ours, bytes(10_000_000), Deadline(0.5))
        assert time.monotonic() - started < 10
        stop.set()
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(30)


def test_limits_are_checked():
    with pytest.raises(InputError, match="grace"):
        Limits(grace=0.0)
    with pytest.raises(InputError, match="peers"):
        Limits(peers=0)
