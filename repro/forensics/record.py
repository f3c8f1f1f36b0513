"""Answers of a release and of our code, measured alike: the JSON of record."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from repro.forensics.environments import Answer
from repro.forensics.plan import ARRANGEMENTS, Settings

FORMAT = 1
_ALIKE = ("stage", "where", "exception", "message")


def of_draws(draws: np.ndarray) -> dict[str, Any]:
    """One update as it was sent many times over, (draws, size).

    deviation: of the noise on a parameter, between draws, pooled over the parameters, hence
    free of whatever every draw has in common. Of n = size·(draws − 1) independent Gaussian
    values it is known to one part in √(2n). norm: the mean L2 norm of what is sent.
    """
    count, size = draws.shape
    return {
        "deviation": float(np.sqrt(draws.var(axis=0, ddof=1).mean())),
        "all_equal": bool((draws == draws[0]).all()),
        "values": size * (count - 1),
        "norm": float(np.linalg.norm(draws, axis=1).mean()),
    }


def of_models(models: np.ndarray, settings: Settings) -> dict[str, Any]:
    """The global model before and after every round, (1 + rounds, size).

    deviation: of the rounds that changed the model, root mean square of what they added beyond
    the mean of the clipped updates; None where no round changed it.
    """
    steps = np.diff(models, axis=0)
    steps = steps[(steps != 0).any(axis=1)]
    updates = settings.updates().astype(np.float64)
    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    clipped = updates * np.minimum(1, settings.clip_norm / norms)
    beyond = steps - clipped.mean(axis=0)
    return {
        "rounds_changed": len(steps),
        "deviation": float(np.sqrt(np.mean(beyond**2))) if len(steps) else None,
    }


def of_failures(failures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Alike but for round and hospital: once, with how many messages of which rounds failed so."""
    alike: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in failures:
        what: dict[str, Any] = {name: one[name] for name in _ALIKE}
        kept = alike.setdefault(tuple(what.values()), {**what, "messages": 0, "rounds": []})
        kept["messages"] += 1
        if one["round"] not in kept["rounds"]:
            kept["rounds"].append(one["round"])
    return list(alike.values())


def of_release(answer: Answer, settings: Settings) -> dict[str, Any]:
    facts = answer.facts
    return {
        "release": answer.release,
        "python": facts["python"],
        "versions": facts["versions"],
        "modifier": of_draws(answer.draws) | {"said_deviation": facts["said_deviation"]},
        "fewest_hospitals": facts["fewest_hospitals"],
        "arrangements": {
            name: of_models(answer.models[name], settings)
            | {
                "failures": of_failures(told["failures"]),
                "server_errors": told["server_errors"],
                "raised": told["raised"],
            }
            for name, told in facts["arrangements"].items()
        },
    }


def of_ours(settings: Settings) -> dict[str, Any]:
    """``clip`` and ``noise``, each with its modifier and its federations, secure and plain."""
    from repro.forensics import ours  # needs torch, which reading answers does not

    return {
        name: {
            "modifier": of_draws(ours.draws(settings, noise=noise)),
            "arrangements": {
                where: of_models(ours.models(settings, noise=noise, secure=secure), settings)
                for where, secure in (("secure", True), ("default", False))
            },
        }
        for name, noise in (("clip", False), ("noise", True))
    }


def documented(settings: Settings) -> dict[str, float]:
    """What the noise should be on a parameter of one update, and of the mean of all.

    √(2 ln(1.25/δ)) · sensitivity / ε, as the modifier documents [flwr]; hospitals weigh alike.
    """
    sigma = math.sqrt(2 * math.log(1.25 / settings.delta)) * settings.sensitivity
    sigma /= settings.epsilon
    return {"update": sigma, "mean": sigma / math.sqrt(settings.hospitals)}


def as_record(
    answers: Iterable[Answer], settings: Settings, where: dict[str, Any], date: str
) -> dict[str, Any]:
    """where: environment and code of this run (``repro.runs.provenance``). date: ISO 8601."""
    question = settings.question()
    return {
        "format": FORMAT,
        "date": date,
        "settings": {key: question[key] for key in question if key != "arrangements"},
        "arrangements": [
            {"name": one.name, "mods": list(one.mods), "secure": one.secure} for one in ARRANGEMENTS
        ],
        "documented": documented(settings),
        "releases": [of_release(answer, settings) for answer in answers],
        "ours": of_ours(settings),
        **where,
    }
