"""The federation's loop: the same for every arm, and for one process or many.

Each round the arm's protocol makes the next global model, which the server evaluates on the test
split. The state after each round is on disk before the next begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repro.accounting.ledger import FederatedLedger
from repro.federated.checkpoint import check_same_machines, load_checkpoint, save_checkpoint
from repro.federated.evaluation import check_finite, evaluate
from repro.federated.images import LabelledImages
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import Clock, Progress, RoundProtocol
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.randomness import RootSeed


@dataclass
class Federation:
    """Everything a run consists of."""

    model: nn.Module  # scratch space: its weights are overwritten
    hospitals: dict[int, HospitalData]  # all of them, or only this rank's
    weights: dict[int, int]  # training images of every hospital, on any rank
    test: LabelledImages
    num_classes: int
    protocol: RoundProtocol
    seed: RootSeed
    rounds: int
    ledger: FederatedLedger | None = None  # of arms that claim, or are said to have, privacy
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


def run_rounds(federation: Federation, folder: Path, progress: Progress) -> RunState:
    """Run to the last round, from the checkpoint in ``folder`` if there is one.

    progress: called first with the round that the run begins after.
    """
    state = _restore(federation, folder) or _begin(federation)
    progress(state.round, None, state.history[-1]["accuracy"])
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
    seconds: dict[str, float] = {}
    clock = Clock(seconds)
    vector = federation.ranks.broadcast(to_vector(federation.model))
    load_vector(federation.model, vector)
    result = evaluate(federation.model, federation.test, federation.num_classes, federation.ranks)
    clock.lap("evaluation")
    return RunState(
        round=0,
        vector=vector,
        history=[{"round": 0, "loss": result.loss, "accuracy": result.accuracy}],
        confusion=result.confusion,
        scores=result.logits,
        seconds=seconds,
    )


def _one_round(federation: Federation, state: RunState, number: int, progress: Progress) -> None:
    state.vector, report = federation.protocol.run_round(
        state.vector, federation.hospitals, number, progress
    )
    if federation.ledger is not None:
        # Every rank keeps the whole ledger, so whichever writes the checkpoint has it.
        federation.ledger.spend_round(
            report.spent,
            weights=federation.weights,
            # A sum of clipped values is not Gaussian: it gets no credit for the others' noise.
            exact_sum=report.facts.get("secagg", {}).get("clipped_values", 0) == 0,
            seen=report.seen,
        )
    for part, spent in report.seconds.items():
        state.seconds[part] = state.seconds.get(part, 0.0) + spent
    clock = Clock(state.seconds)
    load_vector(federation.model, state.vector)
    result = evaluate(federation.model, federation.test, federation.num_classes, federation.ranks)
    clock.lap("evaluation")
    check_finite(result, number)
    # Counts over records and updates are exact, so no ε covers them: a private run keeps none.
    # With a seed that the user gave the record is reproducible, and nothing hides its noise either.
    for gathered in [] if federation.private else federation.ranks.gather(dict(report.diagnostics)):
        for name, value in gathered.items():
            state.diagnostics[name] = state.diagnostics.get(name, 0) + value
    state.round = number
    state.confusion, state.scores = result.confusion, result.logits
    state.history.append(
        {
            "round": number,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "train_loss": None,
            **report.facts,
            **({} if federation.private else report.exact),
        }
    )
    progress(number, None, result.accuracy)


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
        "trainer": federation.protocol.state_dict(),
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
    federation.protocol.load_state_dict(saved["trainer"])
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
