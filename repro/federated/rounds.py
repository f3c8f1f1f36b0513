"""The federation's loop: the same for every arm, and for one process or many.

Each round, every hospital trains the global model on its own images (local trainer), its update
passes the update mechanism, the aggregator forms the weighted mean, the server adds it and
evaluates on the test split. The state after each round is on disk before the next begins.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.accounting import PrivacyEvent
from repro.accounting.ledger import FederatedLedger
from repro.federated.aggregation import Aggregated, Aggregator
from repro.federated.checkpoint import check_same_machines, load_checkpoint, save_checkpoint
from repro.federated.evaluation import check_finite, evaluate
from repro.federated.images import LabelledImages
from repro.federated.parallel.ranks import Ranks
from repro.federated.shared.search import SearchTrainer
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.spending import spend_releases
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.plain import HospitalData, LocalReport, LocalTrainer
from repro.federated.vector import load_vector, to_vector
from repro.privacy.mechanisms import UpdateMechanism
from repro.random import RootSeed


@dataclass
class Federation:
    """Everything a run consists of."""

    model: nn.Module  # scratch space: its weights are overwritten by each hospital
    hospitals: dict[int, HospitalData]  # all of them, or only this rank's
    weights: dict[int, int]  # training images of every hospital, on any rank
    test: LabelledImages
    num_classes: int
    # Those of ``SHARED`` need no mechanism and no aggregator.
    trainer: LocalTrainer | SharedNoiseTrainer | SecondOrderTrainer | SearchTrainer
    mechanism: UpdateMechanism
    aggregator: Aggregator
    seed: RootSeed
    rounds: int
    ledger: FederatedLedger | None = None  # of arms that claim, or are said to have, privacy
    update_event: PrivacyEvent | None = None  # what a clipped update costs each round
    ranks: Ranks = field(default_factory=Ranks)
    # All that may move a sum's last bits: of every rank, or one for all that are alike.
    made_on: list[dict[str, Any]] = field(default_factory=list)
    data: str | None = None  # a private run's fingerprint of its records, for its checkpoint alone

    @property
    def private(self) -> bool:
        """Is there an ε to keep, and noise that nobody knows?"""
        return self.ledger is not None and self.seed.private


@dataclass
class RunState:
    """What a checkpoint holds: the run after ``round``."""

    round: int
    vector: Tensor
    history: list[dict[str, Any]]
    confusion: Tensor
    seconds: dict[str, float]
    resumed: int = 0
    diagnostics: dict[str, int] = field(default_factory=dict)  # sums over rounds
    scores: Tensor | None = None  # (test images, classes) logits of the last round


SHARED = (
    SharedNoiseTrainer,
    SecondOrderTrainer,
    SearchTrainer,
)  # all hospitals take a round's steps together
Spent = tuple[int, PrivacyEvent, int]  # hospital, event, how often
Progress = Callable[[int, int | None, float | None], None]  # round, hospital, accuracy


def run_rounds(federation: Federation, folder: Path, progress: Progress) -> RunState:
    """Run to the last round, from the checkpoint in ``folder`` if there is one."""
    state = _restore(federation, folder) or _begin(federation)
    if state.round < federation.rounds:
        # A private seed is on disk before anything is released with it, also that of an extension:
        # whatever happens, a round that is done again is done with the same noise.
        _save(federation, state, folder)
    for number in range(state.round + 1, federation.rounds + 1):
        _one_round(federation, state, number, progress)
        _save(federation, state, folder)
    return state


def _save(federation: Federation, state: RunState, folder: Path) -> None:
    if federation.ranks.first:
        save_checkpoint(folder, _as_saved(federation, state))


def _begin(federation: Federation) -> RunState:
    started = time.perf_counter()
    vector = federation.ranks.broadcast(to_vector(federation.model))
    load_vector(federation.model, vector)
    result = evaluate(federation.model, federation.test, federation.num_classes, federation.ranks)
    return RunState(
        round=0,
        vector=vector,
        history=[{"round": 0, "loss": result.loss, "accuracy": result.accuracy}],
        confusion=result.confusion,
        scores=result.logits,
        seconds={"evaluation": time.perf_counter() - started},
    )


@dataclass
class _Made:
    """A round's new model, what the record says of it, and counts for this machine only."""

    vector: Tensor
    facts: dict[str, Any]
    train_loss: float | None
    noted: Counter[str]


def _one_round(federation: Federation, state: RunState, number: int, progress: Progress) -> None:
    clock = _Clock(state.seconds)
    make = _shared if isinstance(federation.trainer, SHARED) else _averaged
    made = make(federation, state.vector, number, progress, clock)
    state.vector = made.vector
    load_vector(federation.model, state.vector)
    result = evaluate(federation.model, federation.test, federation.num_classes, federation.ranks)
    clock.lap("evaluation")
    check_finite(result, number)
    # Counts over records and updates are exact, so no ε covers them: a private run keeps none.
    # With a seed that the user gave the record is reproducible, and nothing hides its noise either.
    for gathered in [] if federation.private else federation.ranks.gather(dict(made.noted)):
        for name, value in gathered.items():
            state.diagnostics[name] = state.diagnostics.get(name, 0) + value
    state.round = number
    state.confusion, state.scores = result.confusion, result.logits
    state.history.append(
        {
            "round": number,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "train_loss": made.train_loss,
            **made.facts,
        }
    )
    progress(number, None, result.accuracy)


