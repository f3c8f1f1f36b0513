"""A federation that trains on a small file: its files by the commands, its parties as threads or
as processes, over TLS on this machine."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from repro.cli import main
from repro.cli.secagg_parties import operator_key
from repro.data import load_dataset
from repro.federated.checkpoint import load_checkpoint
from repro.federated.deploy.hospital import take_part
from repro.federated.deploy.plan import load_plan
from repro.federated.deploy.policy import Policy
from repro.federated.deploy.server import serve_training
from repro.federated.execute import execute
from repro.runs.store import RunStore
from repro.secagg.deploy.joining import Server
from repro.secagg.deploy.place import Place as Files
from repro.secagg.deploy.serving import Listener
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.tls import hospital_context, server_context
from tests import forked
from tests.federated.small import small_file

SEED = 3


class Crash(BaseException):
    """The end of a party that no code of its own notices."""


def until_it_ends(once, at_the_latest=lambda: None):
    """Again after each crash, as the same command is given again."""
    crashed = True
    try:
        while crashed:
            crashed = False
            with contextlib.suppress(Crash):
                crashed = True
                once()
                crashed = False
    finally:
        at_the_latest()


class Trial:
    """Everything under one folder. seed: None for noise from the operating system."""

    def __init__(
        self, folder: Path, arm: str, hospitals=3, rounds=2, seed=SEED, count_noise=0.0, more=()
    ):
        self.folder, self.hospitals, self.said, self.life = folder, hospitals, [], 0
        self.port = 0
        self.data = small_file(folder)
        seeded = [] if seed is None else ["--seed", seed]
        chosen = [arm, *seeded, "--profile", "smoke"]
        self.run("federation", "split", *chosen, "--data", self.data, "--out", folder / "files",
                 "--hospitals", hospitals)  # fmt: skip
        self.run("secagg", "keygen", folder / "operator.key")
        self.run("secagg", "keygen", folder / "server.key", "--tls", "127.0.0.1")
        offers = []
        for one in range(hospitals):
            self.run("secagg", "keygen", folder / f"{one}.key")
            offers += ["--offer", folder / f"{one}.offer"]
            self.run("federation", "offer", offers[-1], "--key", folder / f"{one}.key",
                     "--data", self.file(one), "--count-noise", count_noise)  # fmt: skip
        keys = ["--operator-key", folder / "operator.key"]
        keys += ["--server-key", folder / "server.key.pub"]
        sizes = "private" if count_noise else "public"
        self.plan_words = [*chosen, *keys, *offers, "--rounds", rounds, "--sizes", sizes, *more]
        self.run("federation", "plan", *self.plan_words[:1], folder / "plan.json",
                 *self.plan_words[1:])  # fmt: skip
        self.operator = operator_key(str(folder / "operator.key.pub"))
        self.plan = load_plan(folder / "plan.json", self.operator)
        (folder / "policy.toml").write_text(
            f'arms = ["{arm}"]\nlargest_epsilon = inf\nminimum_hospitals = 2\npublic_seed = true\n'
        )
        self.policy = Policy((arm,), float("inf"), 2, public_seed=True)

    def run(self, *words):
        assert main([*map(str, words)]) == 0

    def file(self, one) -> Path:
        return self.folder / "files" / f"hospital-{one}.npz"

    def files(self, name) -> Files:
        key = self.folder / f"{name}.key"
        state = self.folder / f"at-{name}-{self.life}"
        return Files(key, self.folder / "directory.json", self.operator, state)

    def anew(self):
        """The same plan from the beginning: everybody has another state folder."""
        self.life += 1
        self.said.clear()
        self.port = 0

    def simulated(self, rounds=None) -> np.ndarray:
        """The model of ``repro run`` with the same settings, seed and data, after so many rounds;
        None: the last one."""
        settings = replace(self.plan.settings, rounds=rounds or self.plan.rounds)
        store = RunStore(self.folder / f"runs-{self.life}-{settings.rounds}")
        execute(settings, load_dataset(self.data), store, device="cpu", quiet=True)
        (path,) = store.root.rglob("checkpoint.pt")
        return load_checkpoint(path.parent)["vector"].numpy()

    # As threads

    def serve(self):
        """``result`` is there when it has ended, the address on return."""
        tls = server_context(
            self.folder / "server.key.tls.pem", self.folder / "server.key.tls.key", None
        )
        there, self.result = threading.Event(), None

        def listening(address):
            self.address, self.port = address, address[1]
            there.set()

        def once():
            self.result = serve_training(
                self.plan,
                self.files("server"),
                Listener("127.0.0.1", self.port, tls, Limits(opening=60.0, phase=20.0)),
                report=self.said.append,
                listening=listening,
                handing_out=20.0,
            )

        thread = threading.Thread(target=until_it_ends, args=(once, there.set))
        thread.start()
        assert there.wait(120)
        return thread

    def join(self, one):
        authorities = hospital_context(self.folder / "server.key.tls.pem", None, None)

        def once():
            self.joined[one] = take_part(
                self.plan,
                self.files(one),
                Server(*self.address, authorities),
                self.file(one),
                self.policy,
                device="cpu",
                report=self.said.append,
                patience=60.0,
            )

        thread = threading.Thread(target=until_it_ends, args=(once,))
        thread.start()
        return thread

    def as_threads(self) -> np.ndarray:
        """All to the end; the last model, which everybody has got."""
        self.joined: dict = {}
        threads = [self.serve(), *(self.join(one) for one in range(self.hospitals))]
        for thread in threads:
            thread.join(180)
        assert sorted(self.joined) == list(range(self.hospitals)), self.said
        model = self.result[1].vector.numpy()
        for one in self.joined.values():
            np.testing.assert_array_equal(one.model.numpy(), model)
        return model

    # As processes

    def words(self, command, name, *more) -> list[str]:
        words = ["federation", command, "plan.json", "--key", f"{name}.key"]
        words += ["--state", f"at-{name}", "--directory", "directory.json"]
        words += ["--operator", "operator.key.pub"]
        return [*words, *map(str, more)]

    def process(self, words) -> forked.Popen:
        return process(words, self.folder)


def process(words, folder) -> forked.Popen:
    """``repro`` with these words in this folder, its answer as JSON."""
    line = [sys.executable, "-m", "repro", *words, "--json"]
    return forked.Popen(line, cwd=folder, stdout=forked.PIPE, stderr=forked.PIPE)
