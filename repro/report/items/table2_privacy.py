"""Table 2: what every reading of the paper's setting guarantees, and the noise an ε needs.

The setting is the authors' (δ, ε, clip norm, rounds) [code]; what it guarantees is computed here.

Command: ``repro table 2``; the comparison with a tight accountant is that of ``repro bench
tightness --out OUT`` kept in ``OUT/bench/tightness.json``. Cost and hardware: seconds on any
machine, two minutes with that comparison; no runs, accounting only. Expected: no reading reaches
the ε = 6 that the setting names; the documented noise gives 2,759 for a hospital's update over 50
rounds [calc]; Rényi accounting gives away 10–13 % over the thousands of steps of the paper's
setting.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.composition import summed_multiplier
from repro.accounting.gaussian import (
    basic_composition,
    classical_sigma,
    gaussian_epsilon,
    gaussian_sigma,
)
from repro.report.sources import Sources
from repro.report.table import Table, table_of_rows
from repro.report.tightness import tightness_table
from repro.runs.settings import LocalSettings, RunSettings, UpdatePrivacy

# The authors' setting [code]; what LocalDpMod adds for the sensitivity they passed.
_SETTING = UpdatePrivacy()
EPSILON, DELTA, CLIP_NORM = _SETTING.epsilon, _SETTING.delta, _SETTING.clip_norm
ROUNDS = RunSettings.rounds
SIGMA = classical_sigma(EPSILON, _SETTING.sensitivity, DELTA)

#: Training images of the ten hospitals, the weights of FedAvg [code, infer].
SIZES_OF_TEN = (874, 1038, 608, 1304, 740, 1172, 872, 1041, 900, 1013)

RELATIONS = {"add or remove": CLIP_NORM, "replace": 2 * CLIP_NORM}

#: (images of the hospital, expected batch): the mean, smallest and largest hospital of ten, and
#: the mean of twenty.
HOSPITALS = ((956, 32), (956, 128), (608, 32), (1304, 32), (478, 32))
LOCAL_EPOCHS = ROUNDS * int(LocalSettings.epochs)
TARGETS = (1.0, 3.0, 6.0, 8.0)

TITLE = "Table 2. Privacy: what each reading guarantees"
CAPTION = "Computed by the accountant; independent of data, profile and seeds."
LABELS = {
    "epsilon_round": "ε, one round",
    "epsilon_total": f"ε, {ROUNDS} rounds",
    "delta": "δ",
    "sigma": "σ",
    "sensitivity": "L2 sensitivity",
}


def build(sources: Sources) -> list[Table]:
    return [*_computed(), tightness_table(sources)]


def privacy_summary(sources: Sources) -> Table:
    """Table 2 in short, for the report: no notes, and no exchange of a hospital's update."""
    full = build(sources)[0]
    kept = [row for row in full.rows if (row["unit"], row["relation"]) != ("hospital", "replace")]
    caption = (
        f"{full.caption} Notes, and what replacing a hospital's update costs: tables/table2.md."
    )
    return replace(full, rows=kept, notes=(), caption=caption)


@functools.cache  # they depend on nothing
def _computed() -> tuple[Table, ...]:
    needs = (
        ("b", "updates", "σ on an update seen alone", noise_for_updates),
        ("c", "sums", "σ of each hospital where only the sum is seen", noise_for_sums),
        ("d", "records", "noise multiplier of record-level DP-SGD", noise_for_records),
    )
    return (
        table_of_rows("table2", TITLE, rows(), caption=CAPTION, notes=notes(), labels=LABELS),
        *(
            table_of_rows(
                f"table2-{name}",
                f"Table 2{letter}. Noise for a total ε: {what}",
                wanted(),
                caption=CAPTION,
                labels=LABELS,
            )
            for letter, name, what, wanted in needs
        ),
    )


def rows() -> list[dict[str, Any]]:
    """One row per reading: view, unit, relation, sensitivity, σ, δ, ε of one round and of fifty.

    Expected: σ = 0.698873 gives ε = 5.61 for one round and 86.3 for fifty if sensitivity 1 were
    true; 84.9 and 2,759 for the clip norm of 7; 270.9 and 10,535 for replacing an update; 329
    (181) after an honest sum of 10 (20); a true total of 6 needs σ = 32.8 or 65.5 [calc].
    """
    none = _row("as most likely run: clipped, no noise", "any", "any", None, 0.0)
    return [
        none | {"epsilon_round": math.inf, "epsilon_total": math.inf},
        _row("nominal: pretending sensitivity 1", "hospital", "add or remove", 1.0, SIGMA),
        _added_up(),
        *(
            _row("one hospital's update, seen alone", "hospital", relation, sensitivity, SIGMA)
            for relation, sensitivity in RELATIONS.items()
        ),
        *(
            _row(f"sum of {k} after secure aggregation", "hospital", r, s, SIGMA * math.sqrt(k))
            for k in (10, 20)
            for r, s in RELATIONS.items()
        ),
        *(
            _row(
                "the same of 10, weighted by size: largest hospital", "hospital", r, s, _weighted()
            )
            for r, s in RELATIONS.items()
        ),
        _row(
            "one record (no record is clipped: as part of its hospital's update)",
            "record",
            "replace",
            2 * CLIP_NORM,
            SIGMA,
        ),
        *(
            _row(
                f"calibrated to a true total of {EPSILON:g}",
                "hospital",
                relation,
                sensitivity,
                gaussian_sigma(EPSILON, sensitivity, ROUNDS, DELTA),
            )
            for relation, sensitivity in RELATIONS.items()
        ),
    ]


