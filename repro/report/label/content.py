"""What a run's privacy label says: one JSON-able dictionary, from its record, ledger and audit.

Sections and fields with a counterpart in the schema of the differential privacy deployments
registry (arXiv 2509.13509; github.com/opendp/deployments-registry-data) bear its names:
``basic``, ``dp_variant``, ``privacy_loss``, ``deployment_model``, ``implementation``. The rest is
what it has no field for. docs/privacy-label.md lists them beside the terms of NIST SP 800-226.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from repro.accounting.ledger import UNPROTECTED
from repro.accounting.ledger.rows import USER_SEED
from repro.accounting.tradeoff import trade_off
from repro.errors import InputError
from repro.report.honest import search_charge, searched
from repro.report.label import setting
from repro.report.label.rebuild import Recomputed, recompute
from repro.report.privacy import exchanged_by_group
from repro.runs.arm import Arm
from repro.runs.arms import ARMS
from repro.runs.guarantees import REPLACE, protected_unit
from repro.runs.record import RunRecord
from repro.version import __version__

FORMAT = 1
RATES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)  # false-positive rates, of the trade-off curve
ADJACENT = {
    "record": "two data sets are neighbours if one record of one hospital contributes zero in one "
    "of them (zero-out); the numbers of records are the same and public",
    "hospital": "two federations are neighbours if one hospital's update is zero in one of them",
}

Row = dict[str, Any]


def label_of(record: RunRecord, audit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The label of a finished run. JSON-able throughout; ε may be ``inf``.

    audit: of the run's arm (``repro audit``), where there is one on record. Every ε of the
    protected unit is computed once more from what the ledger says was spent. Raises ``InputError``
    where the two differ, and for an arm that this version does not know.
    """
    arm = ARMS.get(record.arm)
    if arm is None:
        raise InputError("arm", record.arm, "one that this version knows: see `repro arms`")
    unit = protected_unit(record.arm)
    rows = [row for row in record.privacy if row["unit"] == unit]
    finite = [row for row in rows if math.isfinite(float(row["epsilon_total"]))]
    spent = {id(row): recompute(record, row) for row in finite}
    stated = _stated(rows)
    found = spent.get(id(stated)) if stated is not None else None
    views = _views(rows)
    return {
        "label": "privacy label of a run",
        "format": FORMAT,
        "first": _first(record, stated, audit),
        "basic": setting.basic(record, arm),
        "dp_variant": setting.variant(record, stated),
        "privacy_loss": _loss(record, unit, stated, views),
        "gaussian_dp": None,
        "trade_off": [],
        **_curve(unit, stated, found, pooled=record.settings.get("scope") == "pooled"),
        "views": views,
        "deployment_model": setting.deployment(record, views),
        "implementation": setting.implementation(record, arm, stated),
        "search": _search(record, arm, stated),
        "audit": _audit(record, audit),
        "threat_model": _threats(record, stated),
        "accountant": _accountant(record, stated, found),
        "seed": setting.seed(record),
        "secure_aggregation": setting.secagg(record),
        "warnings": list(dict.fromkeys(w for row in rows for w in row.get("warnings", ()))),
    }


def _stated(rows: list[Row]) -> Row | None:
    """The row that speaks for the run: of several views the largest ε, as everywhere else; without
    the view in which what the arm rests on has failed. (``runs.guarantees.total_epsilon``.)
    None where that is ∞."""
    counted = [row for row in rows if row["relation"] != REPLACE and row["view"] != UNPROTECTED]
    largest = max(counted, key=lambda row: float(row["epsilon_total"]), default=None)
    return largest if largest and math.isfinite(float(largest["epsilon_total"])) else None


def _first(record: RunRecord, stated: Row | None, audit: Mapping[str, Any] | None) -> list[str]:
    """What has to be read before any number."""
    said = []
    if stated is None:
        said.append(f"NOT PRIVATE: ε = ∞. {_why_not(record)}")
    elif record.seed_source == USER_SEED:
        said.append(
            f"THIS MODEL ITSELF IS NOT PRIVATE: its noise comes from the public seed {record.seed},"
            " so whoever knows the seed can take the noise away. The run can be repeated bit for "
            "bit instead. ε below is that of the same run with secret noise (no --seed)."
        )
    if audit is not None and audit["exceeded"]:
        said.append("REFUTED: an attack found more ε than is stated (see the audit).")
    return said


def _why_not(record: RunRecord) -> str:
    if not ARMS[record.arm].private:
        clipped = " Updates are clipped, which alone protects nobody." if record.privacy else ""
        return f"No noise is added anywhere in this run.{clipped}"
    return "Its ledger states no finite ε." if record.privacy else "Its record holds no ledger."


