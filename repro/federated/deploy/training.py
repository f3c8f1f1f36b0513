"""A plan in force: the arm's round protocol, and each of its exchanges as a round of secure sums.

The same at the server and at every hospital; what one of them alone may know (records, the seed of
its noise) enters ``contribution`` only.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.accounting import PrivacyEvent
from repro.accounting.ledger import FederatedLedger
from repro.data import BLOODMNIST
from repro.data.npz import read_npz
from repro.errors import InputError
from repro.federated.assembly import ledger, round_protocol
from repro.federated.bounded import ProvedUpdates
from repro.federated.deploy.counts import check_records, slots_event
from repro.federated.deploy.plan import TrainingPlan, sizes_of
from repro.federated.deploy.signed import plain_json
from repro.federated.deploy.whitening_file import whitening_facts
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import Place
from repro.federated.secure import weighted_encoding
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.rounds import SharedRounds
from repro.federated.shared.spending import spent_on
from repro.federated.shared.sum import integer_encoding
from repro.federated.trained_part import trained_part
from repro.federated.training.plain import HospitalData
from repro.federated.vector import to_vector
from repro.randomness import RootSeed
from repro.secagg import Contribution, Directory, Round, model_digest
from repro.secagg.bounded import BoundedRound
from repro.secagg.deploy.directory import FederationDirectory, Settings
from repro.secagg.deploy.holding import Sum
from repro.secagg.encoding import VectorEncoding
from repro.secagg.errors import Refused
from repro.secagg.rounds import BaseRound

_HEADER = struct.Struct("<4sH32sQQB")  # magic, version, plan's digest, round, step, dtype
_MAGIC, _VERSION = b"RFED", 1
_DTYPES = (torch.float32, torch.float64)
_NUMPY = ("<f4", "<f8")
_MOST_AWAY = 16  # rounds that a hospital may miss where the order of neighbours is to be drawn
Spent = tuple[list[tuple[int, PrivacyEvent, int]], dict[int, dict[str, PrivacyEvent]]]


class Training:
    """seed: of the noise and of what is drawn at this party; None: the plan's public one, or the
    operating system's. device: to train on; None: CUDA if there is any."""

    def __init__(
        self, plan: TrainingPlan, *, seed: RootSeed | None = None, device: str | None = None
    ) -> None:
        self.plan, self.settings, self.weights = plan, plan.settings, plan.weights
        self.seed = seed or fresh_seed(plan)
        self.model, self.labelled, whitened = trained_part(
            plan.settings,
            channels=plan.entry.channels,
            num_classes=plan.entry.num_classes,
            seed=RootSeed.from_user(plan.model_seed),
            device=device,
            drawn="cells" if plan.dataset == BLOODMNIST.name else "discs",
            whitening=plan.whitening,
        )
        self.whitening = whitened.statistics() if whitened and whitened.learnt else None
        self.initial = to_vector(self.model).cpu()
        self.device = next(self.model.parameters()).device
        self.protocol = round_protocol(
            self.settings, self.weights, self.model, self.seed, Ranks(), {}
        )

        robustness = self.settings.robustness
        norm = None if robustness is None else robustness.norm
        self._proved = None if norm is None else ProvedUpdates(norm, self.weights)

    # Exchanges

    def after(self, at: Place) -> Place | None:
        """The exchange that follows; None after the last."""
        if at.step + 1 < self.protocol.exchanges(at.round):
            return Place(at.round, at.step + 1)
        return Place(at.round + 1) if at.round < self.settings.rounds else None

    def encoding(self, at: Place) -> tuple[VectorEncoding, int]:
        """What the vectors of an exchange mean, and how long they are."""
        if isinstance(self.protocol, SharedRounds):
            plan = self.protocol.sum_in(at.round).plan
            encoding = replace(integer_encoding(plan), scale=self._granularity(at, plan))
            return encoding, plan.dimension
        assert self.settings.secagg is not None
        return weighted_encoding(self.settings.secagg, self.weights), self.initial.numel()

    def _granularity(self, at: Place, mine: NoisePlan) -> float:
        """As the plan states it: another processor's arithmetic may give another last digit, and
        those who do not say the same share no masks. ``check_stated`` holds it to this party's."""
        for row in self.plan.stated.get("noise", ()):
            if row["rounds"][0] <= at.round <= row["rounds"][1]:
                return float(row["granularity"])
        return mine.granularity  # while the plan is being made

    def announced(self, at: Place, vector: Tensor) -> bytes:
        """What the server sends the hospitals: the exchange, and the model it begins with."""
        kind = _DTYPES.index(vector.dtype)
        header = _HEADER.pack(_MAGIC, _VERSION, self.plan.digest, *at, kind)
        return header + vector.cpu().numpy().astype(_NUMPY[kind], copy=False).tobytes()

    def read(self, announced: bytes) -> tuple[Place, Tensor]:
        """The exchange and the model. Refused for another plan's, or for what is none."""
        if len(announced) < _HEADER.size:
            raise Refused("the server announces no exchange of a training")
        magic, version, digest, number, step, kind = _HEADER.unpack_from(announced)
        if (magic, version) != (_MAGIC, _VERSION) or kind >= len(_DTYPES):
            raise Refused("the server announces no exchange of this version of repro")
        if digest != self.plan.digest:
            raise Refused("the server goes by another plan than this hospital")
        if len(announced) != _HEADER.size + self.initial.numel() * np.dtype(_NUMPY[kind]).itemsize:
            raise Refused("the server announces a model of another size")
        values = np.frombuffer(announced, _NUMPY[kind], offset=_HEADER.size)
        return Place(number, step), torch.from_numpy(values.copy())

    def round_of(self, directory: FederationDirectory, number: int, announced: bytes) -> BaseRound:
        """A round of secure aggregation that is bound to the plan, the exchange and the model."""
        at, vector = self.read(announced)
        if not 1 <= at.round <= self.settings.rounds or not at.step < self.protocol.exchanges(
            at.round
        ):
            raise Refused(f"the server announces {shown(at)}, which the plan does not have")
        self.check_directory(directory)
        assert self.settings.secagg is not None
        encoding, length = self.encoding(at)
        bound_to: dict[str, Any] = {
            "directory": Directory(directory.server, dict(directory.hospitals)),
            "session": directory.session,
            "number": number,
            "length": length,
            "model": model_digest(vector.numpy()),
            "training": self.plan.digest,
            "application": directory.digest + shown(at).encode(),
        }
        if self._proved is not None:
            bound = self._proved.bound(length)
            return BoundedRound(**bound_to, bound=bound, minimum=self.plan.least)
        return Round(
            **bound_to,
            threshold=self.settings.secagg.threshold,
            neighbours=self.settings.secagg.neighbours,
            encoding=encoding,
            minimum_survivors=self.plan.least,
            quorum=directory.settings.quorum,
        )

    def check_directory(self, directory: FederationDirectory) -> None:
        """Raise InputError for a directory that the plan does not go with."""
        if directory.serial < self.plan.serial:
            raise InputError("directory's serial", directory.serial, f"{self.plan.serial} or later")
        if sorted(directory.hospitals) != sorted(self.weights):
            raise InputError("directory", sorted(directory.hospitals), "the plan's hospitals")
        if directory.settings != self.directory_settings(directory.settings.quorum):
            raise InputError("directory", directory.settings, "the settings that the plan needs")

    def directory_settings(self, quorum: int = 0) -> Settings:
        """Of the directory that goes with the plan."""
        secagg = self.settings.secagg
        assert secagg is not None
        lengths = (self.encoding(Place(number))[1] for number in range(1, self.settings.rounds + 1))
        return Settings(
            threshold=secagg.threshold,
            neighbours=secagg.neighbours,
            dimension=max(self.initial.numel(), *lengths),
            field_bits=secagg.field_bits,
            minimum_survivors=self.plan.least,
            quorum=quorum,
        )

    @property
    def missed(self) -> int:
        """Rounds that a hospital may be away for: each is one more draw of who neighbours whom,
        which is none where everybody neighbours everybody."""
        assert self.settings.secagg is not None
        complete = self._proved is not None  # its committee is a session's
        complete |= self.settings.secagg.neighbours == len(self.weights) - 1
        return 2**32 if complete else _MOST_AWAY

    # A hospital's part, and the server's

    def hospital_data(self, path: Path, hospital: int) -> HospitalData:
        """The training records of a hospital's file. InputError for a file that the plan does not
        speak of."""
        plan = self.plan
        _, entry, splits = read_npz(path, plan.entry, "data", ("train",))
        train = splits["train"]
        if entry.side != plan.side:
            raise InputError("data", f"{entry.side} px images", f"{plan.side} px, as in the plan")
        check_records(hospital, len(train), self.weights[hospital], plan.count_noise)
        # Taken as the simulation takes a hospital's share, so that they lie in memory alike.
        return HospitalData(hospital, self.labelled(train, None).take(np.arange(len(train))))

    def contribution(self, vector: Tensor, data: HospitalData, at: Place) -> Contribution:
        """What a hospital puts into the sum: its update, or its sum with its share of the noise."""
        made = self.protocol.part(vector.to(self.device), data, at).vector.cpu()
        if self._proved is not None:
            return Contribution(self._proved.summand(data.hospital, made))
        part = made.numpy()
        if isinstance(self.protocol, SharedRounds):
            return Contribution(part)
        key = self.seed.derive("secagg rounding", data.hospital, at.round)
        return Contribution(part, self.weights[data.hospital], key)

    def apply(self, vector: Tensor, given: Sum, at: Place) -> Tensor:
        """The next model, of an exchange's sum."""
        if isinstance(self.protocol, SharedRounds):
            plan = self.protocol.sum_in(at.round).plan
            steps = integer_encoding(plan).centred(given.completed.total)
            total = torch.from_numpy(steps * plan.granularity)
        elif self._proved is not None:
            total = self._proved.mean(given.completed.total, given.survivors)
        else:
            total = torch.from_numpy(given.decoded.mean.astype(np.float32))
        return self.protocol.apply(vector, total, given.survivors, at)

    # What it costs

    def ledger(self) -> FederatedLedger | None:
        """Before the first exchange: what the offers told of the numbers of records, if those are
        secret. None where nothing is promised."""
        begun = ledger(self.settings, self.weights, self.seed, self.protocol)
        if begun is not None and self.plan.count_noise:
            event = slots_event(self.plan.count_noise)
            begun.spend_round((one, event, 1) for one in self.weights)
        return begun

    def spent(self, round: int, survivors: Sequence[Sequence[int]]) -> Spent:
        """What exchanges of a round cost, as ``spend_round`` has it. survivors: of each of them;
        nobody: it came to nothing, after all may have shared their parts."""
        assert isinstance(self.protocol, SharedRounds)  # no other arm here adds noise
        releases = Counter(tuple(one) for one in survivors if one)
        everybody = tuple(sorted(self.weights))
        failed = {everybody: len(survivors) - releases.total()} if not all(survivors) else {}
        return spent_on(self.protocol.sum_in(round).plan, releases, failed)

    def spent_in(self, sums: Iterable[Sequence[Any]]) -> FederatedLedger | None:
        """What a server's exchanges have cost: round, exchange, survivors of each, in order."""
        total = self.ledger()
        if total is not None:
            for number, exchanges in groupby(sums, lambda one: one[0]):
                spent, seen = self.spent(number, [one[2] for one in exchanges])
                total.spend_round(spent, seen=seen)
        return total

    def most_spent(self) -> FederatedLedger | None:
        """The whole training, every sum without as many hospitals as may be lost."""
        group = sorted(self.weights)[: self.plan.least]
        rounds = range(1, self.settings.rounds + 1)
        return self.spent_in(
            [number, step, group]
            for number in rounds
            for step in range(self.protocol.exchanges(number))
        )

    def stated(self) -> dict[str, Any]:
        """All that follows from the plan's choices, as its file has it."""
        rounds, protocol, plan = range(1, self.settings.rounds + 1), self.protocol, self.plan
        noise: dict[str, list[int]] = {}
        facts: dict[str, dict[str, Any]] = {}
        for number in rounds if isinstance(protocol, SharedRounds) else ():
            assert isinstance(protocol, SharedRounds)
            sums = protocol.sum_in(number).plan
            noise.setdefault(repr(sums), []).append(number)
            facts[repr(sums)] = {"vector": sums.dimension, **sums.facts()}
        return plain_json(
            {
                "settings": self.settings.as_dict(),
                "model": {
                    "name": self.settings.model.name,
                    "parameters": self.initial.numel(),
                    "digest": model_digest(self.initial.numpy()).hex(),
                },
                "data": {
                    "images": [plan.side, plan.side, plan.entry.channels],
                    "classes": plan.entry.num_classes,
                    "several_labels": plan.entry.multi_label,
                    "weights": f"the number of training records, {sizes_of(plan.count_noise)}",
                },
                "whitening": whitening_facts(self.whitening),
                "exchanges": sum(protocol.exchanges(number) for number in rounds),
                "noise": [
                    {"rounds": [numbers[0], numbers[-1]], **facts[key]}
                    for key, numbers in noise.items()
                ],
                "privacy": statements(self.most_spent()),
            }
        )


def statements(spent: FederatedLedger | None) -> list[dict[str, Any]]:
    """Unit × view × relation -> ε in total; ∞ where no noise is added."""
    kept = ("unit", "view", "trust", "relation", "delta")
    if spent is None:
        nothing = {"view": "server, after secure aggregation", "trust": "no noise is added"}
        units = ("record", "hospital")
        return [
            {"unit": unit, **nothing, "relation": "add_remove", "delta": 0.0}
            | {"epsilon_at_most": float("inf")}
            for unit in units
        ]
    return [
        {name: row[name] for name in kept} | {"epsilon_at_most": row["epsilon_total"]}
        for row in spent.as_records()
    ]


def fresh_seed(plan: TrainingPlan) -> RootSeed:
    return RootSeed.from_entropy() if plan.seed is None else RootSeed.from_user(plan.seed)


def shown(at: Place) -> str:
    return f"round {at.round}, exchange {at.step + 1}"
