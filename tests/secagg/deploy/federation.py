"""A federation in threads of this process: a server, hospitals, and their files."""

from __future__ import annotations

import json
import threading
import time
from functools import partial

import numpy as np

from repro.errors import InputError
from repro.secagg import Contribution, Identity
from repro.secagg.deploy.directory import FederationDirectory, Settings
from repro.secagg.deploy.holding import open_holder
from repro.secagg.deploy.joining import Server, join
from repro.secagg.deploy.keystore import create_identity
from repro.secagg.deploy.member import open_member
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.serving import Listener, Service, serve
from repro.secagg.deploy.transcript import read_log
from repro.secagg.transport.limits import Limits

DIMENSION = 40


class Deployment:
    """Four hospitals, any three of them enough. Everything under one folder."""

    def __init__(self, folder, hospitals=4, threshold=3, **limits):
        self.folder, self.limits = folder, Limits(**{"opening": 2.0, "phase": 10.0} | limits)
        self.operator = Identity()
        names = ["server", *map(str, range(hospitals))]
        self.public = {name: self.create(name) for name in names}
        self.address = None
        self.listening = threading.Event()
        self.threads, self.errors, self.lines = [], [], []
        self.publish(
            FederationDirectory(
                operator=self.operator.public,
                serial=1,
                session=b"s" * 32,
                server=self.public["server"],
                hospitals={one: self.public[str(one)] for one in range(hospitals)},
                settings=Settings(threshold, hospitals - 1, DIMENSION, max_weight=100),
            )
        )

    def create(self, name):
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return create_identity(self.folder / name / "key").public

    def publish(self, directory):
        self.directory = directory
        directory.write(self.folder / "directory.json", self.operator)

    def place(self, name, **more):
        folder = self.folder / name
        directory = self.folder / "directory.json"
        return Place(folder / "key", directory, self.operator.public, folder, **more)

    def vector(self, one, number=0):
        normal = np.random.default_rng((one, number))
        return normal.standard_normal(DIMENSION).astype(np.float32)

    def contribution(self, one, announced):
        return Contribution(self.vector(one, announced.number), one + 1)

    def serve(self, rounds, **more):
        self.listening.clear()
        self._start(self.serve_here, rounds, **more)
        assert self.listening.wait(20), self.errors

    def serve_here(self, rounds, place=None, tls=None, **more):
        """In this thread."""

        def listening(address):
            self.address = address
            self.listening.set()

        service = Service(self.folder / "results", **({"pause": 0.02} | more))
        serve(
            place or self.place("server"),
            Listener("127.0.0.1", 0, tls, self.limits),
            service,
            rounds=rounds,
            report=self.lines.append,
            listening=listening,
        )

    def open(self, name, place):
        """What is opened before anything else, and closed again."""
        opened = open_holder(place) if name == "server" else open_member(place, lambda _: None)
        with opened:
            pass

    def join(self, one, rounds, contribution=None, **more):
        place = more.pop("place", None) or self.place(str(one))
        options = {"patience": 30.0} | more
        address = options.pop("address", self.address)
        way = {name: options.pop(name, None) for name in ("tls", "proxy")}
        self._start(
            join,
            place,
            Server(*address, wait=20.0, **way),
            contribution or partial(self.contribution, one),
            rounds=rounds,
            report=self.lines.append,
            **options,
        )

    def take_part(self, rounds, hospitals=range(4)):
        """These join for as many rounds, after whoever has already; returns when all have ended."""
        for one in hospitals:
            self.join(one, rounds)
        self.finish()

    def _start(self, work, *arguments, **options):
        def run():
            try:
                work(*arguments, **options)
            except Exception as error:  # the test looks at it
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def finish(self, seconds=60):
        ends = time.monotonic() + seconds
        while any(thread.is_alive() for thread in self.threads):
            defects = [one for one in self.errors if not isinstance(one, (InputError, OSError))]
            assert not defects, defects[0]
            assert time.monotonic() < ends, (self.errors, self.lines[-20:])
            time.sleep(0.02)
        self.threads.clear()
        self.listening.clear()

    def until(self, holds, seconds=60):
        """Wait until ``holds()``."""
        ends = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends, (self.errors, self.lines[-20:])
            time.sleep(0.02)

    def results(self):
        """Round -> (summary, mean)."""
        folder = self.folder / "results" / self.directory.session.hex()[:8]
        return {
            int(path.stem.removeprefix("round-")): (
                json.loads(path.read_text()),
                np.load(path.with_suffix(".npy")),
            )
            for path in sorted(folder.glob("*.json"))
        }

    def check(self, number, survivors):
        summary, mean = self.results()[number]
        assert summary["survivors"] == list(survivors)
        weights = np.array([one + 1 for one in survivors], dtype=float)
        vectors = np.stack([self.vector(one, number).astype(float) for one in survivors])
        error = np.abs(mean - weights @ vectors / weights.sum()).max()
        assert error <= summary["error_bound"] < 1e-4

    def log(self, name):
        return read_log(self.folder / name / "transcript.log", self.public[name])