def noise_for_updates(targets: tuple[float, ...] = TARGETS) -> list[dict[str, Any]]:
    """Noise needed, first table: σ on every parameter of an update seen alone, total over 50."""
    return [
        {"relation": relation, "sensitivity": sensitivity}
        | {_title(e): gaussian_sigma(e, sensitivity, ROUNDS, DELTA) for e in targets}
        for relation, sensitivity in RELATIONS.items()
    ]


def noise_for_sums(targets: tuple[float, ...] = TARGETS) -> list[dict[str, Any]]:
    """Second table: σ each hospital adds if only the sum of K equal-weight updates is seen."""
    return [
        {"hospitals": k, "relation": relation, "sensitivity": sensitivity}
        | {_title(e): gaussian_sigma(e, sensitivity, ROUNDS, DELTA) / math.sqrt(k) for e in targets}
        for k in (10, 20)
        for relation, sensitivity in RELATIONS.items()
    ]


def noise_for_records(targets: tuple[float, ...] = TARGETS) -> list[dict[str, Any]]:
    """Third table: noise multipliers of record-level DP-SGD (Poisson, add/remove)."""
    found = []
    for images, batch in HOSPITALS:
        steps = LOCAL_EPOCHS * images // batch
        multipliers = {
            _title(e): calibrate_noise_multiplier(e, DELTA, batch / images, steps)[0]
            for e in targets
        }
        found.append({"images": images, "batch": batch, "steps": steps} | multipliers)
    return found


def notes() -> list[str]:
    """Plain words beneath the table: what a hospital, and what a patient, could conclude."""
    once = gaussian_epsilon(SIGMA, CLIP_NORM, 1, DELTA)
    return [
        "How to read ε: whatever somebody believed before about one hospital (or patient), seeing "
        "the training changes the odds by at most a factor e^ε, except with probability δ. "
        f"e^1 = {math.e:.1f}; e^{EPSILON:g} = {math.exp(EPSILON):.0f}; at ε = {once:.1f} the "
        f"factor has {len(str(int(math.exp(once))))} digits, which rules nothing out.",
        "A hospital could conclude: as most likely run, no noise was added and clipping alone "
        f"guarantees nothing (ε = ∞); with the documented noise, the ε of {EPSILON:g} holds for no "
        f"reading over {ROUNDS} rounds, and not for its own update in a single round either, "
        f"because an update may change by the clip norm of {CLIP_NORM:g}, not by "
        f"{_SETTING.sensitivity:g}. Only the secure sum hides it from the server, and that is "
        "protection by trust in the protocol and in the other hospitals' noise, not by this ε.",
        "A patient could conclude: nothing was promised about a single image. No record is "
        "clipped, so an image is protected only as part of its hospital's whole update; what "
        "protects one image is DP-SGD inside the hospital, whose noise multipliers stand in the "
        "third noise table.",
        f"The formula behind {SIGMA:.3f} is proved for ε below 1 only, and for one release; "
        f"exactly, that noise gives {gaussian_epsilon(SIGMA, 1, 1, DELTA):.2f} for one release at "
        "sensitivity 1.",
    ]


def _row(
    reading: str, unit: str, relation: str, sensitivity: float | None, sigma: float
) -> dict[str, Any]:
    once, total = (
        None if sensitivity is None else gaussian_epsilon(sigma, sensitivity, rounds, DELTA)
        for rounds in (1, ROUNDS)
    )
    return {
        "reading": reading,
        "unit": unit,
        "relation": relation,
        "sensitivity": sensitivity,
        "sigma": sigma,
        "delta": DELTA,
        "epsilon_round": once,
        "epsilon_total": total,
    }


def _added_up() -> dict[str, Any]:
    """The claimed ε of 6 a round, simply added up over the rounds, with its δ."""
    reading = "nominal, budgets added up (basic composition)"
    total, delta = basic_composition(EPSILON, DELTA, ROUNDS)
    claimed = {"delta": delta, "epsilon_round": EPSILON, "epsilon_total": total}
    return _row(reading, "hospital", "add or remove", 1.0, SIGMA) | claimed


def _weighted() -> float:
    """σ of FedAvg's weighted sum of ten, in the scale of the largest hospital's update."""
    sizes = dict(enumerate(SIZES_OF_TEN))
    largest = max(sizes, key=lambda hospital: sizes[hospital])
    return summed_multiplier(largest, dict.fromkeys(sizes, SIGMA), sizes)


def _title(epsilon: float) -> str:
    return f"ε = {epsilon:g}"
