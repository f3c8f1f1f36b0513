"""The ledger of a federated run: who spent what, what it adds up to, and what it rests on.

Every private run writes this into its record. Each hospital spends its own events, once a
round; the ledger composes them over steps, rounds and resumes and states ε

- per **record**: hospitals hold disjoint records, so a record is touched by one hospital's
  spend only and the run's ε is the *maximum* over hospitals (parallel composition);
- per **hospital**: the hospital's whole update is what changes, composed over the rounds;

each after one round and in total, as seen by a server that aggregates in the clear, and after
secure aggregation, where only the sum is seen and the survivors' independent noise adds up in
variance.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

from repro.accounting import checks
from repro.accounting.checks import (
    ADD_REMOVE,
    HOSPITAL,
    RELATIONS,
    REPLACE_ONE,
    Number,
)
from repro.accounting.composition import (
    EXACT,
    common_relations,
    compose_epsilon,
    summed_multiplier,
)
from repro.accounting.events import (
    ComposedEvent,
    GaussianEvent,
    PrivacyEvent,
    RepeatedEvent,
    event_from_dict,
)
from repro.accounting.ledger_rows import rows_of
from repro.accounting.statements import (
    AGGREGATIONS,
    NO_GUARANTEE,
    PLAIN,
    RoundSpend,
    Statement,
)
from repro.errors import InputError

SEED_SOURCES = ("operating system entropy", "user seed")

#: What the guarantees take as known to everybody.
PUBLIC = (
    "hospital sizes (FedAvg weights)",
    "expected batch size",
    "number of steps and rounds",
    "clip norm",
    "which hospitals took part in a round",
)


class FederatedLedger:
    """Privacy spent in a federated run.

    unit: "record" (DP-SGD inside each hospital) or "hospital" (clipped and noised updates).
    mechanism: what was done, in the words of the arm ("dp-sgd", "gaussian update", "none", …).
    delta: the δ every ε is stated at, in (0, 1).
    hospital_sizes: hospital → number of training records.
    aggregation: "plain" or "secure".
    clip_norm: turns sensitivities into the data's own scale; None leaves them in clip norms.
    seed_source: where the noise keys came from, "operating system entropy" or "user seed".
    """

    def __init__(
        self,
        *,
        unit: str,
        mechanism: str,
        delta: Number,
        hospital_sizes: Mapping[int, int],
        aggregation: str = PLAIN,
        clip_norm: Number | None = None,
        seed_source: str = SEED_SOURCES[0],
        public: Iterable[str] = PUBLIC,
    ) -> None:
        self.unit = checks.one_of("unit", unit, checks.UNITS)
        self.mechanism = mechanism
        self.delta = checks.delta(delta)
        self.hospital_sizes = {
            hospital: checks.count(f"hospital_sizes[{hospital}]", size, least=1)
            for hospital, size in hospital_sizes.items()
        }
        self.aggregation = checks.one_of("aggregation", aggregation, AGGREGATIONS)
        self.clip_norm = None if clip_norm is None else checks.positive("clip_norm", clip_norm)
        self.seed_source = checks.one_of("seed_source", seed_source, SEED_SOURCES)
        self.public = tuple(public)
        self._rounds: dict[int, dict[RoundSpend, int]] = {h: {} for h in self.hospital_sizes}
        self._relations: tuple[str, ...] = RELATIONS

    # Spending

    def spend(
        self,
        hospital: int,
        event: PrivacyEvent,
        count: Number = 1,
        *,
        in_sum: PrivacyEvent | None = None,
    ) -> None:
        """Record one round of one hospital: ``event`` happened ``count`` times.

        in_sum: what a secure sum reveals of it; without it the sum is taken to reveal as much
        as the update itself (right for DP-SGD, whose noise is inside the training).
        Raises ``InputError``, recording nothing, for an unknown hospital, another unit, or an
        event that no accountant here has a proof for.
        """
        if hospital not in self._rounds:
            raise InputError("hospital", hospital, f"one of {sorted(self._rounds)}")
        new = RoundSpend(event, checks.count("count", count), event if in_sum is None else in_sum)
        self._relations = self._still_proved(new)
        rounds = self._rounds[hospital]
        rounds[new] = rounds.get(new, 0) + 1

    def spend_round(
        self,
        spent: Iterable[tuple[int, PrivacyEvent, Number]],
        *,
        survivors: Iterable[int] | None = None,
        weights: Mapping[int, Number] | None = None,
        colluding: int = 0,
        exact_sum: bool = True,
    ) -> None:
        """Record one round of the whole federation, all of it or (on bad input) nothing.

        spent: (hospital, event, count), any number per hospital; survivors: the hospitals in
        the aggregate (default: all in ``spent``; the others revealed nothing and spend nothing).
        weights: of the sum (default: the hospital sizes, as in FedAvg); colluding: see
        ``summed_multiplier``. Noised updates are seen in a secure sum with the noise of all;
        exact_sum: False if values were clipped on their way into the sum (its noise then is
        no Gaussian, and the round is stated as if every update had been seen alone).
        """
        taken = None if survivors is None else set(survivors)
        by_hospital: dict[int, list[tuple[PrivacyEvent, int]]] = {}
        for hospital, event, count in spent:
            if taken is None or hospital in taken:
                times = checks.count("count", count)
                by_hospital.setdefault(hospital, []).append((event, times))
        multipliers = {
            h: float(parts[0][0].noise_multiplier)
            for h, parts in by_hospital.items()
            if len(parts) == 1 and parts[0][1] == 1 and isinstance(parts[0][0], GaussianEvent)
        }
        summed = exact_sum and self.unit == HOSPITAL and len(multipliers) == len(by_hospital)
        before = self._relations, self.spent
        try:
            for hospital, parts in by_hospital.items():
                event, count = parts[0]
                if len(parts) > 1:
                    both = tuple(RepeatedEvent(e, n, unit=self.unit) for e, n in parts)
                    event = ComposedEvent(both, unit=self.unit)
                    count = 1
                in_sum = None
                if summed:
                    shares = self.hospital_sizes if weights is None else weights
                    noise = summed_multiplier(hospital, multipliers, shares, colluding=colluding)
                    in_sum = GaussianEvent(noise, unit=HOSPITAL)
                self.spend(hospital, event, count, in_sum=in_sum)
        except InputError:
            self._relations, self._rounds = before
            raise

    def _still_proved(self, new: RoundSpend) -> tuple[str, ...]:
        """The relations everything is proved for once ``new`` is added; refuses if none is left."""
        parts = (new.event, new.in_sum)
        for leaf in (leaf for part in parts for leaf, _ in part.leaves()):
            if leaf.unit != self.unit:
                raise InputError("event", leaf, f"an event of unit {self.unit}")
            if not leaf.proved_for():
                raise InputError("event", leaf, f"an event with a proof: {leaf.reason}")
        left = tuple(r for r in common_relations(parts) if r in self._relations)
        if not left:
            raise InputError("event", new.event, f"one proved for {' or '.join(self._relations)}")
        return left

    # Statements

    @property
    def spent(self) -> dict[int, dict[RoundSpend, int]]:
        """hospital → what it did in a round → in how many rounds."""
        return {hospital: dict(rounds) for hospital, rounds in self._rounds.items()}

    def relations(self) -> tuple[str, ...]:
        """The relations for which everything spent so far is proved."""
        return self._relations

    def record_epsilon(
        self, delta: Number | None = None, *, aggregation: str | None = None
    ) -> Statement:
        """Total ε per record, under the relation it is proved for: the maximum over hospitals.

        For noised updates: the ε of replacing the hospital's whole update, which covers every
        change to one record (no record is clipped, so nothing better is proved).
        """
        relation = REPLACE_ONE if self.unit == HOSPITAL else self.relations()[0]
        return self._total(relation, delta, aggregation)

    def hospital_epsilon(
        self,
        delta: Number | None = None,
        *,
        relation: str = ADD_REMOVE,
        aggregation: str | None = None,
    ) -> Statement:
        """Total ε per hospital; ∞ when only single records are protected.

        (Group privacy would multiply a record's ε by the hospital's size, which says nothing.)
        """
        return self._total(relation, delta, aggregation) if self.unit == HOSPITAL else NO_GUARANTEE

    def _total(self, relation: str, delta: Number | None, aggregation: str | None) -> Statement:
        view = self.aggregation if aggregation is None else aggregation
        return self.worst(relation, self.delta if delta is None else checks.delta(delta), view)

    def worst(
        self, relation: str, delta: float, aggregation: str, *, one_round: bool = False
    ) -> Statement:
        """The largest ε over hospitals, of all rounds together or of the worst single round.

        Under this ledger's own unit; ∞ where something spent is not proved for ``relation``.
        """
        if checks.one_of("relation", relation, RELATIONS) not in self._relations:
            return NO_GUARANTEE
        worst = Statement(0.0, None, None, EXACT)
        known: dict[tuple[Any, ...], tuple[float, float | None, str]] = {}
        for hospital, spent in self._rounds.items():
            whole = [{s: 1} for s in spent] if one_round else [spent] if spent else []
            for rounds in whole:
                counts: dict[PrivacyEvent, int] = {}
                for s, times in rounds.items():
                    event = s.seen(aggregation)
                    counts[event] = counts.get(event, 0) + s.count * times
                key = tuple(sorted(counts.items(), key=repr))  # like hospitals are asked once
                if key not in known:
                    known[key] = compose_epsilon(counts, relation, self.unit, delta)
                epsilon, order, accountant = known[key]
                if worst.hospital is None or epsilon > worst.epsilon:
                    worst = Statement(epsilon, order, hospital, accountant)
        return worst

    # Writing down

    def as_records(self) -> list[dict[str, Any]]:
        """JSON-able rows for a run's ``privacy`` key: unit × relation × view.

        ε is a float and may be ``inf``. Nothing spent yet gives ε = 0.
        """
        return rows_of(self)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The whole spend, JSON-able and exact."""
        spent = [
            {
                "hospital": hospital,
                "event": spend.event.as_dict(),
                "count": spend.count,
                "in_sum": spend.in_sum.as_dict(),
                "rounds": times,
            }
            for hospital, rounds in self._rounds.items()
            for spend, times in rounds.items()
        ]
        spent.sort(key=lambda entry: json.dumps(entry, sort_keys=True))
        return {"unit": self.unit, "mechanism": self.mechanism, "spent": spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a spend; refuses another unit or mechanism, or hospitals it does not know."""
        for key in ("unit", "mechanism"):
            if state.get(key) != getattr(self, key):
                raise InputError(key, state.get(key), f"the ledger's own: {getattr(self, key)}")
        restored = copy.copy(self)
        restored._rounds, restored._relations = {h: {} for h in self.hospital_sizes}, RELATIONS
        for entry in state["spent"]:
            if entry["hospital"] not in restored._rounds:
                raise InputError("hospital", entry["hospital"], f"one of {sorted(self._rounds)}")
            event, in_sum = event_from_dict(entry["event"]), event_from_dict(entry["in_sum"])
            spend = RoundSpend(event, checks.count("count", entry["count"]), in_sum)
            restored._relations = restored._still_proved(spend)
            rounds = checks.count("rounds", entry["rounds"], least=1)
            restored._rounds[entry["hospital"]][spend] = rounds
        self._rounds, self._relations = restored._rounds, restored._relations
