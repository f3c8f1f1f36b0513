"""Secure aggregation as the federation's aggregator, on one rank or many.

Each rank plays the hospitals it trains: their keys, shares and masks never leave it, and an
update is encoded and masked as soon as it is there. Rank 0 plays the server: it gets the
protocol's small messages, and the sum over ranks of masked inputs, nothing unmasked of anybody
else's hospitals. So a rank holds one running sum, however many hospitals it has. The round
itself is ``repro.secagg.driver``'s; this module moves its messages over ranks.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.federated.aggregation import Aggregated
from repro.federated.parallel.ranks import Ranks
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg import (
    Contribution,
    Decoded,
    Directory,
    Encoding,
    Field,
    Identity,
    Round,
    RoundDriver,
    RoundFailed,
    joint_session,
    model_digest,
    session_commitment,
    settings_digest,
)
from repro.secagg.context import DIGEST_BYTES
from repro.secagg.session import NONCE_BYTES
from repro.shapes import Float


class SecureAggregation:
    """FedAvg's weighted mean, of which the server learns the sum and nothing else.

    settings.drop_rate: each round, this fraction of hospitals (rounded down, drawn by the run's
        seed) is lost before it sends its masked input; the mean is of the others.
    Identities and session are fresh from the operating system in every process's life, and the
    result depends on none of them, nor on the number of ranks.
    training: settings that all hospitals must hold alike; every round is bound to them and to the
        global model.
    """

    def __init__(
        self,
        settings: SecAggParameters,
        weights: dict[int, int],
        seed: RootSeed,
        ranks: Ranks,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings, self.seed, self.ranks = settings, seed, ranks
        self._owners = ranks.owners(weights)
        self._identities = {
            one: Identity() for one, rank in sorted(self._owners.items()) if rank == ranks.rank
        }
        self._server_identity = Identity()
        self._directory, self._session = self._introduce()
        self._training = settings_digest({"secagg": asdict(settings), **(training or {})})
        self._encoding = weighted_encoding(settings, weights)
        self._number = 0
        # A bad graph or threshold is found before anything is trained.
        self._round(1, 1, bytes(DIGEST_BYTES))

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        """The phases before the masked inputs: fresh keys, and shares of them for neighbours.

        like: the global model's vector, (P,): the round is bound to it.
        """
        self._round_number, self._weights, self._like = round_number, weights, like
        self._lost = self._draw_lost()
        self._number += 1
        model = model_digest(like.detach().cpu().numpy())
        self._driver = RoundDriver(
            self._round(self._number, like.numel(), model),
            self._identities,
            self._server_identity,
            places=self.ranks,
            owners=self._owners,
            drop={"masked": self._lost},
        )
        self._failed: RoundFailed | None = None
        try:
            self._driver.begin()
        except RoundFailed as failure:
            self._failed = failure

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        """Encode, mask and add; the update is not kept."""
        if hospital in self._lost or self._failed is not None:
            return
        self._driver.add(hospital, self.contribution(hospital, update))

    def contribution(self, hospital: int, update: Float[Tensor, " size"]) -> Contribution:
        """What a hospital puts into the sum."""
        key = self.seed.derive("secagg rounding", hospital, self._round_number)
        return Contribution(update.cpu().numpy(), self._weights[hospital], key)

    def finish(self) -> Aggregated:
        """The mean; or no change, where too few hospitals were left or the sum is impossible."""
        try:
            decoded = self._unmask()
        except RoundFailed as failure:
            facts: dict[str, Any] = {"survivors": 0, "failed": str(failure)}
            return Aggregated(torch.zeros_like(self._like), (), {"secagg": facts})
        up, down = self._driver.traffic_everywhere()
        facts = {
            "survivors": len(self._driver.survivors),
            "dropped": sorted(self._lost),
            "max_error_bound": decoded.max_error_bound,
            "clipped_values": decoded.clipped_count,
            "up_bytes": up,
            "down_bytes": down,
        }
        mean = torch.from_numpy(decoded.mean.astype(np.float32)).to(self._like.device)
        return Aggregated(mean, self._driver.survivors, {"secagg": facts})

    def _unmask(self) -> Decoded:
        """The phases after the masked inputs. Raises RoundFailed, on all ranks alike."""
        if self._failed is not None:
            raise self._failed
        self._driver.unmask()
        return self._driver.decode()

    def _introduce(self) -> tuple[Directory, bytes]:
        """Everybody's public keys, which the protocol takes as known, and the session's name."""
        mine = {one: identity.public for one, identity in self._identities.items()}
        hospitals = _together(self.ranks.gather(mine))
        server = self.ranks.broadcast(self._server_identity.public)
        nonces = {one: secrets.token_bytes(NONCE_BYTES) for one in mine}
        hidden = {one: session_commitment(one, nonce) for one, nonce in nonces.items()}
        commitments = _together(self.ranks.gather(hidden))
        session = joint_session(commitments, _together(self.ranks.gather(nonces)))
        return Directory(server, hospitals), session

    def _round(self, number: int, length: int, model: bytes) -> Round:
        return Round(
            directory=self._directory,
            session=self._session,
            number=number,
            threshold=self.settings.threshold,
            neighbours=self.settings.neighbours,
            encoding=self._encoding,
            length=length,
            model=model,
            training=self._training,
        )

    def _draw_lost(self) -> set[int]:
        count = int(self.settings.drop_rate * len(self._weights))
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", self._round_number)
        return {int(h) for h in stream.choice(sorted(self._weights), count, replace=False)}


def weighted_encoding(settings: SecAggParameters, weights: dict[int, int]) -> Encoding:
    """Of updates, each weighted by its hospital's number of images."""
    return Encoding(
        Field(settings.field_bits),
        len(weights),
        settings.value_range,
        public_bound(weights),
        settings.levels,
    )


def public_bound(weights: dict[int, int]) -> int:
    """A public bound on every hospital's number of images: the next power of two.

    The encoding's steps are as fine as this bound is close. Rounding up keeps what is public
    coarse: the sizes themselves travel inside the masked vectors.
    """
    return 1 << (max(weights.values()) - 1).bit_length()


def _together(parts: list[dict[int, bytes]]) -> dict[int, bytes]:
    return {one: value for part in parts for one, value in part.items()}
