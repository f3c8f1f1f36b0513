"""The curves of Figure 8: ε against rounds for each reading, and the noise an ε needs.

Command: ``repro figure epsilon`` draws it. Cost and hardware: about 2 s on any CPU; no run, no
data, no torch. Expected: every reading of the documented noise is above ε = 6 from the first or
second round on; a total of 6 over 50 rounds needs σ = 32.8 on an update seen alone [calc].
"""

from __future__ import annotations

import math
from typing import Any

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.gaussian import gaussian_epsilon, gaussian_sigma
from repro.report.items.table2_privacy import (
    CLIP_NORM,
    DELTA,
    EPSILON,
    LOCAL_EPOCHS,
    ROUNDS,
    SIGMA,
)

#: label → (sensitivity, hospitals whose noise adds up).
READINGS = {
    "nominal (sensitivity 1)": (1.0, 1),
    "add or remove an update": (CLIP_NORM, 1),
    "replace an update": (2 * CLIP_NORM, 1),
    "secure sum of 10, add or remove": (CLIP_NORM, 10),
    "secure sum of 10, replace": (2 * CLIP_NORM, 10),
    "secure sum of 20, add or remove": (CLIP_NORM, 20),
    "secure sum of 20, replace": (2 * CLIP_NORM, 20),
}

TARGETS = tuple(0.5 * 1.25**i for i in range(18))  # ε from 0.5 to 22


def series() -> dict[str, dict[str, Any]]:
    """Three panels: name → title, x and y labels, lines (label, x, y) and reference lines."""
    return {
        "epsilon_against_rounds": {
            "title": f"ε of the documented noise, σ = {SIGMA:.3f}, δ = {DELTA:g}",
            "x_label": "rounds",
            "y_label": "ε (one hospital's update)",
            "y_scale": "log",
            "lines": epsilon_against_rounds(),
            "references": [{"label": f"ε = {EPSILON:g}, as set", "y": EPSILON}],
        },
        "noise_against_epsilon": {
            "title": f"σ each hospital must add, total over {ROUNDS} rounds",
            "x_label": "total ε",
            "y_label": "σ per parameter",
            "x_scale": "log",
            "y_scale": "log",
            "lines": noise_against_epsilon(),
            "references": [{"label": f"σ = {SIGMA:.3f}, as set", "y": SIGMA}],
        },
        "multiplier_against_epsilon": {
            "title": f"DP-SGD inside a hospital, {LOCAL_EPOCHS} local epochs",
            "x_label": "total ε per record",
            "y_label": "noise multiplier",
            "x_scale": "log",
            "y_scale": "log",
            "lines": multiplier_against_epsilon(),
            "references": [],
        },
    }


def epsilon_against_rounds(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """ε after 1 … ``rounds`` rounds for each reading, and the claimed ε added up."""
    x = list(range(1, rounds + 1))
    lines = [
        {
            "label": label,
            "x": x,
            "y": [gaussian_epsilon(SIGMA * math.sqrt(k), change, t, DELTA) for t in x],
        }
        for label, (change, k) in READINGS.items()
    ]
    return [
        *lines,
        {"label": f"{EPSILON:g} a round, added up", "x": x, "y": [EPSILON * t for t in x]},
    ]


def noise_against_epsilon() -> list[dict[str, Any]]:
    """σ each hospital must add for a total ε over 50 rounds, for each honest reading."""
    return [
        {
            "label": label,
            "x": list(TARGETS),
            "y": [gaussian_sigma(e, change, ROUNDS, DELTA) / math.sqrt(k) for e in TARGETS],
        }
        for label, (change, k) in READINGS.items()
        if change != 1.0
    ]


def multiplier_against_epsilon() -> list[dict[str, Any]]:
    """Noise multiplier of DP-SGD against its total ε, for the mean hospital of ten and twenty."""
    lines = []
    for images, batch in ((956, 32), (956, 128), (478, 32)):
        steps = LOCAL_EPOCHS * images // batch
        y = [calibrate_noise_multiplier(e, DELTA, batch / images, steps)[0] for e in TARGETS]
        lines.append({"label": f"{images} images, batch {batch}", "x": list(TARGETS), "y": y})
    return lines
