"""``docker compose up`` as far as a machine without Docker lets: its commands, from its files."""

from __future__ import annotations

import json
import re
import shlex
import socket
from pathlib import Path

import numpy as np

from repro.cli import main
from tests.federated.deploy.trial import process

FILES = Path(__file__).parents[3] / "deploy"
PARTIES = ("server", "hospital-0", "hospital-1", "hospital-2")


def service(name):
    """Its part of the file. The file is written so that each list and pair is a line."""
    text = (FILES / "compose.yaml").read_text(encoding="utf-8")
    return re.search(rf"^  {name}:\n((?:    .*\n)+)", text, re.MULTILINE)[1]


def command(name):
    return json.loads(re.search(r"^    command: (.*)$", service(name), re.MULTILINE)[1])


def environment():
    lines = re.findall(r"^      ([A-Z]+): (\S+)$", service("prepare"), re.MULTILINE)
    return dict(lines) | {"HOST": "127.0.0.1"}


def prepare():
    """The lines of ``prepare.sh``, in this process."""
    given = environment()
    for line in (FILES / "prepare.sh").read_text(encoding="utf-8").splitlines():
        words = [
            re.sub(r"\$([A-Z]+)", lambda found: given[found[1]], one) for one in shlex.split(line)
        ]
        if words[:1] == ["repro"]:
            assert main(words[1:]) == 0
        elif words[:1] == ["printf"]:
            text = words[1].replace("\\n", "\n").replace("%s", words[2])
            Path(words[-1]).write_text(text, encoding="utf-8")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_server_and_three_hospitals_train_by_the_commands_of_the_compose_file(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    prepare()
    port, monitor = free_port(), free_port()
    here = {
        "0.0.0.0": "127.0.0.1",
        "7443": str(port),
        "server:7443": f"127.0.0.1:{port}",
        "0.0.0.0:9100": f"127.0.0.1:{monitor}",
    }
    commands = {name: [here.get(word, word) for word in command(name)] for name in PARTIES}
    assert "http://127.0.0.1:9100/health" in service("server")
    running = [process(words, tmp_path) for words in commands.values()]
    try:
        ended = [one.communicate(timeout=240) for one in running]
    finally:
        for one in running:
            one.kill()
            one.communicate()
    assert [one.returncode for one in running] == [0] * 4, ended
    assert f"health and metrics on 127.0.0.1:{monitor}" in ended[0][1]
    models = [np.load(f"at-{name.removeprefix('hospital-')}/model.npy") for name in PARTIES]
    assert all(np.array_equal(model, models[0]) for model in models)
    assert json.loads(ended[0][0])["accuracy"] > 0.3  # of drawn images, at smoke's few steps
    spent = {
        float(row["epsilon_at_most"])
        for row in json.loads(ended[1][0])["spent"]
        if (row["unit"], row["relation"]) == ("record", "add_remove")
        and row["view"].startswith("coalition")
    }
    assert max(spent) <= 6 * (1 + 1e-9)
