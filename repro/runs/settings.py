"""Every hyper-parameter, with its unit and where its value comes from.

Tags as in ``paper_results/claims.toml``: [code] the authors' repositories, [ours] our choice.
A run is described completely by one ``RunSettings``; its hash names the run in the store.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from repro.checks import check_above_zero as _check_above_zero
from repro.checks import check_choices as _check_choices
from repro.checks import check_counts as _check_counts
from repro.checks import check_fractions as _check_fraction
from repro.checks import check_one_of, check_word64
from repro.errors import InputError
from repro.runs.filter_settings import FilterSettings
from repro.runs.search_settings import SearchSettings

# What a choice may be; each is checked when settings are made, so that a misspelt one never
# silently means another.
MODEL_NAMES = (
    "dpresnet",
    "resnet9",
    "resnet18",
    "scattering",
    "scattering-rings",
    "random-filters",
    "turned-filters",
    "drawn-choice",
    "backbone",
)
NORMALISATIONS = ("group", "batch", "layer", "none")
DOWNSAMPLINGS = ("stride", "pool")
SKIPS = ("first", "all", "none")
SCHEMES = ("authors", "iid", "dirichlet", "zipf")
OPTIMIZERS = ("adam", "sgd")
CLIPPINGS = ("flat", "per_layer", "automatic")
UPDATE_NOISES = ("none", "documented", "calibrated")
SCOPES = ("federated", "pooled", "single")
PRECISIONS = ("single", "double")
TRAINED_IN = ("float32", "bf16-mixed")  # of RunSettings.precision
EVALUATED_ON = ("test", "validation")
LIES = ("largest", "reversed", "within")


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and how wide."""

    name: str = "dpresnet"  # a name in repro.models.registry
    width: int = 64  # channels of the first convolution [code]; narrower in small profiles [ours]
    # Of "dpresnet" only, for the ablations; the defaults are the paper's network [code].
    normalisation: str = "group"
    downsampling: str = "stride"  # "pool": max-pooling, as in ResNet-9
    skips: str = "first"  # "first" block's only [code], "all" three or "none"
    filters: FilterSettings | None = None  # of "turned-filters" only; None: what it stands for

    def __post_init__(self) -> None:
        if self.filters is not None and self.name != "turned-filters":
            raise InputError("filters", self.filters, f"None for the model {self.name}")
        _check_choices(
            self,
            {
                "name": MODEL_NAMES,
                "normalisation": NORMALISATIONS,
                "downsampling": DOWNSAMPLINGS,
                "skips": SKIPS,
            },
        )
        _check_counts(self, width=1)


@dataclass(frozen=True)
class PartitionSettings:
    """How the training split is divided among the hospitals."""

    scheme: str = "authors"  # contiguous slices, then pairwise transfers [code]
    alpha: float = 0.5  # Dirichlet concentration, for scheme "dirichlet" [ours]
    exponent: float = 1.0  # Zipf exponent, for scheme "zipf" [ours]
    validation_fraction: float = 0.2  # of each hospital's images [code]

    def __post_init__(self) -> None:
        _check_choices(self, {"scheme": SCHEMES})
        _check_above_zero(self, "alpha")
        _check_fraction(self, "validation_fraction", zero=True)


@dataclass(frozen=True)
class LocalSettings:
    """Ordinary local training."""

    # Local epochs a round [code]; a fraction takes that part of the images, drawn anew each round.
    epochs: int | float = 3
    batch_size: int = 32  # images [code]
    learning_rate: float = 1e-3  # Adam's default [code]
    keep_optimizer: bool = False  # False: a fresh Adam every round [code]

    def __post_init__(self) -> None:
        _check_above_zero(self, "epochs", "learning_rate")
        _check_counts(self, batch_size=1)


@dataclass(frozen=True)
class RecordPrivacy:
    """DP-SGD in every hospital: the guarantee is for one image."""

    epsilon: float = 6.0  # total over all rounds, at `delta`, add/remove one record
    delta: float = 1.9e-4  # the paper's δ [code]
    clip_norm: float = 1.0  # L2, of one image's gradient [ours; docs/settings-search.md]
    expected_batch: int = 128  # images a Poisson step draws on average [ours]
    learning_rate: float = 1e-3  # [ours]
    optimizer: str = "adam"  # [ours]
    momentum: float = 0.0  # of "sgd"; forgotten after each round, as the optimizer is fresh [ours]
    clipping: str = "flat"
    engine: str = "auto"  # a name in repro.privacy.engines, which checks it, or "auto"

    def __post_init__(self) -> None:
        _check_choices(self, {"optimizer": OPTIMIZERS, "clipping": CLIPPINGS})
        _check_above_zero(self, "epsilon", "clip_norm", "learning_rate")
        _check_fraction(self, "delta", zero=False)
        _check_fraction(self, "momentum", zero=True)
        _check_counts(self, expected_batch=1)


