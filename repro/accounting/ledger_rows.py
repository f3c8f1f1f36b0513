"""A ledger written down: the rows of a run's ``privacy`` record, with notes and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro.accounting.checks import ADD_REMOVE, HOSPITAL, RECORD, REPLACE_ONE
from repro.accounting.events import NonPrivateEvent, PrivacyEvent
from repro.accounting.statements import NO_GUARANTEE, PLAIN, SECURE

if TYPE_CHECKING:
    from repro.accounting.ledger import FederatedLedger

VIEWS = {PLAIN: "server, plain aggregation", SECURE: "server, after secure aggregation"}


def rows_of(ledger: FederatedLedger) -> list[dict[str, Any]]:
    """Unit × relation × view, each with ε of the worst round and in total. JSON-able (ε may be ∞).

    A securely aggregated run is stated in both views: what the server learns if the protocol
    holds, and what it would learn if it did not.
    """
    rows = []
    for aggregation in [PLAIN] if ledger.aggregation == PLAIN else [PLAIN, SECURE]:
        if ledger.unit == RECORD:
            rows += [_row(ledger, RECORD, r, aggregation) for r in ledger.relations()]
            rows.append(_row(ledger, HOSPITAL, ADD_REMOVE, aggregation))
        else:
            rows.append(_row(ledger, RECORD, REPLACE_ONE, aggregation))
            rows += [_row(ledger, HOSPITAL, r, aggregation) for r in ledger.relations()]
    return rows


def _row(ledger: FederatedLedger, unit: str, relation: str, aggregation: str) -> dict[str, Any]:
    total = once = NO_GUARANTEE
    if unit == RECORD or ledger.unit == HOSPITAL:
        total = ledger.worst(relation, ledger.delta, aggregation)
        once = ledger.worst(relation, ledger.delta, aggregation, one_round=True)
    spent = ledger.spent.get(total.hospital, {}) if total.hospital is not None else {}
    leaves = {leaf for s in spent for leaf, _ in s.seen(aggregation).leaves()}
    leaf = leaves.pop() if len(leaves) == 1 else None
    return {
        "unit": unit,
        "relation": relation,
        "mechanism": ledger.mechanism,
        "view": VIEWS[aggregation],
        "delta": ledger.delta,
        "epsilon_round": once.epsilon,
        "epsilon_total": total.epsilon,
        "order": total.order,
        "hospital": total.hospital,
        "rounds": max((sum(rounds.values()) for rounds in ledger.spent.values()), default=0),
        "steps": sum(
            n * s.count * times for s, times in spent.items() for _, n in s.event.leaves()
        ),
        "noise_multiplier": getattr(leaf, "noise_multiplier", None),
        "sample_rate": getattr(leaf, "sample_rate", None),
        "sensitivity": _sensitivity(ledger, leaf, relation),
        "accountant": total.accountant,
        "seed_source": ledger.seed_source,
        "public": list(ledger.public),
        "note": _note(ledger, unit, aggregation),
        "warnings": warnings_of(ledger, unit),
    }


def _sensitivity(ledger: FederatedLedger, leaf: PrivacyEvent | None, relation: str) -> float | None:
    """L2 sensitivity of the worst hospital's event; None where there is no one noised event."""
    if leaf is None or isinstance(leaf, NonPrivateEvent):
        return None
    return leaf.sensitivity(relation) * (1.0 if ledger.clip_norm is None else ledger.clip_norm)


def _note(ledger: FederatedLedger, unit: str, aggregation: str) -> str:
    leaves = [leaf for r in ledger.spent.values() for s in r for leaf, _ in s.event.leaves()]
    if any(isinstance(leaf, NonPrivateEvent) for leaf in leaves):
        return "no noise was added: there is no guarantee"
    if unit == HOSPITAL and ledger.unit == RECORD:
        return "single records are protected; a whole hospital is not"
    notes = []
    if unit == RECORD and ledger.unit == HOSPITAL:
        notes.append("no record is clipped: a record is protected as part of its hospital's update")
    if aggregation == SECURE and ledger.unit == HOSPITAL:
        notes.append(
            "holds against the server if every hospital counted really adds its noise and secure "
            "aggregation is not broken; fixed-point rounding before the sum is taken as exact"
        )
    return "; ".join(notes)


def warnings_of(ledger: FederatedLedger, unit: str) -> list[str]:
    """What weakens the statement: δ too large for somebody, noise keys someone knows."""
    found = []
    if unit == RECORD:
        found = [
            f"hospital {hospital}: δ = {ledger.delta:g} is not below 1/{size} (its number of "
            "records): publishing one random record would satisfy the guarantee"
            for hospital, size in ledger.hospital_sizes.items()
            if ledger.delta * size >= 1
        ]
    elif ledger.delta * len(ledger.hospital_sizes) >= 1:
        found = [f"δ = {ledger.delta:g} is not below 1/{len(ledger.hospital_sizes)} hospitals"]
    if ledger.seed_source == "user seed":
        found.append("noise keys come from a user seed: whoever knows it can remove the noise")
    return found
