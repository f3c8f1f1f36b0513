"""A hospital in a training: its own records, its share of the noise, exchange after exchange."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from repro.errors import InputError
from repro.federated.deploy.keeping import TRAININGS, Kept, spent_before
from repro.federated.deploy.plan import TrainingPlan
from repro.federated.deploy.policy import Policy
from repro.federated.deploy.training import Training, shown
from repro.federated.execute import cpu_threads
from repro.federated.training.plain import HospitalData
from repro.privacy.noise_key import new_run
from repro.secagg import Contribution
from repro.secagg.deploy.announcement import Announcement
from repro.secagg.deploy.counter import locked
from repro.secagg.deploy.joining import Server, join
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place as Files
from repro.secagg.transport.quiet import Report


class Participant:
    """Makes a hospital's parts, and has what they cost on the disk before they leave.

    In one process at a time: ``take_part`` holds the lock of ``state``'s trainings.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        policy: Policy,
        state: Path,
        data: Path,
        hospital: int,
        device: str | None = None,
    ) -> None:
        policy.check(plan, spent_before(state, plan))
        self.kept = Kept(state, plan)
        self.training = Training(plan, seed=self.kept.seed(), device=device)
        plan.check_stated(self.training.stated())
        self.data: HospitalData = self.training.hospital_data(data, hospital)
        self._made: tuple[bytes, Contribution] | None = None
        self.model: Tensor | None = None  # the last one, once the server has handed it out

    def prepare(self, announcement: Announcement) -> Contribution:
        """The part of the exchange announced. The same one again if its round came to nothing
        before anything was shared."""
        at, vector = self.training.read(announcement.application)
        self.kept.check(at)
        if self._made is None or self._made[0] != announcement.application_digest:
            made = self.training.contribution(vector, self.data, at)
            self._made = announcement.application_digest, made
        return self._made[1]

    def leaving(self, announcement: Announcement) -> None:
        at, _ = self.training.read(announcement.application)
        self.kept.share(self.training, self.data.hospital, at)

    def closed(self, announcement: Announcement) -> None:
        """The last model."""
        at, self.model = self.training.read(announcement.application)
        if at.round <= self.training.settings.rounds:
            raise InputError("server", shown(at), "the training's end before it closes it")
        self.kept.finish()


def take_part(
    plan: TrainingPlan,
    files: Files,
    server: Server,
    data: Path,
    policy: Policy,
    *,
    device: str | None = None,
    patience: float | None = None,
    report: Report = lambda line: None,
) -> Participant:
    """Train to the last round and get the last model.

    Checks before it connects, in this order: the plan against ``policy``, what the plan states
    against this version's own arithmetic, the records against the plan. patience: see ``join``.
    Killed at any moment, the same call goes on with the next exchange that is open.
    """
    directory = files.pinned(report).current()
    hospital = directory.id_of(load_identity(files.key).public)
    threads = plan.settings.threads or os.cpu_count() or 1
    # Before anything of the state is read: a second process would go by what was shared then.
    with locked(files.state / TRAININGS), cpu_threads(threads):
        policy.check(plan, spent_before(files.state, plan))
        mine = Participant(plan, policy, files.state, data, hospital, device)
        mine.training.check_directory(directory)
        new_run(mine.training.seed)
        join(
            replace(files, missed=mine.training.missed),
            server,
            mine.prepare,
            patience=patience,
            report=report,
            closed=mine.closed,
            round_of=mine.training.round_of,
            leaving=mine.leaving,
        )
    return mine