@dataclass(frozen=True)
class SharedNoise:
    """Noise inside the secure sum; what it hides, and how much of it, is in ``RecordPrivacy``.

    There ``expected_batch`` is of all hospitals together, and so is the sample rate.
    """

    colluders: int = 1  # hospitals that may pool what they know, with the server or not [ours]
    drop_outs: int = 1  # hospitals that may be lost in one sum; more, and it is not taken [ours]
    # Every n-th step runs the protocol, the others only its sum, with the same bits; 1: all [ours]
    protocol_every: int = 1
    # Of the model while it trains; sums are less exact in single, which costs a percent of
    # noise [ours]
    precision: str = "single"

    def __post_init__(self) -> None:
        _check_choices(self, {"precision": PRECISIONS})
        _check_counts(self, colluders=0, drop_outs=0, protocol_every=1)


@dataclass(frozen=True)
class SecondOrder:
    """Whitening by private second moments, then full-batch steps; docs/feature-search.md.

    Shares of the privacy budget are of μ² (Gaussian DP, which adds up); the steps get the rest.
    """

    mean_share: float = 0.05  # of the mean of the features, the first round [ours]
    # Of their second moments, the second round; 0: there is no such round [ours]
    moments_share: float = 0.15
    floor: float = (
        0.5  # smallest eigenvalue that is evened out, in norms of the noise matrix [ours]
    )

    def __post_init__(self) -> None:
        _check_fraction(self, "mean_share", zero=False)
        _check_fraction(self, "moments_share", zero=True)
        _check_above_zero(self, "floor")
        most = 1 - self.mean_share  # the steps need a part of it
        if self.moments_share >= most:
            raise InputError("moments_share", self.moments_share, f"below {most:g}")


@dataclass(frozen=True)
class UpdatePrivacy:
    """Clipping (and noise) on a hospital's whole update, after Flower's ``LocalDpMod``."""

    clip_norm: float = 7.0  # L2, of the whole update [code]
    noise: str = "none"  # "documented": LocalDpMod's formula; "calibrated": true total ε
    sensitivity: float = 1.0  # what the authors passed; the true one is `clip_norm` [code]
    epsilon: float = 6.0  # [code]
    delta: float = 1.9e-4  # [code]

    def __post_init__(self) -> None:
        _check_choices(self, {"noise": UPDATE_NOISES})
        _check_above_zero(self, "clip_norm", "sensitivity", "epsilon")
        _check_fraction(self, "delta", zero=False)


