"""The plan of a training across hospitals: one file, signed by the federation's operator.

It says what is chosen (arm, profile, rounds, seed, how many records each hospital has) and, for
whoever reads it, all that follows from that (``stated``: settings, model digest, data contract,
noise, what a record and a hospital spend in every view). Each party works the second part out
again from the first, by its own code, and takes no plan whose statements are not the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from repro.accounting.ledger import UNPROTECTED
from repro.checks import check_above_zero, check_choice, check_count, check_word64
from repro.data.catalog import SIDES, CatalogEntry, catalog_entry, entry_of_side
from repro.data.npz import read_npz
from repro.errors import InputError
from repro.federated.deploy.counts import check_deviation, slots
from repro.federated.deploy.signed import canonical, read_signed, write_signed
from repro.federated.deploy.whitening_file import read_whitening, write_whitening
from repro.federated.whitening import Whitening
from repro.randomness import RootSeed
from repro.runs.arms import get_arm
from repro.runs.composition import compose
from repro.runs.guarantees import REPLACE, or_infinity
from repro.runs.profiles import get_profile
from repro.runs.settings import Robustness, RunSettings
from repro.secagg.bounded.setting import FEWEST
from repro.secagg.keys import Identity

_FORM, _OFFER = "repro federation plan v1", "repro federation offer v1"
_CLOSE = 1e-9  # relatively: what another machine's arithmetic may move in a stated number
SIZES = ("public", "private")


@dataclass(frozen=True)
class TrainingPlan:
    """hospitals: id -> its training records, which are its weight; public. count_noise: σ where
    these numbers are noisy and the true ones secret (``repro.federated.deploy.counts``), else 0.

    seed: None for noise keys from each hospital's own operating system; else everything is
    repeatable, and nothing is private. model_seed: of the initial weights, public. least: no sum
    of fewer hospitals is opened. serial: of the first directory that it goes with.
    whitening: of the features, None where nothing is whitened; in a file beside the plan.
    norm: every hospital proves that its update is no longer (``repro.secagg.bounded``); None:
    nobody proves anything.
    """

    arm: str
    profile: str
    rounds: int
    dataset: str
    side: int
    hospitals: Mapping[int, int]
    seed: int | None
    model_seed: int
    least: int
    serial: int
    count_noise: float = 0.0
    operator: bytes = b""
    stated: Mapping[str, Any] = field(default_factory=dict)
    whitening: Whitening | None = field(default=None, repr=False, compare=False)
    norm: float | None = None

    def __post_init__(self) -> None:
        if self.seed is not None:
            check_word64("seed", self.seed)
        check_word64("model_seed", self.model_seed)
        if sorted(self.hospitals) != list(range(len(self.hospitals))) or len(self.hospitals) < 2:
            raise InputError("hospitals", sorted(self.hospitals), "2 or more, numbered from 0")
        for one, records in self.hospitals.items():
            check_count(f"records of hospital {one}", records)
        check_deviation(self.count_noise)
        if self.norm is not None:
            check_above_zero(self, "norm")
            if len(self.hospitals) < FEWEST:
                expected = f"None with fewer than {FEWEST} hospitals, the smallest committee"
                raise InputError("norm", self.norm, expected)
        if self.side not in SIDES:
            raise InputError("side", self.side, " or ".join(map(str, SIDES)))
        check_count("least", self.least, 2)
        check_count("serial", self.serial)
        _check_arm(self.settings, self.entry)
        fewest = fewest_in_a_sum(self.settings)
        if not fewest <= self.least <= len(self.hospitals):
            expected = f"{fewest} to {len(self.hospitals)} hospitals in a sum of this arm"
            raise InputError("least", self.least, expected)

    @cached_property
    def settings(self) -> RunSettings:
        """Those of ``repro run`` with the same arm, profile, hospitals, rounds and seed."""
        settings = compose(
            get_arm(self.arm),
            get_profile(self.profile),
            hospitals=len(self.hospitals),
            seed=self.seed,
            rounds=self.rounds,
        )
        if self.norm is None:
            return settings
        if settings.shared is not None:
            expected = "None where hospitals share noise: it is far longer than an update"
            raise InputError("norm", self.norm, expected)
        return replace(settings, robustness=Robustness(norm=self.norm))

    @property
    def weights(self) -> dict[int, int]:
        return dict(self.hospitals)

    @cached_property
    def entry(self) -> CatalogEntry:
        """Channels, classes and size of the images."""
        return entry_of_side(catalog_entry(self.dataset), self.side)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all that it says: every round is bound to it."""
        return hashlib.sha256(canonical(self._fields())).digest()

    @property
    def epsilon(self) -> float:
        """The most ε that a record which contributes or not spends in the whole training, in the
        worst view but the one in which secure aggregation is broken; ∞ where none is promised."""
        rows = [
            or_infinity(float(row["epsilon_at_most"]))
            for row in self.stated["privacy"]
            if (row["unit"], row["relation"] == REPLACE, row["view"] == UNPROTECTED)
            == ("record", False, False)
        ]
        return max(rows, default=math.inf)

    def write(self, path: Path, operator: Identity) -> None:
        if self.whitening is not None:
            write_whitening(path, self.whitening)
        write_signed(path, _FORM, self._fields(), operator)

    def check_stated(self, found: Mapping[str, Any]) -> None:
        """Raise InputError unless the plan states ``found``, which this party has worked out."""
        different = _difference("", dict(self.stated), dict(found))
        if different:
            name, theirs, mine = different
            raise InputError(
                f"plan's {name}", theirs, f"{mine}, as this version of repro works it out"
            )

    def _fields(self) -> dict[str, Any]:
        names = ("arm", "profile", "rounds", "dataset", "side", "seed", "model_seed", "least")
        fields = {name: getattr(self, name) for name in (*names, "serial")}
        fields["hospitals"] = {str(one): self.hospitals[one] for one in sorted(self.hospitals)}
        for name in ("count_noise", "norm"):
            if getattr(self, name):
                fields[name] = getattr(self, name)
        return {**fields, "sizes": sizes_of(self.count_noise), "stated": dict(self.stated)}


