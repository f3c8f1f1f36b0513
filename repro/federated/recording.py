"""From a run's last state to its record, and what is written down of the machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from repro.data import Dataset
from repro.data.duplicates import COPIES, SharedImages, duplicate_facts
from repro.federated.division import shares, subset
from repro.federated.parallel.ranks import Ranks
from repro.federated.rounds import Federation, RunState
from repro.runs.provenance import code_version, environment
from repro.runs.record import RunRecord, best_round
from repro.runs.settings import RunSettings


def make_record(
    run_id: str,
    settings: RunSettings,
    dataset: Dataset,
    federation: Federation,
    state: RunState,
    started: str,
    finished: str,
) -> RunRecord:
    """started, finished: UTC, ISO 8601."""
    best, when = best_round(state.history)
    last = state.history[-1]
    private = settings.private
    duplicates = None if private else _duplicates(settings, dataset)
    return RunRecord(
        run_id=run_id,
        arm=settings.arm,
        hospitals=settings.hospitals,
        seed=settings.seed,
        profile=settings.profile,
        rounds=state.round,
        dataset=dataset.facts(private=private)
        | {
            "caption": dataset.caption(private=private),
            "class_names": list(dataset.class_names),
            "train_images": sum(federation.weights.values()),
            "test_images": len(federation.test),
            "duplicates": duplicates,
        },
        settings=settings.as_dict(),
        model={
            "name": settings.model.name,
            "width": settings.model.width,
            "parameters": sum(p.numel() for p in federation.model.parameters()),
        },
        history=state.history,
        final_accuracy=last["accuracy"],
        final_loss=last["loss"],
        best_accuracy=best,
        best_round=when,
        confusion=state.confusion.tolist(),
        privacy=_statements(federation, duplicates),
        secagg=_secagg_summary(state),
        diagnostics=dict(sorted(state.diagnostics.items())),
        seed_source=federation.seed.source,
        code=code_version(),
        environment=_environment(federation.model),
        timings=dict(sorted(state.seconds.items())),
        started=started,
        finished=finished,
        wall_seconds=sum(state.seconds.values()),
        resumed=state.resumed,
    )


def run_name(settings: RunSettings, dataset: Dataset) -> str:
    """The run's name in the store. A private run's follows from what is public, so that it gives
    nothing away and the same command still finds the run, to go on with it."""
    known = dataset.public_fingerprint if settings.private else dataset.fingerprint
    return settings.run_id(known)


def _duplicates(settings: RunSettings, dataset: Dataset) -> dict[str, Any]:
    train = subset(dataset, settings)["train"]
    return duplicate_facts(dataset, train.images, shares(settings, train.labels))


def _statements(federation: Federation, duplicates: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The ledger's rows; those for one record say what an image stored twice spends."""
    if federation.ledger is None:
        return []
    # Counts of copies are exact: a private run says the same whatever there is.
    warning = COPIES if duplicates is None else SharedImages(**duplicates["held"]).warning()
    return [
        row | {"warnings": [*row["warnings"], warning]}
        if warning and row["unit"] == "record"
        else row
        for row in federation.ledger.as_records()
    ]


def _secagg_summary(state: RunState) -> dict[str, Any] | None:
    rounds = [entry["secagg"] for entry in state.history if "secagg" in entry]
    if not rounds:
        return None
    failed = sum("failed" in entry for entry in rounds)
    return {"rounds": len(rounds), "failed": failed, "last": rounds[-1]}


def machines(model: nn.Module, ranks: Ranks) -> list[dict[str, Any]]:
    """All that is known to decide in which order sums are added up: of every rank, or one for all
    that are alike."""
    code = code_version()["fingerprint"]
    vectors = torch.backends.cpu.get_cpu_capability()
    every = ranks.gather(_environment(model) | {"vectors": vectors, "code": code})
    return every[:1] if all(one == every[0] for one in every) else list(every)


def _environment(model: nn.Module) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {"device": device.type, **environment(("torch", "numpy"))}
