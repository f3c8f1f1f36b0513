"""Secure aggregation as the federation's aggregator, on one rank or many.

Each rank plays the hospitals it trains: their keys, shares and masks never leave it, and an
update is encoded and masked as soon as it is there. Rank 0 plays the server: it gets the
protocol's small messages, and the sum over ranks of masked inputs, nothing unmasked of anybody
else's hospitals. So a rank holds one running sum, however many hospitals it has.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.federated.aggregation import Aggregated
from repro.federated.parallel.ranks import Ranks
from repro.random import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg import (
    Decoded,
    Directory,
    Encoding,
    Field,
    Hospital,
    Identity,
    MaskedSum,
    Round,
    RoundFailed,
    Server,
)
from repro.secagg.encoding import EXTRA
from repro.secagg.messages import Buffer
from repro.secagg.rounds import PHASES, SESSION_BYTES
from repro.typing import Float

Messages = Mapping[int, Buffer]  # hospital → what it sends, or what is sent to it
ServerStep = Callable[[Server, list[Buffer]], Messages]


class SecureAggregation:
    """FedAvg's weighted mean, of which the server learns the sum and nothing else.

    settings.drop_rate: each round, this fraction of hospitals (rounded down, drawn by the run's
        seed) is lost before it sends its masked input; the mean is of the others.
    Identities and session are fresh from the operating system in every process's life, and the
    result depends on none of them, nor on the number of ranks.
    concurrent: hospitals trained at once, which stay on one rank.
    """

    def __init__(
        self,
        settings: SecAggParameters,
        weights: dict[int, int],
        seed: RootSeed,
        ranks: Ranks,
        concurrent: int = 1,
    ) -> None:
        self.settings, self.seed, self.ranks = settings, seed, ranks
        self._owners = ranks.owners(weights, concurrent)
        self._identities = {
            one: Identity() for one, rank in sorted(self._owners.items()) if rank == ranks.rank
        }
        self._server_identity = Identity()
        self._directory, self._session = self._introduce()
        self._encoding = Encoding(
            Field(settings.field_bits),
            len(weights),
            settings.value_range,
            public_bound(weights),
            settings.levels,
        )
        self._number = 0
        self._new_round(1)  # a bad graph or threshold is found before anything is trained

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        """The phases before the masked inputs: fresh keys, and shares of them for neighbours."""
        self._round_number, self._weights, self._like = round_number, weights, like
        self._lost = self._draw_lost()
        self._up: Counter[str] = Counter()
        self._down: Counter[str] = Counter()
        round_ = self._new_round(like.numel())
        self._server = Server(self._server_identity, round_) if self.ranks.first else None
        self._hospitals = {
            one: Hospital(one, identity, round_) for one, identity in self._identities.items()
        }
        rosters = self._exchange(
            {one: hospital.advertise_keys() for one, hospital in self._hospitals.items()},
            "advertise",
            lambda server, received: server.advertise_keys(received),
        )
        self._deliveries = self._exchange(
            self._answer("share", rosters, Hospital.share_keys),
            "share",
            lambda server, received: server.share_keys(received),
        )
        sharers = self.ranks.broadcast(self._server and self._server.awaited)
        self._masked = MaskedSum(round_, sharers, self._identities)

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        """Encode, mask and add; the update is not kept."""
        if hospital in self._lost:
            return
        key = self.seed.derive("secagg rounding", hospital, self._round_number)
        encoded = self._encoding.encode(update.cpu().numpy(), self._weights[hospital], key)
        delivery = self._deliveries[hospital]
        message = self._hospitals[hospital].masked_input(delivery, encoded)
        self._down["masked"] += len(delivery)
        self._up["masked"] += len(message)
        self._masked.add(message)

    def finish(self) -> Aggregated:
        """The mean; or, where too few hospitals were left, no change: nothing was unmasked."""
        try:
            decoded, survivors = self._unmask()
        except RoundFailed as failure:
            facts: dict[str, Any] = {"survivors": 0, "failed": str(failure)}
            return Aggregated(torch.zeros_like(self._like), (), {"secagg": facts})
        up, down = self._traffic()
        facts = {
            "survivors": len(survivors),
            "dropped": sorted(self._lost),
            "max_error_bound": decoded.max_error_bound,
            "clipped_values": decoded.clipped_count,
            "up_bytes": up,
            "down_bytes": down,
        }
        mean = torch.from_numpy(decoded.mean.astype(np.float32)).to(self._like.device)
        return Aggregated(mean, survivors, {"secagg": facts})

    def _unmask(self) -> tuple[Decoded, tuple[int, ...]]:
        """The phases after the masked inputs. Raises RoundFailed, on all ranks alike."""
        total, signatures = self._sum_over_ranks()
        survivors = self._serve(lambda server: server.masked_sum(signatures, total))
        confirmations = self._exchange(
            self._answer("consistency", survivors, Hospital.consistency_check),
            "consistency",
            lambda server, received: server.consistency_check(received),
        )
        shares = self._answer("unmask", confirmations, Hospital.unmask)
        self._up["unmask"] += sum(map(len, shares.values()))
        received = _joined(self.ranks.collect(shares))
        decoded: Decoded = self._on_server(
            lambda server: self._encoding.decode(server.unmask(received), len(signatures))
        )
        return decoded, tuple(sorted(signatures))

    def _introduce(self) -> tuple[Directory, bytes]:
        """Everybody's public keys, which the protocol takes as known, and the session's name."""
        mine = {one: identity.public for one, identity in self._identities.items()}
        hospitals = {one: key for part in self.ranks.gather(mine) for one, key in part.items()}
        server, session = self.ranks.broadcast(
            (self._server_identity.public, secrets.token_bytes(SESSION_BYTES))
        )
        return Directory(server, hospitals), session

    def _new_round(self, dimension: int) -> Round:
        self._number += 1
        return Round(
            directory=self._directory,
            session=self._session,
            number=self._number,
            threshold=self.settings.threshold,
            neighbours=self.settings.neighbours,
            dimension=dimension + EXTRA,
            field=self._encoding.field,
        )

    def _answer(
        self, phase: str, received: Messages, step: Callable[[Hospital, Buffer], bytearray]
    ) -> Messages:
        """This rank's hospitals' answers to the server's messages."""
        self._down[phase] += sum(map(len, received.values()))
        return {one: step(self._hospitals[one], message) for one, message in received.items()}

    def _exchange(self, sent: Messages, phase: str, step: ServerStep) -> Messages:
        """This rank's hospitals' messages to the server → the server's messages to them."""
        self._up[phase] += sum(map(len, sent.values()))
        received = _joined(self.ranks.collect(sent))
        return self._serve(lambda server: step(server, received))

    def _serve(self, step: Callable[[Server], Messages]) -> Messages:
        """Rank 0 takes a step as the server and hands each rank its hospitals' messages."""
        parts: list[Any] = []
        if self._server is not None:
            parts = [{} for _ in range(self.ranks.size)]
            try:
                for one, message in step(self._server).items():
                    parts[self._owners[one]][one] = message
            except RoundFailed as failure:
                parts = [_packed(failure)] * self.ranks.size
        return _unpacked(self.ranks.hand_out(parts))

    def _on_server(self, step: Callable[[Server], Any]) -> Any:
        """What a step of the server, played by rank 0, gives: on every rank."""
        result: Any = None
        if self._server is not None:
            try:
                result = step(self._server)
            except RoundFailed as failure:
                result = _packed(failure)
        return _unpacked(self.ranks.broadcast(result))

    def _sum_over_ranks(self) -> tuple[np.ndarray, dict[int, bytes]]:
        """The masked inputs' sum in the field, and their senders' signatures."""
        total = field_sum(self.ranks, self._masked.total, self._encoding.field)
        parts = self.ranks.gather(self._masked.signatures)
        signatures = {one: signed for part in parts for one, signed in part.items()}
        return total, signatures

    def _traffic(self) -> tuple[dict[str, int], dict[str, int]]:
        """Bytes to and from the server by phase, of all hospitals."""
        up, down = Counter[str](), Counter[str]()
        for sent, received in self.ranks.gather((self._up, self._down)):
            up.update(sent)
            down.update(received)
        return {phase: up[phase] for phase in PHASES}, {phase: down[phase] for phase in PHASES}

    def _draw_lost(self) -> set[int]:
        count = int(self.settings.drop_rate * len(self._weights))
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", self._round_number)
        return {int(h) for h in stream.choice(sorted(self._weights), count, replace=False)}