def _averaged(
    federation: Federation, start: Tensor, number: int, progress: Progress, clock: _Clock
) -> _Made:
    """Every hospital trains on its own; the weighted mean of their updates is added."""
    aggregator = federation.aggregator
    aggregator.start(number, federation.weights, start)
    losses: dict[int, float | None] = {}
    spent: list[Spent] = []
    noted: Counter[str] = Counter()
    longest = 0.0
    for hospital, update, report in _trained(federation, start, number, progress):
        clock.lap("training")
        update, sent = federation.mechanism(
            update, seed=federation.seed, hospital=hospital, round=number
        )
        aggregator.add(hospital, update)
        longest = max(longest, sent.norm)
        clock.lap("aggregation")
        losses[hospital] = report.loss
        spent += [(hospital, event, count) for event, count in report.spent]
        if federation.update_event is not None:
            spent.append((hospital, federation.update_event, 1))
        noted.update(report.diagnostics)
        noted.update(updates=1, updates_clipped=sent.clipped, updates_non_finite=sent.non_finite)
    combined = aggregator.finish()
    vector = start + combined.mean
    clock.lap("aggregation")
    _account(federation, spent, combined)
    facts = combined.facts
    if not federation.private:  # exact, so no ε would cover it
        facts = facts | {"longest_update": max(federation.ranks.gather(longest))}
    return _Made(vector, facts, _weighted_mean(federation, losses), noted)


def _shared(
    federation: Federation, start: Tensor, number: int, progress: Progress, clock: _Clock
) -> _Made:
    """All hospitals take the round's steps together, each step from one private sum."""
    trainer = federation.trainer
    assert isinstance(trainer, SHARED)
    load_vector(federation.model, start)
    report = trainer.train_round(federation.model, federation.hospitals, number)
    clock.add(report.seconds)
    if federation.ledger is not None:
        spend_releases(
            federation.ledger, trainer.plan, trainer.sample_rate, report.releases, report.failed
        )
        for hospital, event, seen in report.spent:
            federation.ledger.spend(hospital, event, seen=seen)
    vector = to_vector(federation.model)
    facts = {"secagg": report.facts} if report.facts else {}  # exact sums have none
    return _Made(vector, facts, None, report.diagnostics)


def _trained(
    federation: Federation, start: Tensor, number: int, progress: Progress
) -> Iterator[tuple[int, Tensor, LocalReport]]:
    """This rank's hospitals' updates: hospital, local minus global model, what the trainer says."""
    model, trainer = federation.model, federation.trainer
    assert not isinstance(trainer, SHARED)
    seed = federation.seed
    for hospital in federation.ranks.share(federation.weights):
        progress(number, hospital, None)
        load_vector(model, start)
        own = federation.hospitals[hospital]
        report = trainer.train(model, own, seed=seed, round_number=number)
        yield hospital, to_vector(model).sub_(start), report


def _account(federation: Federation, spent: list[Spent], combined: Aggregated) -> None:
    """Every rank keeps the whole ledger, so whichever writes the checkpoint has it.

    A hospital that was lost is still charged for a record's privacy only if its update arrived;
    what never left the hospital reveals nothing.
    """
    if federation.ledger is None:
        return
    gathered = [entry for part in federation.ranks.gather(spent) for entry in part]
    everything = sorted(gathered, key=lambda entry: entry[0])  # the same on any number of ranks
    federation.ledger.spend_round(
        everything,
        survivors=combined.survivors,
        weights=federation.weights,
        # A sum of clipped values is not Gaussian: it gets no credit for the others' noise.
        exact_sum=combined.facts.get("secagg", {}).get("clipped_values", 0) == 0,
    )


def _weighted_mean(federation: Federation, losses: dict[int, float | None]) -> float | None:
    """Mean over hospitals, by images; None where trainers report no loss (DP-SGD).

    It is exact, and no ε covers it: a private run has none.
    """
    everyone = {h: loss for part in federation.ranks.gather(losses) for h, loss in part.items()}
    weights = federation.weights
    known = [(weights[h], loss) for h, loss in sorted(everyone.items()) if loss is not None]
    if not known or federation.private:
        return None
    total: float = sum(w * loss for w, loss in known) / sum(w for w, _ in known)
    return total


def _as_saved(federation: Federation, state: RunState) -> dict[str, Any]:
    return {
        "round": state.round,
        "vector": state.vector.cpu(),
        "history": state.history,
        "confusion": state.confusion,
        "scores": state.scores,
        "seconds": state.seconds,
        "resumed": state.resumed,
        "diagnostics": state.diagnostics,
        "trainer": federation.trainer.state_dict(),
        "ledger": federation.ledger.state_dict() if federation.ledger is not None else None,
        # Needed to go on with the same bits; a private one is removed when the run has finished.
        "seed": {"root": federation.seed.root, "source": federation.seed.source},
        "made_on": federation.made_on,
        "data": federation.data,
    }


def _restore(federation: Federation, folder: Path) -> RunState | None:
    saved = federation.ranks.broadcast(load_checkpoint(folder) if federation.ranks.first else None)
    if saved is None:
        return None
    if federation.ledger is not None:
        check_same_machines(saved, federation.made_on)
    federation.trainer.load_state_dict(saved["trainer"])
    if federation.ledger is not None:
        federation.ledger.load_state_dict(saved["ledger"])
    return RunState(
        round=saved["round"],
        vector=saved["vector"].to(next(federation.model.parameters()).device),
        history=saved["history"],
        confusion=saved["confusion"],
        seconds=saved["seconds"],
        resumed=saved["resumed"] + (saved["round"] < federation.rounds),
        diagnostics=saved["diagnostics"],
        scores=saved.get("scores"),  # checkpoints of earlier versions have none
    )


class _Clock:
    """Adds the time since the last lap to a named part."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.perf_counter()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Times taken elsewhere since the last lap."""
        for part, spent in seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now
