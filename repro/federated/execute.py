"""One run from settings to record: the only way a run is made, by command line or by script."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from repro.data import BLOODMNIST, Dataset, Split
from repro.errors import InputError
from repro.federated.assembly import ledger, round_protocol
from repro.federated.checkpoint import NAME as CHECKPOINT
from repro.federated.checkpoint import Begun, begun, check_same_data, forget_seed
from repro.federated.division import class_count, held_out, judged_on, shares, subset
from repro.federated.memory import keep_freed_memory
from repro.federated.parallel.ranks import Ranks
from repro.federated.recording import machines, make_record, run_name
from repro.federated.rounds import Federation, run_rounds
from repro.federated.trained_part import trained_part
from repro.federated.training.plain import HospitalData
from repro.privacy.noise_key import new_run
from repro.progress import Progress, progress
from repro.randomness import RootSeed
from repro.runs.provenance import code_version
from repro.runs.record import RunRecord
from repro.runs.settings import TRAINED_IN, RunSettings
from repro.runs.store import RunStore


def execute(
    settings: RunSettings,
    dataset: Dataset,
    store: RunStore,
    *,
    device: str | None = None,
    quiet: bool = False,
    ranks: Ranks | None = None,
    extend: int = 0,
) -> RunRecord:
    """Train, or take up again, or simply return the finished run of these settings and data.

    extend: rounds beyond ``settings.rounds``, after the run has finished. Noise stays what it
        was calibrated to, so the ledger goes on adding and ε passes its target.
    ranks: with several of them, all call this; rank 0 alone reads and writes the store.
    """
    ranks = ranks or Ranks()
    if settings.private and settings.evaluate_on != "test":
        raise InputError(
            "evaluate_on",
            settings.evaluate_on,
            "test in a private run: hospitals' validation images are records, and no ε covers "
            "accuracies on them",
        )
    name = run_name(settings, dataset)
    rounds = settings.rounds + extend
    finished: RunRecord | None = ranks.broadcast(store.load(name) if ranks.first else None)
    if finished is not None and finished.rounds >= rounds:
        if ranks.first:
            _say_if_code_changed(finished)
            if settings.private:
                _say_that_data_are_not_compared(finished)
            if settings.seed is None:
                with store.working_on(name) as folder:
                    forget_seed(folder)  # it may have been killed between its record and that
        return finished
    data = subset(dataset, settings)
    shares(settings, data["train"].labels)  # a K that cannot be is refused before a file is made
    with store.working_on(name) if ranks.first else nullcontext(Path()) as folder:
        # Another process may have finished it while we waited.
        finished = ranks.broadcast(store.load(name) if ranks.first else None)
        if finished is not None and finished.rounds >= rounds:
            return finished
        if extend and finished is None:
            raise InputError("extend", extend, "a finished run (give the command without it first)")
        started = _now()
        start = _begun(settings, dataset, store, folder, ranks, finished=finished is not None)
        assert start.seed is not None
        keep_freed_memory()  # before features are made: it halves their time
        federation = assemble(
            settings,
            data,
            seed=start.seed,
            device=device,
            ranks=ranks,
            features=store.root / "features",
            num_classes=dataset.num_classes,
            drawn="cells" if dataset.name == BLOODMNIST.name else "discs",
        )
        federation.data = dataset.fingerprint if settings.private else None
        new_run(federation.seed)
        federation.rounds = rounds
        threads = settings.threads or start.threads
        threads = threads or max(1, (os.cpu_count() or 1) // ranks.here)
        with cpu_threads(threads), _Bar(settings, rounds, ranks, quiet) as bar:
            federation.made_on = machines(federation.model, ranks)
            state = run_rounds(federation, folder, bar)
        # How long a private search took tells how many trials there were, which nobody may know.
        secret = settings.private and settings.search is not None
        finished_at = started if secret else _now()
        record = make_record(
            name, settings, dataset, federation, state, started=started, finished=finished_at
        )
        if ranks.first:
            kept = state.scores if settings.evaluate_on == "test" else None
            logits = None if kept is None else kept.numpy()
            store.save(record, logits, labels=dataset.multi_label)
            # By the data's fingerprint, which a private run does not tell.
            if kept is not None and not settings.private and dataset.test.labels.ndim == 1:
                store.save_labels(dataset.fingerprint, dataset.test.labels)
            forget_seed(folder)
        ranks.broadcast(None)  # no rank leaves before the record is on disk
    return record


def _begun(
    settings: RunSettings,
    dataset: Dataset,
    store: RunStore,
    folder: Path,
    ranks: Ranks,
    *,
    finished: bool,
) -> Begun:
    """What the run began with, else a new seed; the same on every rank."""
    found: Begun | InputError | None = None
    if ranks.first:
        try:
            _refuse_two_precisions(settings, dataset, store)
            found = begun(folder, private=settings.private, finished=finished)
            found = found or Begun(None, None)
            check_same_data(found, dataset.fingerprint)
            found = replace(found, seed=found.seed or _new_seed(settings))
        except InputError as problem:
            found = problem  # on every rank, so that none waits for the first
    found = ranks.broadcast(found)
    if isinstance(found, InputError):
        raise found
    assert found is not None
    return found


def _refuse_two_precisions(settings: RunSettings, dataset: Dataset, store: RunStore) -> None:
    """A private run that was cut short in another precision has spent its ε: it goes on, or is
    given up by name, and no second one beside it is begun unawares."""
    for other in TRAINED_IN if settings.private else ():
        name = run_name(replace(settings, precision=other), dataset)
        if other == settings.precision or not (store.folder(name) / CHECKPOINT).exists():
            continue
        if store.load(name) is None:
            raise InputError(
                "precision",
                settings.precision,
                f"{other}, in which {name} was begun: finish it, or delete its folder and count "
                "what it released as spent too",
            )


def _new_seed(settings: RunSettings) -> RootSeed:
    return RootSeed.from_entropy() if settings.seed is None else RootSeed.from_user(settings.seed)


def _say_if_code_changed(record: RunRecord) -> None:
    """A finished run is not repeated when the code changes, but nobody should be surprised."""
    if record.code["fingerprint"] != code_version()["fingerprint"]:
        print(
            f"repro: {record.run_id} was made by other code ({record.code['fingerprint']}); "
            "delete its record to run it again",
            file=sys.stderr,
        )


def _say_that_data_are_not_compared(record: RunRecord) -> None:
    """Said every time: whether they are the same records is nobody's business but an ε's."""
    print(
        f"repro: {record.run_id} is finished and stays as it is, whatever records are given now (a "
        "private run keeps nothing that tells them); give another --out to train on others",
        file=sys.stderr,
    )


def assemble(
    settings: RunSettings,
    data: dict[str, Split],
    *,
    seed: RootSeed,
    device: str | None,
    ranks: Ranks,
    features: Path | None = None,
    num_classes: int | None = None,
    drawn: str = "cells",
) -> Federation:
    """The federation that ``settings`` describe, on ``device`` (None: CUDA if there is any).

    features: where fixed features are kept between runs; None: nowhere.
    num_classes: of the data set; None: as many as its labels show.
    drawn: which drawn images features are whitened by, a name in ``repro.federated.whitening``.
    Raises InputError for images with several labels each, unless the steps are joint.
    """
    train, test = data["train"], judged_on(settings, data)
    num_classes = class_count(train, test, num_classes)
    if train.labels.ndim == 2 and settings.shared is None:
        raise InputError(
            "dataset",
            f"{num_classes} labels an image",
            f"one label an image for {settings.arm}: of the arms only those whose noise is shared "
            "in one sum train on several",
        )
    model, labelled, _ = trained_part(
        settings,
        channels=train.images.shape[-1],
        num_classes=num_classes,
        seed=seed,
        device=device,
        drawn=drawn,
    )
    share = shares(settings, train.labels)
    weights = {hospital: len(positions) for hospital, positions in share.items()}
    # Kept features are records too, and their file's name is a function of them.
    images = labelled(train, None if settings.private else features)
    mine = set(ranks.share(weights))
    apart = held_out(settings, train.labels)
    scoring = {hospital: images.take(positions) for hospital, positions in apart.items()}
    hospitals = {
        hospital: HospitalData(hospital, images.take(positions), scoring.get(hospital))
        for hospital, positions in share.items()
        if hospital in mine
    }
    scored = {hospital: len(positions) for hospital, positions in apart.items()}
    protocol = round_protocol(settings, weights, model, seed, ranks, scored)
    return Federation(
        model=model,
        hospitals=hospitals,
        weights=weights,
        test=labelled(test, features),
        num_classes=num_classes,
        protocol=protocol,
        seed=seed,
        rounds=settings.rounds,
        ledger=ledger(settings, weights, seed, protocol),
        ranks=ranks,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with this many CPU threads (0: as many as there are), then restore."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Bar:
    """Progress on stderr: hospitals trained, round, accuracy, time left."""

    def __init__(self, settings: RunSettings, rounds: int, ranks: Ranks, quiet: bool) -> None:
        self.make = partial(
            progress,
            total=rounds,
            desc=f"{settings.arm} K={settings.hospitals} seed {settings.seed}",
            unit="round",
            quiet=quiet or not ranks.first,
        )
        self.bar: Progress[None] | None = None  # None: it is not known yet where the run begins
        self.accuracy: float | None = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, round_number: int, hospital: int | None, accuracy: float | None) -> None:
        if self.bar is None:
            self.bar = self.make(initial=round_number)
            self.accuracy = accuracy if round_number else None
            return
        if accuracy is not None:
            self.accuracy = accuracy
            self.bar.update(round_number - self.bar.n)
        said = [] if self.accuracy is None else [f"accuracy {100 * self.accuracy:.2f} %"]
        said += [] if hospital is None else [f"hospital {hospital}"]
        self.bar.set_postfix_str(", ".join(said))

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()
