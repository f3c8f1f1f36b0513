"""A TCP server in a thread, honest hospitals in threads, and room for an attacker."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial

import numpy as np

from repro.secagg import Hospital, Refused, RoundFailed
from repro.secagg.messages import max_message_bytes
from repro.secagg.rounds import PHASES
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.tcp_hospital import connect, take_part
from repro.secagg.transport.tcp_server import TcpServer
from repro.secagg.transport.wire import receive_frame, send_frame
from tests.secagg.parties import field_sum, make_round

DIMENSION = 300


def vector_of(hospital, dimension=DIMENSION):
    """A hospital's vector, made in its own process (so this is a picklable function)."""
    return np.random.default_rng(hospital).integers(0, 2**31 - 1, dimension).astype("<u4")


def expected(round_, members, dimension=DIMENSION):
    return field_sum(round_, {one: vector_of(one, dimension) for one in members}, members)


class Loopback:
    """A TCP server in a thread, honest hospitals in threads, and room for an attacker."""

    def __init__(self, hospitals=3, threshold=2, dimension=DIMENSION, tls=(None, None), **options):
        """tls: contexts of the server and of the hospitals; options: of ``Limits``."""
        self.tls = tls[1]
        self.party, self.round = make_round(hospitals, threshold, dimension=dimension)
        self.server = TcpServer(limits=Limits(**options), tls=tls[0])
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
            take_part(self.server.address, self.hospital(one), vector, timeout=60.0, tls=self.tls)

    def connect(self) -> socket.socket:
        return connect(self.server.address, timeout=30.0, tls=self.tls)

    def reach(self, one: int, phase: str):
        """(connection, hospital, message to answer) of one that has played honestly so far."""
        hospital, connection = self.hospital(one), self.connect()
        limit = max_message_bytes(self.round)
        if phase != "advertise":
            send_frame(connection, hospital.advertise_keys())
            for _ in PHASES[1 : PHASES.index(phase)]:
                message = receive_frame(connection, limit)
                vector = partial(vector_of, one, self.dimension)
                send_frame(connection, hospital.answer(message, vector))
        message = receive_frame(connection, limit) if phase != "advertise" else b""
        return connection, hospital, message

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


def advertised(loopback, one):
    """A connection on which hospital ``one`` has advertised, and the hospital."""
    hospital, connection = loopback.hospital(one), loopback.connect()
    send_frame(connection, hospital.advertise_keys())
    return hospital, connection
