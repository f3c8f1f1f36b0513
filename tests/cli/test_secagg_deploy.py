"""``repro secagg`` keygen, directory, serve, join and audit-log, as a script sees them."""

from __future__ import annotations

import socket
import sys

import numpy as np
import pytest

from repro.cli import main
from repro.cli.secagg import COMMANDS
from repro.errors import InputError
from repro.secagg.deploy.directory import load_directory
from repro.secagg.deploy.keystore import read_public
from repro.secagg.transport.tcp_server import TcpServer
from tests import forked
from tests.cli.commands import ask, refused


def party(key):
    """What a party of ``files`` is started with, in their folder."""
    words = ["--key", key, "--directory", "directory.json", "--operator", "operator.key.pub"]
    return [*words, "--state", "s"]


@pytest.fixture
def files(tmp_path, capsys):
    """Keys of an operator, a server and three hospitals, and their directory."""
    for name in ("operator", "server", "a", "b", "c"):
        tls = ["--tls", "127.0.0.1"] if name == "server" else []
        ask(capsys, "secagg", "keygen", tmp_path / f"{name}.key", *tls)
    words = [tmp_path / "directory.json", "--operator-key", tmp_path / "operator.key"]
    words += ["--server-key", tmp_path / "server.key.pub", "--threshold", 2, "--neighbours", 2]
    words += ["--dimension", 10]
    for one, name in enumerate("abc"):
        words += ["--hospital", f"{one}={tmp_path / name}.key.pub"]
    data = ask(capsys, "secagg", "directory", *words)
    assert (data["serial"], data["hospitals"]) == (1, [0, 1, 2])
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_with_an_example(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main(["secagg", name, "--help"])
    assert ended.value.code == 0
    assert f"  repro secagg {name} " in capsys.readouterr().out


def test_the_simulation_s_help_lists_them(capsys):
    with pytest.raises(SystemExit):
        main(["secagg", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_keygen(capsys, tmp_path):
    data = ask(capsys, "secagg", "keygen", tmp_path / "h.key")
    assert (tmp_path / "h.key.pub").read_text().strip() == data["public"]
    refused(capsys, "secagg", "keygen", tmp_path / "h.key")


def test_rotation_on_the_command_line(capsys, files):
    ask(capsys, "secagg", "keygen", files / "new.key")
    words = ["secagg", "directory", files / "directory.json"]
    words += ["--operator-key", files / "operator.key", "--hospital"]
    data = ask(capsys, *words, f"1={files / 'new.key.pub'}")
    assert (data["serial"], data["revoked"]) == (2, 1)
    assert "revoked" in refused(capsys, *words, f"2={files / 'b.key.pub'}")


def test_a_federation_of_processes(files):
    """One server and three hospitals with the commands of the manual, over TLS: one sum."""
    common = ["--directory", "directory.json", "--operator", "operator.key.pub"]

    def start(*words):
        line = [sys.executable, "-m", "repro", "secagg", *words]
        return forked.Popen(line, cwd=files, stdout=forked.PIPE, stderr=forked.PIPE)

    server = start(
        *("serve", "--key", "server.key", *common, "--state", "s", "--results", "results"),
        *("--port", "0", "--tls-certificate", "server.key.tls.pem"),
        *("--tls-key", "server.key.tls.key", "--rounds", "1", "--opening", "30"),
    )
    processes = [server]
    try:
        line = server.stderr.readline()
        assert line.startswith("listening on 127.0.0.1:")
        train = "import numpy, os; numpy.save('%s.npy', numpy.full(10, %d / 8))"
        for one, name in enumerate("abc"):
            words = ["--vector", f"{name}.npy", "--weight", str(one + 1), "--rounds", "1"]
            command = f'{sys.executable} -c "{train % (name, one)}"'
            processes.append(
                start(
                    *("join", "--server", line.split()[-1], "--key", f"{name}.key", *common),
                    *("--state", f"state-{name}", "--tls-authorities", "server.key.tls.pem"),
                    *("--patience", "60", "--command", command, *words),
                )
            )
        ended = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0, 0, 0], ended
    (path,) = files.glob("results/*/round-000001.npy")
    mean = np.load(path)
    np.testing.assert_allclose(mean, (0 * 1 + 1 * 2 + 2 * 3) / 6 / 8, atol=1e-4)
    assert "taking part as hospital 0" in ended[1][1]
    assert "the sum of 3 hospitals (0 1 2)" in ended[0][1]


BAD = {
    "no TLS": (["serve"], "--no-tls"),
    "no such key": (["serve", "--no-tls", "--key", "none"], "readable file"),
    "another operator": (["serve", "--no-tls", "--operator", "00" * 32], "operator"),
    "half an operator": (["serve", "--no-tls", "--operator", "00"], "64 hexadecimal digits"),
    "a hospital's key": (["serve", "--no-tls", "--key", "a.key"], "server key"),
    "no port": (["join", "--no-tls", "--server", "localhost"], "HOST:PORT"),
    "not listed": (["join", "--no-tls", "--key", "operator.key"], "the directory lists"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line_and_exit_2(capsys, files, monkeypatch, name):
    monkeypatch.chdir(files)
    (command, *more), expected = BAD[name]
    np.save("v.npy", np.zeros(10))
    words = {
        "serve": [*party("server.key"), "--results", "r", "--port", "0"],
        "join": [*party("a.key"), "--vector", "v.npy", "--weight", 1, "--server", "127.0.0.1:9"],
    }
    assert expected in refused(capsys, "secagg", command, *words[command], *more)


def empty(path):
    path.write_bytes(b"")


def archive(path):
    with open(path, "wb") as file:
        np.savez(file, vector=np.zeros(10))


def holding(values):
    return lambda path: np.save(path, values)


VECTORS = {
    "an empty file": (empty, "an .npy file"),
    "an archive": (archive, "not an .npz"),
    "a short vector": (holding(np.zeros(9)), "(10,)"),
    "a matrix": (holding(np.zeros((10, 1))), "(10,)"),
    "integers": (holding(np.zeros(10, int)), "float32"),
    "not a number": (holding(np.full(10, np.nan)), "not finite"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04N."), "an .npy file"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_bad_vector_is_found_before_anything_is_opened(capsys, files, monkeypatch, name):
    """One line and no state folder beside the directory's copy: no log, no counter, no round."""
    monkeypatch.chdir(files)
    write, expected = VECTORS[name]
    write(files / "v.npy")
    words = ["--vector", "v.npy", "--weight", 1, "--server", "127.0.0.1:9", "--no-tls"]
    assert expected in refused(capsys, "secagg", "join", *party("a.key"), *words)
    assert not (files / "s" / "transcript.log").exists()


def expire(files):
    """The server's certificate, of a week that is over."""
    from repro.secagg.deploy.certificates import self_signed

    certificate, key = self_signed(["127.0.0.1"], days=-7.0, begins=-14.0)
    (files / "server.key.tls.pem").write_bytes(certificate)
    (files / "server.key.tls.key").write_bytes(key)


def let_others_read(files):
    (files / "server.key.tls.key").chmod(0o644)


def plain_file(files):
    (files / "r").write_text("")


# What is spoilt, if anything; the option that is bad then; what the refusal names.
OPENED = {
    "a TLS key that others may read": (let_others_read, "", "chmod 600"),
    "an expired certificate": (expire, "", "valid now"),
    "results under a plain file": (plain_file, "--results r/sums", "results"),
    "results that are a plain file": (plain_file, "--results r", "results"),
    "state under a plain file": (plain_file, "--state r/state", "state"),
    "no application": (None, "--application none", "application"),
    "an application that is a folder": (None, "--application .", "application"),
    "an address that is not ours": (None, "--host 192.0.2.1", "address"),
    "a port beyond all": (None, "--port 99999", "port"),
    "no time for a phase": (None, "--phase nan", "phase"),
    "no end of an opening": (None, "--opening inf", "opening"),
    "a negative pause": (None, "--pause -1", "pause"),
    "no rate": (None, "--rate 0", "rate"),
}


@pytest.mark.parametrize("name", OPENED)
def test_what_a_server_needs_is_tried_before_it_listens(capsys, files, monkeypatch, name):
    monkeypatch.chdir(files)
    spoil, more, expected = OPENED[name]
    if spoil is not None:
        spoil(files)
    words = [*party("server.key"), "--results", "results", "--port", "0"]
    words += ["--tls-certificate", "server.key.tls.pem", "--tls-key", "server.key.tls.key"]
    assert expected in refused(capsys, "secagg", "serve", *words, *more.split())


def test_a_quorum_is_set_in_the_directory(capsys, files):
    """As the manual recommends for a committee; a number that cannot be is one line."""
    words = ["secagg", "directory", files / "directory.json", "--new-session"]
    words += ["--operator-key", files / "operator.key", "--quorum"]
    ask(capsys, *words, 3)
    operator = read_public(files / "operator.key.pub")
    round_ = load_directory(files / "directory.json", operator).round(1)
    assert round_.quorum == 3
    assert "quorum" in refused(capsys, *words, 4)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_a_server_listens_on_ipv6():
    """On ``::`` it is reached by both."""
    try:
        server = TcpServer("::", 0)
    except InputError as problem:
        pytest.skip(f"no IPv6 on this machine: {problem}")
    with server:
        port = server.address[1]
        for host in ("::1", "127.0.0.1"):
            socket.create_connection((host, port), timeout=10).close()


def test_an_audit_of_a_changed_log_is_one_line(capsys, files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "bad.log").write_text('{"entry": 0}\n')
    refused(capsys, "secagg", "audit-log", "bad.log")
