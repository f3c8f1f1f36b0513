"""The ledger of a federated run: who spent what, what it adds up to, and what it rests on.

Every private run writes this into its record. Each hospital spends its own events, once a
round; the ledger composes them over steps, rounds and resumes and states ε

- per **record**: hospitals hold disjoint records, so a record is touched by one hospital's
  spend only and the run's ε is the *maximum* over hospitals (parallel composition);
- per **hospital**: the hospital's whole update is what changes, composed over the rounds;

each after one round and in total, once for every view: a server that aggregates in the clear,
one that sees a secure sum, in which the survivors' independent noise adds up in variance, or
whatever views an arm brings (``View``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, HOSPITAL, REPLACE_ONE, Number, Relation
from repro.accounting.composition import summed_multiplier
from repro.accounting.events import ComposedEvent, GaussianEvent, PrivacyEvent, RepeatedEvent
from repro.accounting.ledger.rows import USER_SEED, Terms, rows_of
from repro.accounting.ledger.spends import RoundSpend, Spends
from repro.accounting.ledger.statement import NO_GUARANTEE, Statement, worst
from repro.accounting.ledger.views import PLAIN, SECURE, STANDARD_VIEWS, View
from repro.errors import InputError

SEED_SOURCES = ("operating system entropy", USER_SEED)

#: What the guarantees take as known to everybody.
PUBLIC = (
    "hospital sizes (FedAvg weights)",
    "expected batch size",
    "number of steps and rounds",
    "clip norm",
    "which hospitals took part in a round",
)

_ByHospital = dict[int, list[tuple[PrivacyEvent, int]]]


class FederatedLedger:
    """Privacy spent in a federated run.

    unit: "record" (DP-SGD inside each hospital) or "hospital" (clipped and noised updates).
    mechanism: what was done, in the words of the arm ("dp-sgd", "gaussian update", "none", …).
    delta: the δ every ε is stated at, in (0, 1).
    hospital_sizes: hospital → number of training records.
    aggregation: "plain" or "secure"; gives the views unless ``views`` does.
    clip_norm: turns sensitivities into the data's own scale; None leaves them in clip norms.
    seed_source: where the noise keys came from, "operating system entropy" or "user seed".
    views: who is stated to learn what, the weakest assumption first; keys must differ.

    An arm whose hospitals share the noise of a sum spends the event of the whole noise and brings
    its own views (docs/accounting.md).
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
        views: Iterable[View] | None = None,
    ) -> None:
        aggregation = checks.one_of("aggregation", aggregation, tuple(STANDARD_VIEWS))
        chosen = STANDARD_VIEWS[aggregation] if views is None else tuple(views)
        if not chosen or len({view.key for view in chosen}) < len(chosen):
            raise InputError(
                "views", [view.key for view in chosen], "at least one, keys all unlike"
            )
        self.terms = Terms(
            unit=checks.one_of("unit", unit, checks.UNITS),
            mechanism=mechanism,
            delta=checks.delta(delta),
            hospital_sizes={
                hospital: checks.count(f"hospital_sizes[{hospital}]", size, least=1)
                for hospital, size in hospital_sizes.items()
            },
            clip_norm=None if clip_norm is None else checks.positive("clip_norm", clip_norm),
            seed_source=checks.one_of("seed_source", seed_source, SEED_SOURCES),
            public=tuple(public),
            views=chosen,
        )
        self._spends = Spends(self.terms.hospital_sizes, unit)

    # Spending

    def spend(
        self,
        hospital: int,
        event: PrivacyEvent,
        count: Number = 1,
        *,
        seen: Mapping[str, PrivacyEvent] | None = None,
    ) -> None:
        """Record one round of one hospital: ``event`` happened ``count`` times.

        seen: view's key → what that view saw of it, where that is not the event with the view's
        own ``multiplier`` (right for DP-SGD, whose noise is inside the training).
        Raises ``InputError``, recording nothing, for an unknown hospital or view, another unit,
        or an event that no accountant here has a proof for.
        """
        others = {key: other for key, other in (seen or {}).items() if other != event}
        for key in others:
            self.view(key)
        times = checks.count("count", count)
        self._spends.add(hospital, RoundSpend(event, times, tuple(sorted(others.items()))))

    def spend_round(
        self,
        spent: Iterable[tuple[int, PrivacyEvent, Number]],
        *,
        survivors: Iterable[int] | None = None,
        weights: Mapping[int, Number] | None = None,
        colluding: int = 0,
        exact_sum: bool = True,
        seen: Mapping[int, Mapping[str, PrivacyEvent]] | None = None,
    ) -> None:
        """Record one round of the whole federation, all of it or (on bad input) nothing.

        spent: (hospital, event, count), any number per hospital; survivors: the hospitals in
        the aggregate (default: all in ``spent``; the others revealed nothing and spend nothing).
        weights: of the sum (default: the hospital sizes, as in FedAvg); colluding: see
        ``summed_multiplier``. Noised updates are seen in a secure sum with the noise of all;
        exact_sum: False if values were clipped on their way into the sum (its noise then is
        no Gaussian, and the round is stated as if every update had been seen alone).
        seen: hospital → view's key → what that view saw in place of the event with the view's own
        ``multiplier`` (after drop-outs less noise is left).
        """
        taken = None if survivors is None else set(survivors)
        by_hospital: _ByHospital = {}
        for hospital, event, count in spent:
            if taken is None or hospital in taken:
                by_hospital.setdefault(hospital, []).append((event, checks.count("count", count)))
        in_sum = self._seen_in_sum(by_hospital, weights, colluding) if exact_sum else {}
        before = self._spends.copy()
        try:
            for hospital, parts in by_hospital.items():
                views = {**(seen or {}).get(hospital, {}), **in_sum.get(hospital, {})}
                self.spend(hospital, *self._one(parts), seen=views)
        except InputError:
            self._spends = before
            raise

    def _one(self, parts: list[tuple[PrivacyEvent, int]]) -> tuple[PrivacyEvent, int]:
        if len(parts) == 1:
            return parts[0]
        both = tuple(RepeatedEvent(e, n, unit=self.terms.unit) for e, n in parts)
        return ComposedEvent(both, unit=self.terms.unit), 1

    def _seen_in_sum(
        self, by_hospital: _ByHospital, weights: Mapping[int, Number] | None, colluding: int
    ) -> dict[int, dict[str, PrivacyEvent]]:
        """Hospital → what a secure sum shows of its noised update, where all have one."""
        if self.terms.unit != HOSPITAL:
            return {}
        noise = {
            h: float(parts[0][0].noise_multiplier)
            for h, parts in by_hospital.items()
            if len(parts) == 1 and parts[0][1] == 1 and isinstance(parts[0][0], GaussianEvent)
        }
        if len(noise) != len(by_hospital):
            return {}
        shares = self.terms.hospital_sizes if weights is None else weights
        left = {h: summed_multiplier(h, noise, shares, colluding=colluding) for h in noise}
        if all(view.key != SECURE for view in self.terms.views):
            return {}
        return {h: {SECURE: GaussianEvent(z, unit=HOSPITAL)} for h, z in left.items()}

    # Statements

    def view(self, key: str) -> View:
        """The view called ``key``."""
        for view in self.terms.views:
            if view.key == key:
                return view
        raise InputError("view", key, " or ".join(view.key for view in self.terms.views))

    @property
    def spent(self) -> dict[int, dict[RoundSpend, int]]:
        """hospital → what it did in a round → in how many rounds."""
        return self._spends.by_hospital()

    def relations(self) -> tuple[Relation, ...]:
        """The relations for which everything spent so far is proved."""
        return self._spends.relations

    def record_epsilon(self, delta: Number | None = None, *, view: str | None = None) -> Statement:
        """Total ε per record, under the relation it is proved for: the maximum over hospitals.

        view: a view's key; default the last one. For noised updates: the ε of replacing the
        hospital's whole update, which covers every change to one record (no record is clipped,
        so nothing better is proved).
        """
        relation = REPLACE_ONE if self.terms.unit == HOSPITAL else self.relations()[0]
        return self._total(relation, delta, view)

    def hospital_epsilon(
        self, delta: Number | None = None, *, relation: str = ADD_REMOVE, view: str | None = None
    ) -> Statement:
        """Total ε per hospital; ∞ when only single records are protected.

        (Group privacy would multiply a record's ε by the hospital's size, which says nothing.)
        """
        return self._total(relation, delta, view) if self.terms.unit == HOSPITAL else NO_GUARANTEE

    def _total(self, relation: str, delta: Number | None, view: str | None) -> Statement:
        chosen = self.terms.views[-1] if view is None else self.view(view)
        at = self.terms.delta if delta is None else checks.delta(delta)
        return worst(self._spends, chosen, checks.relation(relation), at)

    def as_records(self) -> list[dict[str, Any]]:
        """JSON-able rows for a run's ``privacy`` key: unit × relation × view.

        ε is a float and may be ``inf``. Nothing spent yet gives ε = 0.
        """
        return rows_of(self.terms, self._spends)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The whole spend, JSON-able and exact."""
        spent = self._spends.as_list()
        return {"unit": self.terms.unit, "mechanism": self.terms.mechanism, "spent": spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a spend; refuses another unit or mechanism, or hospitals it does not know."""
        for key in ("unit", "mechanism"):
            own = getattr(self.terms, key)
            if state.get(key) != own:
                raise InputError(key, state.get(key), f"the ledger's own: {own}")
        spends = Spends(self.terms.hospital_sizes, self.terms.unit)
        spends.add_list(state["spent"])
        self._spends = spends
