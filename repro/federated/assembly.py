"""Makes an arm's round protocol and ledger from its settings.

This is the one place where ``repro.privacy`` and ``repro.secagg`` meet the federation.
"""

from __future__ import annotations

import math

from torch import nn

from repro.accounting import gaussian_sigma
from repro.accounting.checks import HOSPITAL, RECORD
from repro.accounting.ledger import FederatedLedger
from repro.errors import InputError
from repro.federated.aggregation import Aggregator, PlainAggregator
from repro.federated.averaging import Averaging
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import RoundProtocol
from repro.federated.shared.exact import ExactSecondOrderTrainer
from repro.federated.shared.search import SearchTrainer
from repro.federated.shared.second_order import SecondOrderTrainer
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
from repro.randomness import RootSeed
from repro.runs.settings import RunSettings, UpdatePrivacy


def round_protocol(
    settings: RunSettings,
    weights: dict[int, int],
    model: nn.Module,
    seed: RootSeed,
    ranks: Ranks,
    held_out: dict[int, int] | None = None,
) -> RoundProtocol:
    """What the arm does in a round, on the device that ``model`` is on.

    weights: hospital -> its training images, of all hospitals; held_out: its images that a private
    search scores trials on. Raises InputError where settings do not go together, so that nothing is
    trained in vain.
    """
    if settings.shared is None:
        return Averaging(
            model,
            _trainer(settings, weights),
            update_mechanism(settings.update_privacy, settings.rounds),
            _aggregator(settings, weights, seed, ranks),
            weights,
            seed=seed,
            ranks=ranks,
        )
    if ranks.size > 1:
        raise InputError("ranks", ranks.size, "1: steps shared by all hospitals run in one process")
    shared, second, rounds = settings.shared, settings.second_order, settings.rounds
    if settings.record_privacy is None:  # the one way to exact sums: nothing is promised
        assert settings.twin_of is not None
        assert second is not None
        return ExactSecondOrderTrainer(
            settings.twin_of, second, shared, weights, model, rounds=rounds, seed=seed
        )
    if settings.secagg is None and (len(weights) > 1 or shared.colluders):
        raise InputError(
            "secagg", None, "secure aggregation, in which hospitals share noise, or one place alone"
        )
    parts = shared, settings.secagg, weights, model
    if settings.search is not None and second is not None:
        return SearchTrainer(
            settings.record_privacy, settings.search, second, *parts, held_out or {}, seed=seed
        )
    if second is not None:
        return SecondOrderTrainer(settings.record_privacy, second, *parts, rounds=rounds, seed=seed)
    return SharedNoiseTrainer(
        settings.record_privacy, *parts, epochs=settings.local.epochs, rounds=rounds, seed=seed
    )


def ledger(
    settings: RunSettings, weights: dict[int, int], seed: RootSeed, protocol: RoundProtocol
) -> FederatedLedger | None:
    """For every arm that is private, or was called so; plain arms claim nothing."""
    claims = settings.record_privacy or settings.update_privacy
    if claims is None:
        return None
    assert protocol.mechanism is not None
    return FederatedLedger(
        unit=HOSPITAL if settings.record_privacy is None else RECORD,
        mechanism=protocol.mechanism,
        delta=claims.delta,
        hospital_sizes=weights,
        aggregation="plain" if settings.secagg is None else "secure",
        clip_norm=claims.clip_norm,
        seed_source=seed.source,
        views=protocol.views,
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
    if settings.robustness is not None:
        from repro.federated.bounded import BoundedAggregation
        from repro.federated.robust import GroupedAggregation

        robustness = settings.robustness
        if robustness.norm is not None:
            return BoundedAggregation(robustness, settings.secagg, weights, ranks, known)
        clip = settings.update_privacy.clip_norm if settings.update_privacy else math.inf
        return GroupedAggregation(robustness, settings.secagg, weights, clip, seed, ranks, known)
    return SecureAggregation(settings.secagg, weights, seed, ranks, known)
