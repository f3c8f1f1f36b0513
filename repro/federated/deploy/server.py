"""The server of a training: the next exchange opens when the last sum has been applied.

Its state is on the disk after every exchange. The moment from which hospitals may send their parts
is noted before (``opened.json``): an exchange that is cut short after it, by a crash or because too
few are left, is used up, and the next one begins at the same model, as in the simulation; one that
is cut short before it is held again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from repro.data.npz import read_npz
from repro.errors import InputError
from repro.federated.checkpoint import load_checkpoint, save_checkpoint
from repro.federated.deploy.keeping import TRAININGS
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
from repro.secagg.deploy.transcript import Watch
from repro.secagg.errors import RoundFailed
from repro.secagg.transport.quiet import Report
from repro.secagg.transport.tcp_server import TcpServer

_LONGEST_PAUSE = 60.0
_ASKED = ("message", "sent", "masked")  # a log's entry: the server asks for a part


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
        folder = files.state / TRAININGS / plan.digest.hex()[:16]
        opened = _Opened(folder, files.watch)
        watched = replace(files, watch=opened.watch)
        with open_holder(watched, report, round_of=training.round_of) as holder:
            training.check_directory(holder.directory())
            served = _Served(training, folder, opened, holder, report)
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
    def __init__(
        self, training: Training, folder: Path, opened: _Opened, holder: Holder, report: Report
    ) -> None:
        self._training, self._holder, self._report = training, holder, report
        self._folder, self._opened = folder, opened
        self.progress = self._restored()
        if self._opened.last == self.progress.at and self.progress.at is not None:
            self._report(f"{shown(self.progress.at)} was cut short; the next one begins")
            self._advance(None, ())

    def to_the_end(self, server: TcpServer) -> None:
        failures = 0
        while (at := self.progress.at) is not None:
            self._report(f"{shown(at)}; {self._training.settings.rounds} rounds in all")
            announced = self._training.announced(at, self.progress.vector)
            self._opened.next = at
            try:
                given = self._holder.hold(
                    server.run_round, application=announced, limits=server.limits
                )
            except RoundFailed:
                failures += 1
                if self._opened.last == at:
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
            if self._opened.last is not None:
                expected = "the checkpoint that goes with it: begin again with a new plan"
                raise InputError("state", str(self._folder / "opened.json"), expected)
            begun = Progress(Place(1), self._training.initial)
            self._save(begun)
            return begun
        self._training.protocol.load_state_dict(saved["trainer"])
        at = None if saved["at"] is None else Place(*saved["at"])
        return Progress(at, saved["vector"], saved["sums"])


class _Opened:
    """The exchange in which hospitals were last asked for their parts: on the disk before the
    first is asked, as the server's log notes a message before it is sent."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self._path, self._watch = folder / "opened.json", watch
        self.next: Place | None = None  # to be noted when it comes to that

    def watch(self, event: str, fields: Mapping[str, Any]) -> None:
        if self.next and (event, fields.get("way"), fields.get("phase")) == _ASKED:
            write_whole(self._path, json.dumps(list(self.next)) + "\n")
            self.next = None
        self._watch(event, fields)

    @property
    def last(self) -> Place | None:
        if not self._path.exists():
            return None
        return Place(*json.loads(self._path.read_text(encoding="utf-8")))


def judged(training: Training, vector: Tensor, path: Path) -> float:
    """Accuracy of a model on the test images of a file, none left out."""
    entry = training.plan.entry
    _, _, splits = read_npz(path, entry, "test", ("test",))
    load_vector(training.model, vector)
    test = training.labelled(splits["test"], None)
    return evaluate(training.model, test, entry.num_classes).accuracy
