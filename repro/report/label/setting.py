"""The sections of a label that say in which setting a run was made, whatever it spent."""

from __future__ import annotations

from typing import Any

from repro.accounting.ledger.rows import USER_SEED
from repro.report.evidence import data_caption
from repro.report.shown import judged_images
from repro.runs.arm import Arm
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord

Row = dict[str, Any]


def basic(record: RunRecord, arm: Arm) -> dict[str, Any]:
    return {
        "name": record.run_id,
        "description": f"{arm.name}: {arm.description}",
        "intended_use": "research: reproduction of arXiv 2412.00687; no medical device",
        "data_product_type": "Machine learning model",
        "data_product_sector": "Healthcare",
        "data": data_caption(record.dataset),
        "hospitals": record.hospitals,
        "profile": record.profile,
        "trained": record.finished[:10],
    }


def variant(record: RunRecord, stated: Row | None) -> dict[str, Any]:
    shown = "every hospital's validation images, which are private"
    if record.settings.get("evaluate_on", "test") == "test":
        shown = "test images, which no hospital holds"
    in_clear = list(stated["public"]) if stated else []
    in_clear += ["all settings", f"accuracy and loss of every round on {shown}"]
    if record.diagnostics:
        in_clear.append("exact counts in the record: " + ", ".join(sorted(record.diagnostics)))
    if record.dataset.get("duplicates"):
        in_clear.append("how many images are stored more than once")
    return {
        "variant_name": "Approximate DP" if stated else "none",
        "data_domain": f"labelled images of {record.hospitals} hospitals, "
        f"{len(record.confusion)} classes",
        "unprotected_quantities": in_clear,
        "number_of_classes": len(record.confusion),
        "number_of_test_images": judged_images(record),
        "outside_data": _outside(ARMS[record.arm]),
    }


def _outside(arm: Arm) -> str:
    if arm.package is not None:
        return "weights trained on ImageNet, taken as public"
    return "none: no image from outside the hospitals was used"


def deployment(record: RunRecord, views: list[dict[str, Any]]) -> dict[str, Any]:
    pooled = record.settings.get("scope") == "pooled"
    return {
        "model_name": "Central" if pooled else "Federated",
        "actors": [view["view"] for view in views],
        "trust_assumptions": "one place holds all images and is trusted with them"
        if pooled
        else "hospitals follow the protocol with their own images; each view says what else",
        "release_type": "One release",
        "data_source_type": "Static",
        "access_type": "Non-interactive",
    }


def implementation(record: RunRecord, arm: Arm, stated: Row | None) -> dict[str, Any]:
    settings = record.settings
    private = settings.get("record_privacy") or settings.get("update_privacy") or {}
    second = settings.get("second_order")
    steps = {
        "rounds": record.rounds,
        "steps": stated["steps"] if stated else None,
        "sample_rate": (stated["sample_rate"] or 1.0) if stated else None,
        "noise_multiplier": stated["noise_multiplier"] if stated else None,
        "clip_norm": private.get("clip_norm"),
        "budget_shares": {k: second[k] for k in ("mean_share", "moments_share")}
        if second and stated
        else None,
    }
    tuned = "settings were chosen on private images" if arm.tuned else "no setting was tuned"
    tuned = "a private search chose settings" if arm.search else tuned
    return {
        "preprocessing_and_hyperparameter_tuning": f"{tuned}; see search" if arm.private else tuned,
        "mechanisms": stated["mechanism"] if stated else "none",
        **steps,
        "composition": "adaptive, over all steps and rounds; over hospitals the maximum, as they "
        "hold different records"
        if stated
        else "none",
        "post_processing": "everything after the noise" if stated else "none",
        "utility": {"accuracy": record.final_accuracy, "test_images": judged_images(record)},
    }


def seed(record: RunRecord) -> dict[str, Any]:
    public = record.seed_source == USER_SEED
    return {
        "source": record.seed_source,
        "public": public,
        "seed": record.seed if public else None,
        "repeatable": public,
    }


def secagg(record: RunRecord) -> dict[str, Any] | None:
    settings = record.settings.get("secagg")
    if settings is None:
        return None
    shared = record.settings.get("shared") or {}
    done = record.secagg or {}
    return {
        **{key: settings[key] for key in ("neighbours", "threshold")},
        "field_bits": settings.get("field_bits", 31),
        "colluders_planned": shared.get("colluders"),
        "drop_outs_planned": shared.get("drop_outs"),
        "rounds": done.get("rounds"),
        "rounds_failed": done.get("failed"),
        "protocol_every": shared.get("protocol_every", 1),
    }