@dataclass(frozen=True)
class SecAggParameters:
    """Secure aggregation: 5 shares (self and 4 neighbours), threshold 4 [code]."""

    neighbours: int = 4  # of each hospital in the sharing graph, itself not counted
    threshold: int = 4  # shares that rebuild a secret
    value_range: float = (
        8.0  # coordinates beyond ±this are clipped and counted [code: Flower's default]
    )
    drop_rate: float = 0.0  # fraction of hospitals lost in each round, for the ablation [ours]
    levels: int | None = None  # quantisation levels; None: as many as the field allows
    field_bits: int = 31  # or 61: twice the bytes, finer steps where hospitals are many [ours]

    def __post_init__(self) -> None:
        _check_counts(self, neighbours=1, threshold=1)
        _check_above_zero(self, "value_range")
        _check_fraction(self, "drop_rate", zero=True)
        if self.levels is not None:
            _check_counts(self, levels=2)
        bits = check_one_of("field_bits", self.field_bits, (31, 61), "31 or 61")
        object.__setattr__(self, "field_bits", bits)

    def among(self, hospitals: int) -> SecAggParameters:
        """This graph where there are hospitals enough for it, else the complete graph."""
        if hospitals < 2:
            raise InputError("hospitals", hospitals, "at least 2 with secure aggregation")
        if hospitals > self.neighbours:
            return self
        return replace(self, neighbours=hospitals - 1, threshold=hospitals // 2 + 1)


@dataclass(frozen=True)
class Robustness:
    """Hospitals that lie about their updates, and what is done about it; no arm has any."""

    hostile: int = 0  # how many lie: the first ones
    # "largest": the largest vector that the sum takes, at the largest weight, against its own
    # update; "reversed": what turns the sum's mean into minus its own update; "within", where a
    # norm is proved: its own update turned round and made as long as the norm allows
    lie: str = "largest"
    group: int | None = None  # hospitals in a secure sum; None: all
    alarm: bool = False  # leave out sums that are longer than honest ones can be
    # every hospital cuts its update to this norm and proves it: repro.secagg.bounded; None: nobody
    norm: float | None = None

    def __post_init__(self) -> None:
        _check_choices(self, {"lie": LIES})
        _check_counts(self, hostile=0)
        if self.group is not None:
            _check_counts(self, group=2)
        if self.norm is None and self.lie == "within":
            raise InputError("lie", self.lie, "within a norm")
        if self.norm is not None:
            _check_above_zero(self, "norm")
            if self.group is not None or self.alarm:
                raise InputError("norm", self.norm, "None with sums of groups or an alarm")


@dataclass(frozen=True)
class RunSettings:
    """One run, completely: arm × hospitals × seed, and everything it depends on but the data."""

    arm: str
    hospitals: int
    seed: int | None  # None: keys from the operating system's entropy (not reproducible)
    profile: str
    scope: str  # "pooled": central training; "single": one hospital alone
    rounds: int = 50  # [code]
    model: ModelSettings = field(default_factory=ModelSettings)
    partition: PartitionSettings = field(default_factory=PartitionSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    record_privacy: RecordPrivacy | None = None
    update_privacy: UpdatePrivacy | None = None
    secagg: SecAggParameters | None = None
    robustness: Robustness | None = None  # of secure aggregation of updates, for the ablation
    shared: SharedNoise | None = None
    second_order: SecondOrder | None = None
    search: SearchSettings | None = None  # over such steps' settings; each trial a whole training
    # Of "newton": the private steps that it takes without their noise; no ε is claimed.
    twin_of: RecordPrivacy | None = None
    logistic_ridge: float | None = None  # of "logistic": λ of (λ/2)‖W‖², see profiles [ours]
    train_stride: int = 1  # use every n-th training image; 1 in the paper profile
    test_stride: int = 1  # evaluate on every n-th test image; 1 in the paper profile
    evaluate_on: str = "test"  # "validation": held-out images of hospitals, to choose settings
    threads: int = 0  # CPU threads of one run; 0: all. Part of the identity: sums depend on it
    precision: str = "float32"  # of training: see repro.models.mixed_precision

    def __post_init__(self) -> None:
        _check_choices(
            self, {"scope": SCOPES, "evaluate_on": EVALUATED_ON, "precision": TRAINED_IN}
        )
        if self.seed is not None:
            object.__setattr__(self, "seed", check_word64("seed", self.seed))
        _check_counts(self, hospitals=1, rounds=1, train_stride=1, test_stride=1, threads=0)
        # Nothing that is called private can get exact sums, or be anything else than it says.
        if self.record_privacy or self.update_privacy:
            for name in ("twin_of", "logistic_ridge"):
                if getattr(self, name) is not None:
                    raise InputError(name, getattr(self, name), "None in a run that claims an ε")
        if self.twin_of is not None and not (self.shared and self.second_order):
            raise InputError("twin_of", self.twin_of, "None without second-order steps")
        if self.robustness is not None and (self.secagg is None or self._noisy):
            # The ledger's views are of one sum of all; sums of groups, some left out, show more.
            expected = "None but for secure sums of updates without noise"
            raise InputError("robustness", self.robustness, expected)
        if self.search is not None and not (self.second_order and self.record_privacy):
            raise InputError("search", self.search, "None without private second-order steps")
        if self.logistic_ridge is not None:
            _check_above_zero(self, "logistic_ridge")

    @property
    def private(self) -> bool:
        """Is an ε claimed, with noise that nobody knows? Then nothing that the run gives away may
        depend on a record but by the mechanisms that its ledger accounts for."""
        return self.seed is None and bool(self.record_privacy or self.update_privacy)

    @property
    def _noisy(self) -> bool:
        updates = self.update_privacy is not None and self.update_privacy.noise != "none"
        return updates or self.record_privacy is not None or self.shared is not None

    @property
    def trainer(self) -> str:
        if self.logistic_ridge is not None:
            return "logistic"
        if self.twin_of is not None:
            return "newton"
        if self.search is not None:
            return "searched-newton"
        if self.shared is not None:
            return "shared-dpsgd" if self.second_order is None else "shared-newton"
        return "adam" if self.record_privacy is None else "dpsgd"

    @property
    def mechanism(self) -> str:
        if self.update_privacy is None:
            return "identity"
        return "clip" if self.update_privacy.noise == "none" else "clip_noise"

    @property
    def aggregator(self) -> str:
        return "plain" if self.secagg is None else "secure"

    def as_dict(self) -> dict[str, Any]:
        """Every setting, and the names of the three parts that follow from them."""
        names = {
            "trainer": self.trainer,
            "mechanism": self.mechanism,
            "aggregator": self.aggregator,
        }
        return asdict(self) | names

    def digest(self, data_fingerprint: str) -> str:
        """Ten hex digits that change whenever a setting or the data does."""
        known = self.as_dict()
        # As before there was a choice: finished runs keep their names.
        if self.precision == "float32":
            del known["precision"]
        later = ("shared", "robustness", "second_order", "search", "twin_of", "logistic_ridge")
        known = {k: value for k, value in known.items() if k not in later or value is not None}
        if self.robustness is not None and self.robustness.norm is None:
            del known["robustness"]["norm"]
        if self.model.filters is None:
            del known["model"]["filters"]
        if self.secagg is not None and self.secagg.field_bits == 31:
            del known["secagg"]["field_bits"]
        text = json.dumps([known, data_fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def run_id(self, data_fingerprint: str) -> str:
        """The run's folder name in the store, readable and unique.

        data_fingerprint: of the contents; for a private run, of what is public of them.
        """
        seed = "os" if self.seed is None else str(self.seed)
        name = f"{self.arm}-k{self.hospitals}-s{seed}-{self.profile}"
        return f"{name}-{self.digest(data_fingerprint)}"
