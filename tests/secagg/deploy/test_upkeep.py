"""What keeps a federation running for years: renewed certificates, health, metrics, a proxy."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from dataclasses import replace

import pytest

from repro.errors import InputError
from repro.secagg.deploy.certificates import self_signed
from repro.secagg.deploy.joining import Server, join
from repro.secagg.deploy.keystore import write_private
from repro.secagg.deploy.monitoring import FAILED_IN_A_ROW, Monitor, serve_pages
from repro.secagg.transport.following import FollowedContext
from repro.secagg.transport.tls import hospital_context, server_context
from tests.secagg.deploy.federation import Deployment


class Certificate:
    """The server's, self-signed, in a folder of its own."""

    def __init__(self, folder):
        self.certificate, self.key = folder / "tls.pem", folder / "tls.key"
        self.lines = []

    def renew(self, days=365.0):
        certificate, key = self_signed(["127.0.0.1", "localhost"], days)
        self.key.unlink(missing_ok=True)
        write_private(self.key, key)
        self.certificate.write_bytes(certificate)

    def server(self):
        files = self.certificate, self.key
        return FollowedContext(lambda: server_context(*files), files, self.lines.append)

    def hospital(self):
        file = self.certificate
        return FollowedContext(lambda: hospital_context(file), [file], self.lines.append)


@pytest.fixture
def certificate(tmp_path):
    found = Certificate(tmp_path)
    found.renew()
    return found


def handshake(server, hospital):
    """Serial number of what the server showed; OSError if the hospital will not have it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        served = threading.Thread(
            target=lambda: server.wrap_socket(theirs, server_side=True).close()
        )
        served.start()
        try:
            with hospital.wrap_socket(ours, server_hostname="127.0.0.1") as connection:
                return connection.getpeercert()["serialNumber"]
        finally:
            served.join(10)


def test_a_renewed_certificate_is_taken_up_at_the_next_connection(certificate):
    server, hospital = certificate.server(), certificate.hospital()
    first = handshake(server, hospital)
    assert handshake(server, hospital) == first
    certificate.renew()
    second = handshake(server, hospital)
    assert second != first
    assert certificate.lines == ["new certificates are in use"] * 2


def test_half_copied_files_leave_the_certificate_before_in_use(certificate):
    """Said once a minute, not at each connection; and mended files are taken without a restart."""
    server, hospital = certificate.server(), certificate.hospital()
    first, whole = handshake(server, hospital), certificate.certificate.read_bytes()
    certificate.certificate.write_bytes(whole[:200])
    assert handshake(server, hospital) == handshake(server, hospital) == first
    assert len(certificate.lines) == 2  # of the server and of the hospital
    assert all("the certificates before stay in use" in line for line in certificate.lines)
    certificate.certificate.unlink()
    assert handshake(server, hospital) == first
    certificate.renew()
    assert handshake(server, hospital) != first


def test_a_certificate_that_expires_within_30_days_is_announced(certificate):
    certificate.renew(days=31.0)
    certificate.server()
    assert certificate.lines == []
    certificate.renew(days=9.5)
    certificate.server()
    (line,) = certificate.lines
    assert f"{certificate.certificate} expires in 9 days, on 20" in line


def ask(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def metric(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"repro_secagg_{name} ")]
    return float(line.split()[-1])


def test_health_and_metrics_of_rounds_as_they_are_held(tmp_path):
    monitors = {name: Monitor() for name in ("server", "0")}
    pages = serve_pages(monitors["server"], "127.0.0.1", 0)
    deployment = Deployment(tmp_path)
    place = deployment.place("server", watch=monitors["server"])
    deployment.serve(2, place=place)
    for one in range(4):
        more = {"place": deployment.place("0", watch=monitors["0"])} if one == 0 else {}
        deployment.join(one, 2, **more)
    deployment.finish()
    status, said = ask(pages, "/health")
    assert status == 200
    assert json.loads(said)["status"] == "ok"
    status, text = ask(pages, "/metrics")
    assert status == 200
    assert metric(text, "round") == 2
    assert metric(text, "survivors") == 4
    assert metric(text, 'events_total{event="sum"}') == 2
    assert metric(text, 'messages_total{phase="masked",way="received"}') == 8
    # Of both ends: what hospital 0 says it sent is a quarter of what the server received.
    sent = metric(monitors["0"].metrics(), 'bytes_total{phase="masked",way="sent"}')
    assert 4 * sent == metric(text, 'bytes_total{phase="masked",way="received"}')
    assert ask(pages, "/state")[0] == 404
    pages.shutdown()
    pages.server_close()


def test_health_fails_after_rounds_that_fail_and_recovers_with_a_sum():
    monitor = Monitor()
    for number in range(FAILED_IN_A_ROW):
        assert monitor.health()[0]
        monitor("begun", {"round": number})
        monitor("failed", {"round": number, "reason": "too few"})
    pages = serve_pages(monitor, "127.0.0.1", 0)
    assert ask(pages, "/health")[0] == 503
    monitor("sum", {"round": 4, "survivors": [0, 1]})
    assert ask(pages, "/health")[0] == 200
    with pytest.raises(InputError, match="a free address"):
        serve_pages(monitor, "127.0.0.1", pages.server_port)
    pages.shutdown()
    pages.server_close()


class Proxy:
    """An HTTP proxy that takes CONNECT to one address; what it was asked for, what it passed on."""

    def __init__(self, refuses=False):
        self.refuses, self.asked, self.seen = refuses, [], bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(1)
        _, where, _ = request.split(b" ", 2)
        self.asked.append(where.decode())
        if self.refuses:
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        host, port = where.decode().rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    def _pump(self, source, sink):
        try:
            while piece := source.recv(65536):
                self.seen += piece
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


def test_hospitals_behind_a_proxy_take_part_and_it_sees_no_message(tmp_path, certificate):
    deployment, proxy = Deployment(tmp_path / "federation"), Proxy()
    deployment.serve(1, tls=certificate.server())
    through = {"tls": certificate.hospital(), "proxy": proxy.address}
    for one in range(4):
        deployment.join(one, 1, **through)
    deployment.finish()
    assert set(proxy.asked) == {"{}:{}".format(*deployment.address)}
    assert len(proxy.asked) >= 4
    assert b"RSAG" not in proxy.seen  # the envelope that every message begins with


def test_a_proxy_that_refuses_is_said_and_no_tls_behind_one_is_refused(tmp_path, certificate):
    proxy, lines = Proxy(refuses=True), []
    deployment = Deployment(tmp_path / "federation")
    server = Server("127.0.0.1", 1, certificate.hospital(), proxy=proxy.address)
    with pytest.raises(TimeoutError):
        join(
            deployment.place("0"), server, lambda announced: None, patience=0.5, report=lines.append
        )
    assert "403" in " ".join(lines)
    with pytest.raises(InputError, match="TLS to the server"):
        replace(server, tls=None)
