"""The download is whole and right, or it leaves nothing. A server on 127.0.0.1; no network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from repro.data import BLOODMNIST
from repro.data.download import DownloadFailed, download

CONTENT = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextlib.contextmanager
def serving(content: bytes, *, claim: int | None = None, status: int = 200):
    """An entry whose address serves ``content`` (claiming ``claim`` bytes), md5 of CONTENT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if claim is None else claim))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield entry_at(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entry_at(port: int):
    md5 = hashlib.md5(CONTENT).hexdigest()
    return dataclasses.replace(BLOODMNIST, url=f"http://127.0.0.1:{port}/b.npz", md5=md5)


def test_right_file_arrives_whole_and_alone(tmp_path):
    target = tmp_path / "home" / ".medmnist" / "bloodmnist.npz"
    with serving(CONTENT) as entry:
        download(entry, target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ({"content": CONTENT[:-1] + b"x"}, "md5"),
        ({"content": b"<html>please log in</html>"}, "md5"),
        ({"content": CONTENT[:1000], "claim": len(CONTENT)}, "md5|IncompleteRead"),
        ({"content": CONTENT, "status": 404}, "Not Found"),
    ],
    ids=["wrong md5", "login page", "connection lost", "404"],
)
def test_wrong_answer_leaves_nothing(served, reason, tmp_path):
    with serving(**served) as entry, pytest.raises(DownloadFailed, match=reason):
        download(entry, tmp_path / "home" / ".medmnist" / "bloodmnist.npz")
    assert list(tmp_path.iterdir()) == []


def test_wrong_answer_keeps_what_was_there(tmp_path):
    """A failed download never harms a file or a folder that it did not make."""
    target = tmp_path / "bloodmnist.npz"
    target.write_bytes(b"older")
    with serving(b"no") as entry, pytest.raises(DownloadFailed):
        download(entry, target)
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    """Ctrl-C between the last byte and the rename."""

    def interrupt(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr("repro.data.download.os.replace", interrupt)
    with serving(CONTENT) as entry, pytest.raises(KeyboardInterrupt):
        download(entry, tmp_path / "home" / "bloodmnist.npz")
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path):
    """A closed port, and one that accepts and stays silent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        entry = entry_at(listener.getsockname()[1])
        with pytest.raises(DownloadFailed, match="refused"):
            download(entry, tmp_path / "x" / "b.npz")
        listener.listen()
        with pytest.raises(DownloadFailed, match="timed out"):
            download(entry, tmp_path / "x" / "b.npz", timeout=0.2)
    assert list(tmp_path.iterdir()) == []