def _loss(
    record: RunRecord, unit: str | None, stated: Row | None, views: list[dict[str, Any]]
) -> dict[str, Any]:
    own = next((v for v in views if stated and v["view"] == stated["view"]), None)
    count = record.hospitals if unit == "hospital" else record.dataset.get("train_images")
    others = {
        row["unit"]: max(
            float(r["epsilon_total"]) for r in record.privacy if r["unit"] == row["unit"]
        )
        for row in record.privacy
        if row["unit"] != unit
    }
    return {
        "privacy_unit": unit,
        "privacy_unit_details": ADJACENT.get(unit or "", "nothing is protected"),
        "number_of_privacy_units": count,
        "privacy_parameters": {
            "epsilon": float(stated["epsilon_total"]) if stated else math.inf,
            "delta": stated["delta"] if stated else None,
        },
        "epsilon_exchanged": own["epsilon_exchanged"] if own else math.inf,
        "view": stated["view"] if stated else None,
        "other_units": others,  # unit → the largest ε of any view and relation
    }


def _curve(
    unit: str | None, stated: Row | None, found: Recomputed | None, *, pooled: bool
) -> dict[str, Any]:
    """μ and points of the curve, of what the stated row's hospital spent."""
    if stated is None or found is None or unit is None:
        return {}
    curve = trade_off(found.counts, stated["relation"], unit)
    # Hospitals whose own sampled steps differ may be worst at different rates; of plain Gaussian
    # noise the largest ε has the largest μ, and shared noise is one for all.
    alike = curve.least_rate == 0 or "shared noise" in stated["mechanism"] or pooled
    return {
        "gaussian_dp": {
            "mu": curve.mu,
            "regret": curve.regret,
            "least_rate": curve.least_rate,
            "of_hospital": None if alike else stated["hospital"],
            "reference": "arXiv 2503.10945",
        },
        "trade_off": [
            {"false_positive_rate": rate, "false_negative_rate": curve.false_negative_rate(rate)}
            for rate in RATES
        ],
    }


def _views(rows: list[Row]) -> list[dict[str, Any]]:
    """Who sees what, and ε against them: for one that contributes or not, and for an exchange."""
    views: dict[str, dict[str, Any]] = {}
    for row in rows:
        view = views.setdefault(
            row["view"],
            {
                "view": row["view"],
                "trust_assumptions": row.get("trust") or row.get("note", ""),
                "epsilon": math.inf,
                "epsilon_exchanged": None,  # none is proved
                "backup_only": row["view"] == UNPROTECTED,
            },
        )
        if row["relation"] == REPLACE:
            view["epsilon_exchanged"] = float(row["epsilon_total"])
        else:
            view["epsilon"] = float(row["epsilon_total"])
            found = exchanged_by_group(row)
            known = found if math.isfinite(found) else None
            view["epsilon_exchanged"] = view["epsilon_exchanged"] or known
    return list(views.values())


def _search(record: RunRecord, arm: Arm, stated: Row | None) -> dict[str, Any] | None:
    """Is the choice of settings inside ε?"""
    if stated is None:
        return None
    if not arm.tuned:
        inside = arm.search.trials if arm.search else 0  # the mean of their random number
        return {"covered": True, "trials": inside, "epsilon_charged": None}
    trials = searched(arm)
    charge = search_charge(arm, [record]) if trials else None
    return {"covered": False, "trials": trials, "epsilon_charged": charge}


def _audit(record: RunRecord, audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The lower bounds on record. They are of the arm, at one number of hospitals."""
    if audit is None or not ARMS[record.arm].private:
        return None
    many = audit["many_run"]
    return {
        "epsilon_lower": audit["epsilon_lower"],
        "epsilon_lower_if_gaussian": many["gaussian_epsilon"],
        "epsilon_stated": audit["epsilon_stated"],
        "epsilon_of_audited_steps": many["claimed_epsilon"],
        "audited_steps": many["steps"],
        "confidence": audit["confidence"],
        "refuted": audit["exceeded"],
        "hospitals": audit["hospitals"],
        "profile": audit["profile"],
        "same_hospitals_and_profile": (audit["hospitals"], audit["profile"])
        == (record.hospitals, record.profile),
    }


def _threats(record: RunRecord, stated: Row | None) -> dict[str, Any] | None:
    if stated is None:
        return None
    shared = record.settings.get("shared")
    excluded = [
        "side channels (time, memory, a debugger on a hospital's machine)",
        "an image stored more than once: its ε is the sum over the copies",
        "what is learned of everybody, such as that a feature goes with a diagnosis",
    ]
    if shared is not None:
        excluded.insert(0, f"more colluding hospitals than planned ({shared['colluders']})")
    if stated["seed_source"] == USER_SEED:
        excluded.insert(0, "whoever knows the seed")
    return {
        "adversary": "knows the code, every setting, what is public and all other records, sees "
        "every round as the view says, and has any time to compute",
        "excluded": excluded,
    }


def _accountant(
    record: RunRecord, stated: Row | None, found: Recomputed | None
) -> dict[str, Any] | None:
    if stated is None:
        return None
    return {
        "name": stated["accountant"],
        "version": record.code,
        "epsilon_recomputed": None if found is None else found.epsilon,
        "recomputed_by_version": __version__,
    }
