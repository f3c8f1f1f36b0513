"""Clearly made-up run records, for testing what is drawn from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from repro.accounting.ledger import UNPROTECTED
from repro.report.claims import load_claims
from repro.report.table import Column, Table, write_table
from repro.runs import RunRecord, RunStore
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.record import FORMAT

PLAIN = "server, plain aggregation"
SECURE = "server, after secure aggregation"
CLASSES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
TEST_SIZES = [24, 62, 31, 58, 24, 28, 67, 47]
LEVELS = {
    "fedavg": 0.95,
    "fedavg-secagg": 0.949,
    "clip-secagg": 0.94,
    "documented-secagg": 0.195,
    "calibrated-secagg": 0.16,
    "central": 0.97,
    "single": 0.80,
    "dpsgd-eps1": 0.45,
    "dpsgd-eps3": 0.58,
    "dpsgd-eps6": 0.66,
    "dpsgd-eps8": 0.69,
    "scattering-fedavg": 0.87,
    "scattering-central-dpsgd-eps6": 0.83,
    "scattering-dpsgd-eps1": 0.62,
    "scattering-dpsgd-eps3": 0.71,
    "scattering-dpsgd-eps6": 0.76,
    "scattering-dpsgd-eps8": 0.77,
    "scattering-shared-eps1": 0.71,
    "scattering-shared-eps3": 0.79,
    "scattering-shared-eps6": 0.82,
    "scattering-shared-eps8": 0.83,
    "shared-dpsgd-eps6": 0.67,
}


def dataset(kind: str = "synthetic") -> dict:
    source = {
        "official": "official BloodMNIST file",
        "rebuilt": "BloodMNIST rebuilt from its source images (not the official file)",
        "synthetic": "synthetic stand-in, not BloodMNIST",
    }[kind]
    return {
        "name": "bloodmnist",
        "source": source,
        "official": kind == "official",
        "md5": "0" * 32,
        "fingerprint": f"fake-{kind}",
        "caption": f"Data: {source} (FAKE RECORDS OF A TEST).",
        "class_names": CLASSES,
    }


def privacy(arm: str, hospitals: int) -> list[dict]:
    def say(unit, view, epsilon_round, total, relation="add_remove"):
        return {
            "unit": unit,
            "view": view,
            "relation": relation,
            "mechanism": "Gaussian",
            "delta": 1.9e-4,
            "epsilon_round": epsilon_round,
            "epsilon_total": total,
        }

    if ARMS[arm].trainer == "shared-dpsgd":
        total = ARMS[arm].epsilon
        return [
            say("record", UNPROTECTED, 3 * total, 9 * total),
            say("record", "coalition of 1 hospital with the server", total / 5, total),
            say("record", "public model", total / 6, 0.9 * total),
            say("hospital", "public model", math.inf, math.inf),
        ]
    if ARMS[arm].trainer == "dpsgd":
        total = ARMS[arm].epsilon
        return [
            say("record", PLAIN, total / 5, total),
            say("record", PLAIN, total / 4, 1.3 * total, "replace_one"),
            say("hospital", PLAIN, math.inf, math.inf),
        ]
    if arm == "documented-secagg":
        return [
            say("record", PLAIN, 270.9, 10535.0, "replace_one"),
            say("hospital", PLAIN, 84.9, 2759.0),
            say("hospital", PLAIN, 270.9, 10535.0, "replace_one"),
            say("hospital", SECURE, 15.6, 329.0),
        ]
    if arm == "calibrated-secagg":
        return [say("hospital", PLAIN, 0.62, 6.0)]
    return []


def secagg(hospitals: int) -> dict:
    phases = ("advertise", "share", "masked", "consistency", "unmask")
    last = {
        "survivors": hospitals,
        "dropped": [],
        "max_error_bound": 1.6e-7,
        "clipped_values": 0,
        "up_bytes": dict(
            zip(phases, [1840, 9260, 4 * 75_432 * hospitals, 1840, 3290], strict=True)
        ),
        "down_bytes": dict.fromkeys(phases, 1000),
    }
    return {"rounds": 5, "last": last}


def record(
    arm: str,
    hospitals: int,
    seed: int,
    profile: str = "quick",
    kind: str = "synthetic",
    rounds: int | None = None,
):
    """One fake run whose numbers follow from its arm and seed by arithmetic alone."""
    settings = compose(ARMS[arm], PROFILES[profile], hospitals=hospitals, seed=seed, rounds=rounds)
    rounds = settings.rounds
    private = ARMS[arm].epsilon is not None
    level = LEVELS.get(arm.removesuffix("-secagg") if private else arm, 0.7)
    level += 0.004 * (seed - 1) - 0.0008 * (hospitals - 10)
    history = [
        {
            "round": r,
            "loss": 2.1 * math.exp(-2.5 * r / rounds) + 2.2 * (1 - level),
            "accuracy": level - (level - 0.12) * math.exp(-7.5 * r / rounds) if r else 0.12,
        }
        for r in range(rounds + 1)
    ]
    confusion = []
    for i, size in enumerate(TEST_SIZES):
        right = round(size * max(0.0, level - 0.02 * (i % 3)))
        row = [0] * 8
        row[i] = right
        row[(i + 1) % 8] += size - right
        confusion.append(row)
    run_id = settings.run_id(f"fake-{kind}")
    facts = {
        "run_id": run_id,
        "arm": arm,
        "hospitals": hospitals,
        "seed": seed,
        "profile": profile,
        "rounds": rounds,
        "dataset": dataset(kind),
        "settings": settings.as_dict(),
        "model": {"name": settings.model.name, "width": settings.model.width, "parameters": 75_432},
        "history": history,
        "final_accuracy": history[-1]["accuracy"],
        "final_loss": history[-1]["loss"],
        "best_accuracy": history[-1]["accuracy"] + 0.003,
        "best_round": rounds - 1,
        "confusion": confusion,
        "privacy": privacy(arm, hospitals),
        "secagg": secagg(hospitals) if ARMS[arm].aggregator == "secure" else None,
        "diagnostics": {},
        "seed_source": "user seed",
        "code": {"version": "0.0", "fingerprint": "fake", "commit": None},
        "environment": {"device": "cpu", "cores": 2, "torch": "0.0", "python": "3.x"},
        "timings": {"training": 1.0, "aggregation": 0.5},
        "started": "2000-01-01T00:00:00Z",
        "finished": "2000-01-01T00:00:01Z",
        "wall_seconds": 1.0,
        "resumed": 0,
        "format": FORMAT,
    }
    return RunRecord.from_dict(facts)


def store(root: Path, arms=None, profile: str = "quick", kind: str = "synthetic") -> RunStore:
    """A store holding fake runs of ``arms`` (all by default) for every K and seed."""
    made = RunStore(root)
    for arm in ARMS if arms is None else arms:
        for hospitals in PROFILES[profile].hospitals:
            for seed in PROFILES[profile].seeds:
                made.save(record(arm, hospitals, seed, profile, kind))
    return made


# Images of each hospital, as the paper's code divides them.
SIZES = {claim.hospitals: claim.value for claim in load_claims().of_kind("sizes")}


def side_files(out: Path) -> None:
    """What ``repro partition --json`` gives, with made-up labels, and one made-up ablation."""
    for hospitals, sizes in SIZES.items():
        labels = [[size // 8 + (size % 8 if c == 0 else 0) for c in range(8)] for size in sizes]
        facts = {
            "hospitals": hospitals,
            "scheme": "authors",
            "seed": 0,
            "dataset": dataset(),
            "class_names": CLASSES,
            "sizes": sizes,
            "train_sizes": [size - size // 5 for size in sizes],
            "labels": labels,
        }
        path = out / "partition" / f"k{hospitals}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(facts))
    table = Table(
        "clip", "Ablation: clip", [Column("a", "a")], [{"a": "FAKE CELL"}], caption="FAKE"
    )
    write_table(table, out / "ablations")
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    (out / "ablations" / "clip.svg").write_text(drawing)
