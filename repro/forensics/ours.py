"""The same questions to our own code: update mechanisms, and a mean that is secure or plain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from repro.forensics.plan import Settings
from repro.privacy.mechanisms import (
    ClipAndNoiseUpdate,
    ClipUpdate,
    UpdateMechanism,
    local_dp_mod_sigma,
)
from repro.randomness import RootSeed
from repro.secagg import Contribution, Encoding, Field, Party, Round, run_round
from repro.secagg.context import DIGEST_BYTES


def mechanism(settings: Settings, *, noise: bool) -> UpdateMechanism:
    """Clipping as the modifier is set, with the noise it documents or without."""
    if not noise:
        return ClipUpdate(settings.clip_norm)
    sigma = local_dp_mod_sigma(settings.epsilon, settings.delta, settings.sensitivity)
    return ClipAndNoiseUpdate(settings.clip_norm, sigma)


def draws(settings: Settings, *, noise: bool) -> np.ndarray:
    """The first hospital's update as it is sent, again and again: (draws, size) float64."""
    update = settings.updates()[0]
    seed = RootSeed.from_user(settings.seed)
    sent = [_sent(settings, seed, update, 0, turn, noise) for turn in range(settings.draws)]
    return np.stack(sent)


def models(settings: Settings, *, noise: bool, secure: bool) -> np.ndarray:
    """The global model before and after every round, (1 + rounds, size) float64.

    Rounds follow those of ``draws``, so that no key of the noise is used for another update.
    """
    return np.cumsum([np.zeros(settings.size), *_means(settings, noise, secure)], axis=0)


def _means(settings: Settings, noise: bool, secure: bool) -> Iterator[np.ndarray]:
    updates, seed = settings.updates(), RootSeed.from_user(settings.seed)
    party = Party(range(settings.hospitals))
    first = settings.draws + (settings.rounds if secure else 0)
    for number in range(settings.rounds):
        turn = first + number
        sent = [
            _sent(settings, seed, update, hospital, turn, noise)
            for hospital, update in enumerate(updates)
        ]
        if secure:
            keys = [seed.derive("secagg rounding", one, turn) for one in party.hospitals]
            yield _secure_mean(settings, party, number + 1, sent, keys)
        else:
            yield np.mean(sent, axis=0)


def _secure_mean(
    settings: Settings, party: Party, number: int, sent: list[np.ndarray], keys: list[int]
) -> np.ndarray:
    """(size,) float64: what a round of secure aggregation makes of the hospitals' updates."""
    encoding = Encoding(Field(31), settings.hospitals, max_weight=settings.max_weight)
    round_ = Round(
        directory=party.directory,
        session=party.session,
        number=number,
        threshold=settings.threshold,
        neighbours=min(settings.shares, settings.hospitals) - 1,
        encoding=encoding,
        length=settings.size,
        model=bytes(DIGEST_BYTES),
        training=bytes(DIGEST_BYTES),
    )
    completed = run_round(
        party, round_, lambda one: Contribution(sent[one], settings.examples, keys[one])
    )
    return encoding.decode(completed.total, len(completed.survivors)).mean


def _sent(
    settings: Settings, seed: RootSeed, update: np.ndarray, hospital: int, turn: int, noise: bool
) -> np.ndarray:
    act = mechanism(settings, noise=noise)
    sent, _ = act(torch.from_numpy(update), seed=seed, party=hospital, round=turn)
    return sent.numpy().astype(np.float64)
