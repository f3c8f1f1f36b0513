"""Composes an arm's three parts from its settings: local trainer, mechanism, aggregator.

This is the one place where ``repro.privacy`` and ``repro.secagg`` meet the federation.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.accounting import (
    GaussianEvent,
    NonPrivateEvent,
    PrivacyEvent,
    gaussian_sigma,
)
from repro.accounting.ledger import FederatedLedger
from repro.errors import InputError
from repro.federated.aggregation import Aggregator, PlainAggregator
from repro.federated.parallel.ranks import Ranks
from repro.federated.shared.exact import ExactSecondOrderTrainer
from repro.federated.shared.search import SearchTrainer
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.spending import shared_views
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.logistic import LogisticTrainer
from repro.federated.training.plain import LocalTrainer, PlainTrainer
from repro.federated.training.private import PrivateTrainer
from repro.privacy.mechanisms import (
    ClipAndNoiseUpdate,
    ClipUpdate,
    Identity,
    UpdateMechanism,
    local_dp_mod_sigma,
)
from repro.random import RootSeed
from repro.runs.settings import RunSettings, UpdatePrivacy


@dataclass(frozen=True)
class Parts:
    """What an arm is made of."""

    trainer: LocalTrainer | SharedNoiseTrainer | SecondOrderTrainer | SearchTrainer
    mechanism: UpdateMechanism
    aggregator: Aggregator
    update_event: PrivacyEvent | None  # what each round costs a hospital whose update is clipped
    ledger: FederatedLedger | None


def compose_parts(
    settings: RunSettings,
    weights: dict[int, int],
    seed: RootSeed,
    ranks: Ranks,
    size: int,
    classes: int,
    held_out: dict[int, int] | None = None,
) -> Parts:
    """size: the model's number of parameters; classes: of its outputs; held_out: hospital -> its
    images that a private search scores trials on."""
    mechanism = update_mechanism(settings.update_privacy, settings.rounds)
    shared = _shared_trainer(settings, weights, seed, ranks, size, classes, held_out or {})
    return Parts(
        trainer=shared or _trainer(settings, weights),
        mechanism=mechanism,
        aggregator=PlainAggregator(ranks)
        if shared
        else _aggregator(settings, weights, seed, ranks),
        update_event=_update_event(mechanism),
        ledger=_ledger(settings, weights, seed),
    )


def _update_event(mechanism: UpdateMechanism) -> PrivacyEvent | None:
    if isinstance(mechanism, ClipAndNoiseUpdate):
        multiplier = mechanism.noise_std / mechanism.clip_norm
        return GaussianEvent(multiplier, unit="hospital")
    if isinstance(mechanism, ClipUpdate):
        return NonPrivateEvent(unit="hospital")
    return None


def _ledger(
    settings: RunSettings, weights: dict[int, int], seed: RootSeed
) -> FederatedLedger | None:
    """For every arm that is private, or was called so; plain arms claim nothing."""
    claims = settings.record_privacy or settings.update_privacy
    if claims is None:
        return None
    by_record = settings.record_privacy is not None
    noiseless = not by_record and settings.mechanism == "clip"
    return FederatedLedger(
        unit="record" if by_record else "hospital",
        mechanism="best of a random number of trainings, shared noise"
        if settings.search
        else "second-order steps, shared noise"
        if settings.second_order
        else "dp-sgd, shared noise"
        if settings.shared
        else "dp-sgd"
        if by_record
        else "clipping only"
        if noiseless
        else "gaussian update",
        delta=claims.delta,
        hospital_sizes=weights,
        aggregation="secure" if settings.secagg is not None else "plain",
        clip_norm=claims.clip_norm,
        seed_source=seed.source,
        views=shared_views(settings.shared.colluders) if settings.shared else None,
    )


def _shared_trainer(
    settings: RunSettings,
    weights: dict[int, int],
    seed: RootSeed,
    ranks: Ranks,
    size: int,
    classes: int,
    held_out: dict[int, int],
) -> SharedNoiseTrainer | SecondOrderTrainer | SearchTrainer | None:
    if settings.shared is None:
        return None
    if ranks.size > 1:
        raise InputError("ranks", ranks.size, "1: steps shared by all hospitals run in one process")
    if settings.record_privacy is None:  # the one way to exact sums: nothing is promised
        assert settings.twin_of is not None
        assert settings.second_order is not None
        return ExactSecondOrderTrainer(
            settings.twin_of,
            settings.second_order,
            settings.shared,
            weights,
            features=size // classes,
            classes=classes,
            rounds=settings.rounds,
            seed=seed,
        )
    assert settings.secagg is not None
    if settings.search is not None:
        assert settings.second_order is not None
        return SearchTrainer(
            settings.record_privacy,
            settings.search,
            settings.second_order,
            settings.shared,
            settings.secagg,
            weights,
            held_out,
            features=size // classes,
            classes=classes,
            seed=seed,
        )
    if settings.second_order is not None:
        return SecondOrderTrainer(
            settings.record_privacy,
            settings.second_order,
            settings.shared,
            settings.secagg,
            weights,
            features=size // classes,
            classes=classes,
            rounds=settings.rounds,
            seed=seed,
        )
    return SharedNoiseTrainer(
        settings.record_privacy,
        settings.shared,
        settings.secagg,
        weights,
        dimension=size,
        epochs=settings.local.epochs,
        rounds=settings.rounds,
        seed=seed,
    )


def _trainer(settings: RunSettings, weights: dict[int, int]) -> LocalTrainer:
    if settings.logistic_ridge is not None:
        return LogisticTrainer(settings.logistic_ridge)
    if settings.record_privacy is None:
        return PlainTrainer(settings.local)
    return PrivateTrainer(
        settings.record_privacy, weights, epochs=settings.local.epochs, rounds=settings.rounds
    )


def update_mechanism(settings: UpdatePrivacy | None, rounds: int) -> UpdateMechanism:
    if settings is None:
        return Identity()
    if settings.noise == "none":
        return ClipUpdate(settings.clip_norm)
    if settings.noise == "documented":
        sigma = local_dp_mod_sigma(settings.epsilon, settings.delta, settings.sensitivity)
    else:
        # Exact Gaussian accounting of all rounds, adding or removing a hospital's update.
        sigma = gaussian_sigma(settings.epsilon, settings.clip_norm, rounds, settings.delta)
    return ClipAndNoiseUpdate(settings.clip_norm, sigma)


def _aggregator(
    settings: RunSettings, weights: dict[int, int], seed: RootSeed, ranks: Ranks
) -> Aggregator:
    if settings.secagg is None:
        return PlainAggregator(ranks)
    from repro.federated.secure import SecureAggregation

    known = {name: value for name, value in settings.as_dict().items() if name != "seed"}
    return SecureAggregation(settings.secagg, weights, seed, ranks, known)