def load_plan(path: Path, operator: bytes) -> TrainingPlan:
    """Read and verify. operator: the public key that must have signed it."""
    fields, signer = read_signed(path, "plan", _FORM)
    if signer != operator:
        raise InputError("plan's signer", signer.hex(), f"the operator {operator.hex()}")
    sizes = fields.pop("sizes", None)
    try:
        records = {int(one): records for one, records in fields.pop("hospitals").items()}
        plan = TrainingPlan(**fields, hospitals=records, operator=operator)
    except (AttributeError, KeyError, TypeError) as problem:
        raise InputError("plan", str(path), f"a {_FORM} ({problem})") from None
    check_sizes(sizes, plan.count_noise)
    return replace(plan, whitening=read_whitening(path, plan.stated.get("whitening")))


def sizes_of(count_noise: float) -> str:
    return SIZES[count_noise > 0]


def check_sizes(sizes: str | None, count_noise: float) -> None:
    """Are numbers of records as public, or as secret, as is said?"""
    if check_choice("sizes", sizes, SIZES) != sizes_of(count_noise):
        expected = f"{sizes_of(count_noise)}, as the hospitals' offers are (offer --count-noise)"
        raise InputError("sizes", sizes, expected)


def fewest_in_a_sum(settings: RunSettings) -> int:
    """More lost than the noise is planned for, and nothing may be opened; of one alone, never."""
    if settings.shared is None:
        return 2
    return max(2, settings.hospitals - settings.shared.drop_outs)


def _check_arm(settings: RunSettings, entry: CatalogEntry) -> None:
    """Arms whose rounds hospitals and server can hold apart, by a secure sum and nothing else."""
    reasons = {
        "has no secure aggregation": settings.secagg is None,
        "is not trained by hospitals": settings.scope != "federated",
        "searches for its settings": settings.search is not None,
        "takes exact sums": settings.twin_of is not None,
        "noises whole updates": settings.update_privacy is not None,
        "has each hospital add all of its noise": settings.record_privacy is not None
        and settings.shared is None,
    }
    for reason, applies in reasons.items():
        if applies:
            expected = f"an arm with noise shared in the secure sum, or fedavg-secagg: it {reason}"
            raise InputError("arm", settings.arm, expected)
    if entry.multi_label and settings.shared is None:
        raise InputError("dataset", entry.name, f"one label an image for {settings.arm}")


def _difference(name: str, theirs: Any, mine: Any) -> tuple[str, Any, Any] | None:
    """The first thing in which two statements differ; None if in nothing."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in sorted({*theirs, *mine}):
            where = f"{name}.{key}" if name else key
            found = _difference(where, theirs.get(key), mine.get(key))
            if found:
                return found
        return None
    if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        pairs = enumerate(zip(theirs, mine, strict=True))
        return next(filter(None, (_difference(f"{name}[{n}]", *both) for n, both in pairs)), None)
    if isinstance(theirs, float) and isinstance(mine, float):
        return None if math.isclose(theirs, mine, rel_tol=_CLOSE) else (name, theirs, mine)
    return None if theirs == mine else (name, theirs, mine)


@dataclass(frozen=True)
class Offer:
    """What a hospital tells the operator: its public key, and how much of what it has.

    count_noise: σ of the noise that is in ``records``; 0 for the exact number.
    """

    public: bytes
    dataset: str
    side: int
    records: int
    count_noise: float = 0.0


def write_offer(
    path: Path, identity: Identity, data: Path, dataset: str, count_noise: float = 0.0
) -> Offer:
    """Count the file's training records, and sign that: they are the hospital's weight.

    count_noise: σ, to tell a noisy number of them and no exact one. InputError where ``path`` has
    an offer already: every further number would tell more, and no ledger has one without a plan.
    """
    noise = check_deviation(count_noise)
    if noise and path.exists():
        expected = "none there yet: each noisy number tells more of the true one, so use that again"
        raise InputError("offer", str(path), expected)
    _, entry, splits = read_npz(data, catalog_entry(dataset), "data", ("train",))
    records = len(splits["train"])
    if noise:
        records = slots(records, noise, RootSeed.from_entropy())
    offer = Offer(identity.public, dataset, entry.side, records, noise)
    fields = {name: value for name, value in vars(offer).items() if name != "public"}
    write_signed(path, _OFFER, fields, identity)
    return offer


def load_offers(paths: Sequence[Path]) -> list[Offer]:
    """Of hospitals 0, 1, …: distinct keys, images of one set and one size."""
    offers = []
    for path in paths:
        fields, public = read_signed(path, "offer", _OFFER)
        try:
            offers.append(Offer(public, **fields))
        except TypeError as problem:
            raise InputError("offer", str(path), f"a {_OFFER} ({problem})") from None
    if len({offer.public for offer in offers}) < len(offers):
        raise InputError("offers", [str(path) for path in paths], "one of each hospital")
    kinds = {(offer.dataset, offer.side, offer.count_noise) for offer in offers}
    if len(kinds) != 1:
        expected = "images of one data set, in one size; numbers of records with the same noise"
        raise InputError("offers", sorted(kinds), expected)
    return offers
