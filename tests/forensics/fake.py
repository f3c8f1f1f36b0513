"""Environments that answer as recorded, without Flower and without a network.

``environments(folder)`` leaves a ready environment for every release. Its ``bin/python`` runs
this file, which answers ``inside``'s questions from what the releases were found to do.
"""

import json
import sys
from pathlib import Path

import numpy as np

SIGMA = 0.698873  # the documented deviation [code]
KEY_ERROR = {"exception": "KeyError", "message": "'fitins.parameters'", "stage": "setup"}
KEY_ERROR |= {"where": "localdp_mod.__call__"}


def environments(folder, releases=("1.13.1", "1.14.0"), script=None):
    """Ready environments below ``folder``; script: what their Python does instead."""
    for release in releases:
        python = folder / f"flwr-{release}" / "bin" / "python"
        python.parent.mkdir(parents=True)
        answer = f'exec "{sys.executable}" "{__file__}" {release} "$@"'
        python.write_text(f"#!/bin/sh\n{script or answer}\n")
        python.chmod(0o755)
        (python.parents[1] / "ready").touch()


def answer(release, work):
    """Noise in 1.14.0 alone; the set-up message fails where local DP meets it first."""
    question = json.loads((work / "settings.json").read_text())
    updates = np.load(work / "updates.npy").astype(float)
    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    clipped = updates * np.minimum(1, question["clip_norm"] / norms)
    random = np.random.default_rng(1)
    sigma = SIGMA if release == "1.14.0" else 0.0
    shape = (question["draws"], clipped.shape[1])
    np.save(work / "draws.npy", clipped[0] + sigma * random.standard_normal(shape))
    told = {}
    for one in question["arrangements"]:
        fails = one["secure"] and one["mods"][0] == "local-dp"
        steps = clipped.mean(axis=0) + sigma / 2 * random.standard_normal((2, clipped.shape[1]))
        models = np.cumsum([np.zeros_like(steps[0]), *steps], axis=0) * (not fails)
        np.save(work / f"{one['name']}.npy", models)
        failures = [
            KEY_ERROR | {"round": round, "hospital": hospital}
            for round in (1, 2)
            for hospital in range(1, 5)
        ]
        told[one["name"]] = {"failures": failures if fails else [], "raised": None}
        told[one["name"]]["server_errors"] = []
    facts = {"python": "3.11.7", "versions": {"flwr": release, "numpy": "2.0"}}
    facts |= {"said_deviation": SIGMA, "fewest_hospitals": 4, "arrangements": told}
    (work / "answer.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    answer(sys.argv[1], Path(sys.argv[-1]))
