"""A ledger written down: the rows of a run's ``privacy`` record, with notes and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, HOSPITAL, RECORD, REPLACE_ONE, ZERO_OUT, Relation
from repro.accounting.events import NonPrivateEvent, PrivacyEvent
from repro.accounting.ledger.spends import Spends
from repro.accounting.ledger.statement import NO_GUARANTEE, worst
from repro.accounting.ledger.views import SECURE, UPDATES_IN_SUM, View

USER_SEED = "user seed"


@dataclass(frozen=True)
class Terms:
    """What a ledger's statements are about; see ``FederatedLedger``."""

    unit: str
    mechanism: str
    delta: float
    hospital_sizes: Mapping[int, int]
    clip_norm: float | None
    seed_source: str
    public: tuple[str, ...]
    views: tuple[View, ...]


def rows_of(terms: Terms, spends: Spends) -> list[dict[str, Any]]:
    """Unit × relation × view, each with ε of the worst round and in total. JSON-able (ε may be ∞).

    zero_out gets no rows of its own: where it is proved its ε is add_remove's, whose row says so.
    """
    stated = [r for r in spends.relations if r != ZERO_OUT]
    rows = []
    for view in terms.views:
        if terms.unit == RECORD:
            rows += [_row(terms, spends, RECORD, relation, view) for relation in stated]
            rows.append(_row(terms, spends, HOSPITAL, ADD_REMOVE, view))
        else:
            rows.append(_row(terms, spends, RECORD, REPLACE_ONE, view))
            rows += [_row(terms, spends, HOSPITAL, relation, view) for relation in stated]
    return rows


def _row(terms: Terms, spends: Spends, unit: str, relation: Relation, view: View) -> dict[str, Any]:
    total = once = NO_GUARANTEE
    if unit == RECORD or terms.unit == HOSPITAL:
        total = worst(spends, view, relation, terms.delta)
        once = worst(spends, view, relation, terms.delta, one_round=True)
    spent = spends.of(total.hospital)
    leaves = {leaf for s in spent for leaf, _ in s.seen_by(view).leaves()}
    leaf = leaves.pop() if len(leaves) == 1 else None
    zero_out = relation == ADD_REMOVE and ZERO_OUT in spends.relations
    return {
        "unit": unit,
        "relation": relation.value,
        "equivalent": [ZERO_OUT.value] if zero_out else [],
        "mechanism": terms.mechanism,
        "view": view.name,
        "trust": view.trust,
        "delta": terms.delta,
        "epsilon_round": once.epsilon,
        "epsilon_total": total.epsilon,
        "method": total.method,
        "epsilons": dict(total.by_method),
        "order": total.order,
        "hospital": total.hospital,
        "rounds": spends.most_rounds(),
        "steps": sum(
            n * s.count * times for s, times in spent.items() for _, n in s.event.leaves()
        ),
        "noise_multiplier": getattr(leaf, "noise_multiplier", None),
        "sample_rate": getattr(leaf, "sample_rate", None),
        "sensitivity": _sensitivity(terms, leaf, relation),
        "accountant": total.accountant,
        "seed_source": terms.seed_source,
        "public": list(terms.public),
        "note": _note(terms, spends, unit, view),
        "warnings": warnings_of(terms, unit),
    }


def _sensitivity(terms: Terms, leaf: PrivacyEvent | None, relation: Relation) -> float | None:
    """L2 sensitivity of the worst hospital's event; None where there is no one noised event."""
    if getattr(leaf, "noise_multiplier", None) is None or leaf is None:
        return None
    return leaf.sensitivity(relation) * (1.0 if terms.clip_norm is None else terms.clip_norm)


def _note(terms: Terms, spends: Spends, unit: str, view: View) -> str:
    if any(isinstance(leaf, NonPrivateEvent) for leaf in spends.events()):
        return "no noise was added: there is no guarantee"
    if unit == HOSPITAL and terms.unit == RECORD:
        return "single records are protected; a whole hospital is not"
    notes = []
    if unit == RECORD and terms.unit == HOSPITAL:
        notes.append("no record is clipped: a record is protected as part of its hospital's update")
    if view.key == SECURE and terms.unit == HOSPITAL and not view.trust:
        notes.append(UPDATES_IN_SUM)
    if view.trust:
        notes.append(f"holds if {view.trust}")
    return "; ".join(notes)


def warnings_of(terms: Terms, unit: str) -> list[str]:
    """What weakens the statement: δ too large for somebody, noise keys someone knows."""
    found = []
    if unit == RECORD:
        found = [
            f"hospital {hospital}: δ = {terms.delta:g} is not below 1/{size} (its number of "
            "records): publishing one random record would satisfy the guarantee"
            for hospital, size in terms.hospital_sizes.items()
            if terms.delta * checks.as_float(size) >= 1
        ]
    elif terms.delta * len(terms.hospital_sizes) >= 1:
        found = [f"δ = {terms.delta:g} is not below 1/{len(terms.hospital_sizes)} hospitals"]
    if terms.seed_source == USER_SEED:
        found.append("noise keys come from a user seed: whoever knows it can remove the noise")
    return found
