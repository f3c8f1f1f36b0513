"""The server of a training: the next exchange opens when the last sum has been applied.

Its state is on the disk after every exchange. The moment from which hospitals may send their parts
is noted before (``opened.json``): an exchange that is cut short after it, by a crash or because too
few are left, is used up, and the next one begins at the same model, as in the simulation; one that
is cut short before it is held again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from repro.data.npz import read_npz
from repro.errors import InputError
from repro.federated.checkpoint import load_checkpoint, save_checkpoint
from repro.federated.deploy.plan import TrainingPlan
from repro.federated.deploy.training import Training, shown
from repro.federated.evaluation import evaluate
from repro.federated.execute import cpu_threads
from repro.federated.protocol import Place
from repro.federated.vector import load_vector
from repro.files import write_whole
from repro.secagg.deploy.holding import Holder, open_holder
from repro.secagg.deploy.place import Place as Files
from repro.secagg.deploy.serving import Listener
from repro.secagg.errors import RoundFailed
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.rounds import Round
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.quiet import Report
from repro.secagg.transport.tcp_server import Door, Observe, TcpServer

_LONGEST_PAUSE = 60.0


@dataclass
class Progress:
    """Where a training is. at: the exchange to hold next, None after the last; vector: the model
    it begins with; sums: round, exchange, survivors (none: it came to nothing)."""

    at: Place | None
    vector: Tensor
    sums: list[list[Any]] = field(default_factory=list)


def serve_training(
    plan: TrainingPlan,
    files: Files,
    listener: Listener,
    *,
    stragglers: float = 60.0,
    handing_out: float = 60.0,
    report: Report = lambda line: None,
    listening: Callable[[tuple[str, int]], None] = lambda address: None,
) -> tuple[Training, Progress]:
    """Train to the last round and hand out the last model; from where it was, after a crash.

    stragglers: seconds that an opening waits for the others once as many hospitals as the plan
    needs are in. handing_out: seconds that hospitals have to fetch the last model.
    """
    with cpu_threads(plan.settings.threads):
        training = Training(plan, device="cpu")
        plan.check_stated(training.stated())
        with open_holder(files, report, round_of=training.round_of) as holder:
            training.check_directory(holder.directory())
            served = _Served(training, files.state, holder, report)
            limits = replace(listener.limits, enough=plan.least, stragglers=stragglers)
            with TcpServer(
                listener.host, listener.port, limits=limits, tls=listener.tls, report=report
            ) as server:
                listening(server.address)
                served.to_the_end(server)
                last = training.announced(Place(plan.rounds + 1), served.progress.vector)
                holder.close(server.tell, last, seconds=handing_out)
    return training, served.progress


class _Served:
    def __init__(self, training: Training, state: Path, holder: Holder, report: Report) -> None:
        self._training, self._holder, self._report = training, holder, report
        self._folder = state / "trainings" / training.plan.digest.hex()[:16]
        self.progress = self._restored()
        if self._opened() == self.progress.at and self.progress.at is not None:
            self._report(f"{shown(self.progress.at)} was cut short; the next one begins")
            self._advance(None, ())

    def to_the_end(self, server: TcpServer) -> None:
        failures = 0
        while (at := self.progress.at) is not None:
            self._report(f"{shown(at)}; {self._training.settings.rounds} rounds in all")
            announced = self._training.announced(at, self.progress.vector)
            try:
                given = self._holder.hold(
                    _Marked(server, partial(self._mark, at)),
                    application=announced,
                    limits=server.limits,
                )
            except RoundFailed:
                failures += 1
                if self._opened() == at:
                    self._advance(None, ())
                time.sleep(min(0.5 * 2**failures, _LONGEST_PAUSE))
                continue
            failures = 0
            following = self._training.apply(self.progress.vector, given, at)
            self._advance(following, given.survivors)

    def _advance(self, following: Tensor | None, survivors: tuple[int, ...]) -> None:
        """The exchange is over; None: without a sum, so the model stays."""
        progress, at = self.progress, self.progress.at
        assert at is not None
        progress.sums.append([*at, list(survivors)])
        vector = progress.vector if following is None else following
        progress.at = self._training.after(at)
        if progress.at is None or progress.at.round > at.round:
            vector = vector.float()
        progress.vector = vector
        self._save(progress)

    def _save(self, progress: Progress) -> None:
        save_checkpoint(
            self._folder,
            {
                "at": None if progress.at is None else list(progress.at),
                "vector": progress.vector,
                "sums": progress.sums,
                "trainer": self._training.protocol.state_dict(),
            },
        )

    def _restored(self) -> Progress:
        saved = load_checkpoint(self._folder, private=True)
        if saved is None:
            if self._opened() is not None:
                expected = "the checkpoint that goes with it: begin again with a new plan"
                raise InputError("state", str(self._folder / "opened.json"), expected)
            begun = Progress(Place(1), self._training.initial)
            self._save(begun)
            return begun
        self._training.protocol.load_state_dict(saved["trainer"])
        at = None if saved["at"] is None else Place(*saved["at"])
        return Progress(at, saved["vector"], saved["sums"])

    def _mark(self, at: Place) -> None:
        """Hospitals are about to be told to send their parts."""
        write_whole(self._folder / "opened.json", json.dumps(list(at)) + "\n")

    def _opened(self) -> Place | None:
        path = self._folder / "opened.json"
        return Place(*json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


class _Marked:
    """``TcpServer.run_round`` that calls ``mark`` before anybody is asked for a masked input."""

    def __init__(self, server: TcpServer, mark: Callable[[], None]) -> None:
        self._server, self._mark = server, mark

    def __call__(
        self,
        identity: Identity,
        round_: Round,
        traffic: Traffic | None = None,
        *,
        door: Door | None = None,
        observe: Observe = lambda way, phase, hospital, message: None,
    ) -> Completed:
        marked = False

        def noted(way: str, phase: str, hospital: int, message: Buffer) -> None:
            nonlocal marked
            if (way, phase) == ("sent", "masked") and not marked:
                self._mark()
                marked = True
            observe(way, phase, hospital, message)

        return self._server.run_round(identity, round_, traffic, door=door, observe=noted)


def judged(training: Training, vector: Tensor, path: Path) -> float:
    """Accuracy of a model on the test images of a file, none left out."""
    entry = training.plan.entry
    _, _, splits = read_npz(path, entry, "test", ("test",))
    load_vector(training.model, vector)
    test = training.labelled(splits["test"], None)
    return evaluate(training.model, test, entry.num_classes).accuracy