def public_bound(weights: dict[int, int]) -> int:
    """A public bound on every hospital's number of images: the next power of two.

    The encoding's steps are as fine as this bound is close. Rounding up keeps what is public
    coarse: the sizes themselves travel inside the masked vectors.
    """
    return 1 << (max(weights.values()) - 1).bit_length()


def field_sum(ranks: Ranks, vector: np.ndarray, field: Field) -> np.ndarray:
    """Σ over ranks of (n,) field elements, modulo p, by sums of int64 that cannot overflow.

    An element's low 31 bits and what is above them are added apart; each such sum is below
    ranks · 2³¹. With p = 2⁶¹ − 1 and high = 2³⁰·a + b, 2³¹·high = 2⁶¹·a + 2³¹·b ≡ a + 2³¹·b.
    """
    elements = torch.from_numpy(vector.astype(np.int64))
    total = ranks.sum_(elements & (2**31 - 1)).numpy()
    if field.bits > 31:
        high = ranks.sum_(elements >> 31).numpy()
        total = total + (high >> 30) + ((high & (2**30 - 1)) << 31)
    return (total % field.modulus).astype(field.dtype)


def _joined(parts: list[Messages]) -> list[Buffer]:
    return [message for part in parts for message in part.values()]


class _Failed(tuple[str, list[int], str]):
    """A RoundFailed on its way to the other ranks (an exception's own pickle loses its parts)."""


def _packed(failure: RoundFailed) -> _Failed:
    return _Failed((failure.phase, failure.remaining, failure.needed))


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Failed):
        raise RoundFailed(*value)
    return value
