"""The protocol over Flower's engine: SuperLink, SuperNodes, apps and hospitals, all processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Contribution, Identity, Refused
from repro.secagg.deploy import flower
from repro.secagg.deploy.agent import ask_agent, run_agent
from repro.secagg.deploy.announcement import Announcement
from repro.secagg.deploy.audit import audit
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.serving import Service, serve_over
from tests.secagg.deploy.federation import DIMENSION, Deployment

BIN = Path(sys.executable).parent


class Reply:
    """As much of a Flower message as the adapter looks at."""

    def __init__(self, node, content):
        self.metadata = type("Metadata", (), {"src_node_id": node})
        self.content = {} if content is None else {"secagg": {"message": content}}
        self.error = content is None

    def has_error(self):
        return self.error


class Grid(flower.FlowerNetwork):
    """The adapter with Flower's grid replaced by direct calls to the hospitals' agents."""

    def __init__(self, agents, opening=5.0, phase=5.0, tamper=lambda node, message: message):
        super().__init__(self, opening, phase)
        self.agents, self.tamper = agents, tamper

    def get_node_ids(self):
        return list(self.agents)

    def _exchange(self, outgoing, phase, round_):
        replies = []
        for node, message in outgoing.items():
            with contextlib.suppress(Refused, OSError):
                answer = ask_agent(self.agents[node], message, 1 << 20)
                replies.append((node, self.tamper(node, answer)))
        return replies


@pytest.fixture
def agents(tmp_path):
    """Four hospitals behind Unix sockets; (deployment, node -> socket, their errors)."""
    deployment, stop = Deployment(tmp_path), threading.Event()
    sockets = {1000 + one: tmp_path / str(one) / "agent" for one in range(4)}

    def run(one):
        run_agent(
            deployment.place(str(one)),
            sockets[1000 + one],
            lambda announced: Contribution(deployment.vector(one, announced.number), one + 1),
            stop=stop.is_set,
            report=deployment.lines.append,
        )

    threads = [threading.Thread(target=run, args=(one,)) for one in range(4)]
    for thread in threads:
        thread.start()
    while not all(path.exists() for path in sockets.values()):
        time.sleep(0.01)
    time.sleep(0.05)
    yield deployment, sockets
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_rounds_through_agents(agents):
    deployment, sockets = agents
    service = Service(deployment.folder / "results", pause=0.01)
    assert serve_over(Grid(sockets).run_round, deployment.place("server"), service, rounds=2) == 2
    deployment.check(1, range(4))
    deployment.check(2, range(4))
    names = ["server", "0", "1", "2", "3"]
    found = audit([deployment.log(name) for name in names])
    assert found.findings == ()
    assert found.compared == found.messages / 2


def test_a_node_that_lies_is_left_out(agents):
    deployment, sockets = agents
    grid = Grid(sockets, tamper=lambda node, message: b"x" * 300 if node == 1003 else message)
    service = Service(deployment.folder / "results", pause=0.01)
    assert serve_over(grid.run_round, deployment.place("server"), service, rounds=1) == 1
    deployment.check(1, range(3))


def test_an_agent_refuses_what_is_out_of_place(agents):
    deployment, sockets = agents
    directory, path = deployment.directory, sockets[1000]
    with pytest.raises(Refused, match="not in"):
        ask_agent(path, b"RSAG" + bytes(200), 1 << 20)
    forged = Announcement(1, directory.session, directory.digest).to_bytes(Identity())
    with pytest.raises(Refused, match="not signed"):
        ask_agent(path, forged, 1 << 20)
    server = load_identity(deployment.folder / "server" / "key")
    announced = Announcement(1, directory.session, directory.digest).to_bytes(server)
    ask_agent(path, announced, 1 << 20)
    with pytest.raises(Refused, match="begun before"):  # nothing twice under one number
        ask_agent(path, announced, 1 << 20)
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_flower_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    with pytest.raises(InputError, match="pip install"):
        flower.client_app()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "secaggdemo"
version = "1.0.0"
description = "Secure aggregation over Flower's network"
license = {{text = "Apache-2.0"}}
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "demo"
[tool.flwr.app.components]
serverapp = "secaggdemo_app:server"
clientapp = "secaggdemo_app:client"
[tool.flwr.app.config]
key = "{folder}/server/key"
directory = "{folder}/directory.json"
operator = "{operator}"
state = "{folder}/server"
results = "{folder}/results"
rounds = 1
opening = 120.0
phase = 120.0
"""
APP = """
from repro.secagg.deploy.flower import client_app, server_app

client = client_app()
server = server_app()
"""


class Engine:
    """Flower's processes, on loopback, for one folder."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        home = folder / "flwr-home"
        home.mkdir()
        self.port = free_port()
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, name, *words):
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            [str(word) for word in words],
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append((process, log))
        return process

    def stop(self):
        for process, log in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            log.close()


@pytest.mark.skipif(
    not shutil.which("flower-superlink", path=str(BIN)),
    reason="flwr is not installed beside this Python: pip install -e '.[flower]' in a checkout",
)
def test_a_round_over_flower_s_engine(tmp_path):
    """SuperLink, three SuperNodes, three hospitals: one sum, audited from both ends."""
    deployment = Deployment(tmp_path, hospitals=3, threshold=2)
    for one in range(3):
        np.save(tmp_path / str(one) / "vector.npy", deployment.vector(one, 1))
    app = tmp_path / "app"
    app.mkdir()
    operator = deployment.operator.public.hex()
    (app / "pyproject.toml").write_text(PROJECT.format(folder=tmp_path, operator=operator))
    (app / "secaggdemo_app.py").write_text(APP)
    engine = Engine(tmp_path)
    common = ["--directory", tmp_path / "directory.json", "--operator", operator]
    try:
        engine.start(
            "superlink",
            *("flower-superlink", "--insecure", "--port", engine.port),
            "--disable-runtime-dependency-installation",
        )
        for one in range(3):
            agent = tmp_path / str(one) / "agent"
            engine.start(
                f"hospital-{one}",
                *(sys.executable, "-m", "repro", "secagg", "join", "--agent", agent),
                *("--key", tmp_path / str(one) / "key", *common, "--state", tmp_path / str(one)),
                *("--vector", tmp_path / str(one) / "vector.npy", "--weight", one + 1),
            )
            engine.start(
                f"supernode-{one}",
                *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{engine.port}"),
                *("--port", free_port(), "--node-config", f'agent="{agent}"'),
            )
        ends = time.monotonic() + 60
        while time.monotonic() < ends:  # until the SuperLink listens
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", engine.port), timeout=1).close()
                break
            time.sleep(0.2)
        submitted = engine.start("run", "flwr", "run", app, "here")
        assert submitted.wait(120) == 0, (tmp_path / "run.log").read_text()
        ends = time.monotonic() + 400
        while not (tmp_path / "results" / ("73" * 4) / "round-000001.json").exists():
            assert time.monotonic() < ends, (tmp_path / "superlink.log").read_text()[-3000:]
            time.sleep(0.5)
    finally:
        engine.stop()
    deployment.check(1, range(3))
    found = audit([deployment.log(name) for name in ("server", "0", "1", "2")])
    assert found.findings == ()
    assert found.compared >= 3 * 10  # five phases and more, both ways
    summary, mean = deployment.results()[1]
    assert summary["excluded"] == {}
    assert len(mean) == DIMENSION
