"""A private search: several whole private trainings, of which only the best model is released.

The number of trials N is drawn from D(η, γ) before the first (Liu & Talwar 2019, arXiv 1811.07971;
Papernot & Steinke 2022, arXiv 2110.03620). Each trial draws a candidate from the written-down
grid, trains by second-order steps from its own share of the budget, and is scored: the secure sum
of how many of the hospitals' held-out images it gets right, with shared noise. All the trials of
the theorem are one mechanism: whichever candidate is drawn spends the same.

What ε then holds for, and what not. Theorem 2 is about who gets the released model and nothing
else of the trials: not the other models, not their scores, not N. The server and the hospitals do
see all of that, sum by sum, so what they learn is the composition of every trial that ran. The
ledger states both. In a private run the record says nothing that N could be read off.

A record trains or is held out, never both, so it is in the trainings or in the scores; charging it
for both is simple and costs a fortieth of μ.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from repro.accounting import (
    BestOfTrialsEvent,
    ComposedEvent,
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    RepeatedEvent,
    gaussian_epsilon,
    number_of_trials,
    trial_multiplier,
)
from repro.errors import InputError
from repro.federated.protocol import Hospitals, Place, Progress, RoundProtocol, RoundReport, silent
from repro.federated.shared.rounds import planned
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.spending import BROKEN, COALITION, SERVER, shared_views
from repro.federated.shared.sum import PrivateSum
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.runs.search_settings import Candidate, SearchSettings
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from repro.secagg import model_digest

_EQUAL = 1 - 1e-9  # candidates' multipliers agree better than that: all bounds scale with the norm


class SearchTrainer(RoundProtocol):
    """The one round of a run is the whole search.

    settings: ε, δ of the whole search; its clip norm and learning rate are not read, the trial's
    candidate has its own. weights, held_out: hospital -> its records for training and for scoring,
    public. Everything else as of ``SecondOrderTrainer``.
    """

    mechanism = "best of a random number of trainings, shared noise"

    def __init__(
        self,
        settings: RecordPrivacy,
        search: SearchSettings,
        second: SecondOrder,
        shared: SharedNoise,
        secagg: SecAggParameters | None,
        weights: Mapping[int, int],
        model: nn.Module,
        held_out: Mapping[int, int],
        *,
        seed: RootSeed,
    ) -> None:
        if not isinstance(model, WhitenedLinear):
            raise InputError("model", type(model).__name__, "one with a WhitenedLinear head")
        if secagg is not None and secagg.drop_rate:
            raise InputError("drop_rate", secagg.drop_rate, "0 in a search: no trial may fail")
        if not all(held_out.get(one, 0) for one in weights):
            raise InputError(
                "validation_fraction", 0, "above 0: trials are scored on held-out images"
            )
        self.search, self.second, self.shared, self.secagg = search, second, shared, secagg
        self.weights, self.seed = dict(sorted(weights.items())), seed
        self.model = copy.deepcopy(model)
        self.views = shared_views(shared.colluders, len(weights))
        mu = 1 / trial_multiplier(settings.epsilon, settings.delta, search.trials, search.eta)
        trained = mu * math.sqrt(1 - search.score_share)
        # The ε of one training alone, so that its own calibration finds the multipliers.
        self._settings = replace(
            settings, epsilon=gaussian_epsilon(1 / trained, 1.0, 1, settings.delta) * _EQUAL
        )
        self.plan = planned(  # of the scores
            shared,
            secagg,
            len(self.weights),
            dimension=1,
            sensitivity=1.0,
            noise_multiplier=1 / (mu * math.sqrt(search.score_share)) / _EQUAL,
            largest_sum=sum(held_out.values()) * 1.01,
        )

    def run_round(
        self, vector: Tensor, hospitals: Hospitals, round: int, progress: Progress = silent
    ) -> tuple[Tensor, RoundReport]:
        """All trials, each from ``vector``; the next model is the best one's, and the report spends
        for all of them."""
        if round != 1:
            raise InputError("rounds", round, "1: the whole search is one round")
        if any(data.train.labels.ndim == 2 for data in hospitals.values()):
            raise InputError("dataset", "several labels an image", "one: the score counts images")
        stream = self.seed.numpy_generator("search")
        drawn = number_of_trials(self.search.eta, self.search.trials, float(stream.random()))
        grid = self.search.candidates
        candidates = [grid[int(i)] for i in stream.integers(len(grid), size=drawn)]
        report, facts = RoundReport(), dict[str, Any]()
        best: tuple[float, Tensor, Candidate] | None = None
        for number, candidate in enumerate(candidates):
            # Of its own: a trial shares no key with another.
            root = self.seed.derive_bytes("trial", number)
            seed = RootSeed(root, self.seed.source)
            trainer, trained = self._trainer(candidate, seed), vector
            for one in range(1, self.search.rounds + 1):
                trained, done = trainer.run_round(trained, hospitals, one)
                _add(report, facts, done)
            score = self._score(trained, hospitals, seed)
            if best is None or score > best[0]:
                best = score, trained, candidate
        assert best is not None
        facts |= {"plan": self.plan.facts(), "chosen": best[2]._asdict()}
        facts |= {"survivors": len(self.weights), "dropped_at_most": 0}
        self._spend(report, self._trainer(candidates[0], self.seed), drawn)
        if self.seed.private:  # times and counts would tell how many trials there were
            facts = {name: facts[name] for name in ("plan", "chosen", "survivors")}
            report.seconds, report.diagnostics = {}, Counter()
        else:
            facts["trials"] = drawn
        report.facts = {"secagg": facts}
        return best[1], report

    def exchanges(self, round: int) -> int:
        _apart()

    def part(self, vector: Tensor, data: HospitalData, at: Place) -> NoReturn:
        _apart()

    def apply(self, vector: Tensor, total: Tensor, survivors: Sequence[int], at: Place) -> NoReturn:
        _apart()

    def _trainer(self, candidate: Candidate, seed: RootSeed) -> SecondOrderTrainer:
        return SecondOrderTrainer(
            replace(
                self._settings,
                clip_norm=candidate.clip_norm,
                learning_rate=candidate.time / candidate.clip_norm,
            ),
            replace(self.second, floor=candidate.floor),
            self.shared,
            self.secagg,
            self.weights,
            self.model,
            rounds=self.search.rounds,
            seed=seed,
        )

    @torch.no_grad()
    def _score(self, vector: Tensor, hospitals: Hospitals, seed: RootSeed) -> float:
        """The noisy count of held-out images that a model gets right; one adds at most 1."""
        load_vector(self.model, vector)
        right = {}
        for one, data in hospitals.items():
            assert data.held_out is not None
            predicted = torch.nan_to_num(self.model(data.held_out.inputs())).argmax(1)
            right[one] = np.array([float((predicted == data.held_out.labels).sum())])
        adder = PrivateSum(self.plan, self.weights, seed=seed, purpose="score", secagg=self.secagg)
        digest = model_digest(vector.cpu().numpy())
        return float(adder.release(right, round=1, model=digest).total[0])

    def _trial(self, trainer: SecondOrderTrainer, *, colluders: int) -> PrivacyEvent:
        """What one trial spends, seen by who knows so many of the hospitals' shares."""
        left = max(1, len(self.weights) - colluders)
        plans = [(plan, 1) for plan in (self.plan, *trainer.statistics_plans)]
        plans.append((trainer.steps_plan, self.search.rounds - len(trainer.statistics_plans)))
        return ComposedEvent(
            [
                RepeatedEvent(GaussianEvent(plan.multiplier(left) * _EQUAL), count)
                for plan, count in plans
            ]
        )

    def _spend(self, report: RoundReport, trainer: SecondOrderTrainer, drawn: int) -> None:
        """The released model under Theorem 2; whoever sees every trial, under composition."""
        released = BestOfTrialsEvent(
            self._trial(trainer, colluders=0), self.search.trials, self.search.eta
        )
        known = {SERVER: 0, COALITION: self.shared.colluders, BROKEN: len(self.weights)}
        seen: dict[str, PrivacyEvent] = {
            view.key: NonPrivateEvent()  # a number would tell N
            if self.seed.private
            else RepeatedEvent(self._trial(trainer, colluders=known[view.key]), drawn)
            for view in self.views or ()
            if view.key in known
        }
        report.spent = [(hospital, released, 1) for hospital in self.weights]
        report.seen = dict.fromkeys(self.weights, seen)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing lies between rounds, as there is one: killed in it, the same is done again."""


def _apart() -> NoReturn:
    """How many exchanges there are is N's multiple, which only who trains everything may know."""
    raise InputError("search", "hospitals apart", "one process, in which ``run_round`` does it all")


def _add(report: RoundReport, facts: dict[str, Any], trial: RoundReport) -> None:
    """A round of a trial into the search's own report."""
    found = trial.facts["secagg"]
    if found.get("failed_steps"):
        raise InputError("hospitals", found.get("failed"), "all of them in every sum")
    report.diagnostics.update(trial.diagnostics)
    for part, seconds in trial.seconds.items():
        report.seconds[part] = report.seconds.get(part, 0.0) + seconds
    facts["steps"] = facts.get("steps", 0) + found["steps"]
    for name in ("up_bytes", "down_bytes"):
        known = facts.setdefault(name, {})
        for phase, count in found.get(name, {}).items():
            known[phase] = known.get(phase, 0) + count
