"""TLS under the protocol: rounds as without it, and who is kept out."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time

import pytest

from repro.errors import InputError
from repro.secagg.deploy.certificates import self_signed
from repro.secagg.deploy.keystore import write_private
from repro.secagg.transport.tcp_hospital import connect
from repro.secagg.transport.tls import hospital_context, server_context
from repro.secagg.transport.wire import Deadline, send_frame
from tests.secagg.loopback import Loopback, ended
from tests.secagg.test_tcp_hostile import answer_of, drip


class Files:
    """PEM files of the server, a hospital and a stranger, each self-signed."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("server", "hospital", "stranger"):
            certificate, key = self_signed(["127.0.0.1", "localhost"])
            (folder / f"{name}.pem").write_bytes(certificate)
            write_private(folder / f"{name}.key", key)

    def pair(self, name):
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def server(self, mutual=False):
        return server_context(*self.pair("server"), self.pair("hospital")[0] if mutual else None)

    def hospital(self, who=None, trusts="server"):
        return hospital_context(self.pair(trusts)[0], *(self.pair(who) if who else ()))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("dimension", [300, 100_000], ids=["small", "0.4 MB"])
@pytest.mark.parametrize("mutual", [False, True], ids=["server only", "mutual"])
def test_a_round_under_tls(files, mutual, dimension):
    tls = (files.server(mutual), files.hospital("hospital" if mutual else None))
    loopback = Loopback(4, 3, dimension=dimension, tls=tls)
    loopback.join(0, 1, 2, 3)
    loopback.check([0, 1, 2, 3])


def test_nothing_of_a_round_is_in_clear(files):
    """What a hospital sends begins with a TLS record, and bears no envelope."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as plain:
            accepted, _ = listener.accept()
            plain.sendall(b"RSAG")
            assert accepted.recv(4) == b"RSAG"
            accepted.close()
        with pytest.raises(TimeoutError):
            connect(address, timeout=0.3, tls=files.hospital())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(3) == b"\x16\x03\x01"  # a handshake record, RFC 8446, 5.1


@pytest.mark.parametrize("who", [None, "stranger"], ids=["no certificate", "a stranger's"])
def test_mutual_tls_keeps_strangers_out(files, who):
    """Even one that can say hospital 2's ADVERTISE is cut off, and the others are summed."""
    tls = (files.server(True), files.hospital("hospital"))
    loopback = Loopback(3, 2, tls=tls, phase=60.0, opening=3.0)
    advertise = loopback.hospital(2).advertise_keys()
    tls = files.hospital(who)
    with (
        contextlib.suppress(OSError),  # TLS 1.3: the refusal comes after the client's handshake
        connect(loopback.server.address, timeout=10.0, tls=tls) as stranger,
    ):
        send_frame(stranger, advertise, Deadline(5.0))
        assert stranger.recv(1) == b""
    loopback.join(0, 1)
    loopback.check([0, 1])


def test_a_hospital_leaves_a_server_that_another_authority_vouches_for(files):
    loopback = Loopback(3, 2, tls=(files.server(), files.hospital()))
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(loopback.server.address, timeout=10.0, tls=files.hospital(trusts="stranger"))
    loopback.join(0, 1, 2)
    loopback.check([0, 1, 2])


def test_a_certificate_for_another_name_is_refused(files):
    loopback = Loopback(3, 2, tls=(files.server(), files.hospital()))
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(
            loopback.server.address, timeout=10.0, tls=files.hospital(), server_name="elsewhere.org"
        )
    loopback.join(0, 1, 2)
    loopback.check([0, 1, 2])


GREETINGS = {
    "nothing": b"",
    "plain text": b"GET / HTTP/1.1\r\n\r\n",
    "a frame without TLS": struct.pack("<Q", 184) + bytes(184),
    "half a handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", GREETINGS)
def test_who_does_not_finish_the_handshake_is_cut_off(files, name):
    tls = (files.server(), files.hospital())
    loopback = Loopback(3, 2, tls=tls, phase=100.0, introduction=0.5)
    started = time.monotonic()
    with socket.create_connection(loopback.server.address, timeout=10) as stranger:
        stranger.sendall(GREETINGS[name])
        if name != "nothing":
            stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(100):  # an alert, then the end
                pass
        assert time.monotonic() - started < 30
    loopback.join(0, 1, 2)
    loopback.check([0, 1, 2])


@pytest.mark.parametrize("phase", ["share", "masked", "unmask"])
def test_dripping_under_tls_is_cut_off_too(files, phase):
    loopback = Loopback(4, 3, phase=100.0, grace=0.5, tls=(files.server(), files.hospital()))
    started = time.monotonic()
    loopback.join(0, 1, 2)
    connection, hospital, message = loopback.reach(3, phase)
    drip(connection, answer_of(loopback, hospital, phase, message), 60)
    assert ended(connection)
    connection.close()
    loopback.check([0, 1, 2, 3] if phase == "unmask" else [0, 1, 2])
    assert time.monotonic() - started < 60


def test_missing_and_mixed_up_files_are_one_line(files, tmp_path):
    (tmp_path / "empty.pem").write_text("")
    certificate, key = files.pair("server")
    for make in (
        lambda: server_context(tmp_path / "none.pem", key),
        lambda: server_context(certificate, files.pair("stranger")[1]),
        lambda: server_context(tmp_path / "empty.pem", key),
        lambda: server_context(certificate, key, tmp_path / "empty.pem"),
        lambda: hospital_context(tmp_path / "none.pem"),
        lambda: hospital_context(certificate, certificate),
    ):
        with pytest.raises(InputError, match=r"PEM|a certificate and its key") as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("begins", "ends"), [(-9.0, -2.0), (2.0, 9.0)], ids=["expired", "early"])
def test_a_certificate_that_is_not_valid_now_is_refused_at_both_ends(tmp_path, begins, ends):
    """Before anything is opened, not at every handshake. Of several authorities one will do."""
    certificate, key = self_signed(["localhost"], days=ends, begins=begins)
    (tmp_path / "a.pem").write_bytes(certificate)
    write_private(tmp_path / "a.key", key)
    for make in (
        lambda: server_context(tmp_path / "a.pem", tmp_path / "a.key"),
        lambda: hospital_context(tmp_path / "a.pem"),
    ):
        with pytest.raises(InputError, match="valid now"):
            make()
    (tmp_path / "b.pem").write_bytes(certificate + self_signed(["localhost"])[0])
    hospital_context(tmp_path / "b.pem")
