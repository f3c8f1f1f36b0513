"""Every number that a public function takes: the right value, or InputError that names it.

Each argument in turn is given what people give by mistake (zero, NaN, ∞, the largest and smallest
numbers, truth values, text, None, arrays) and what they may give instead of a Python number
(scalars of NumPy and torch, which must come to the same result, bit for bit).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from repro import accounting, checks
from repro.accounting import (
    GaussianEvent,
    PLDAccountant,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    gaussian,
)
from repro.accounting.composition import lower_epsilon, summed_multiplier
from repro.accounting.gaussian import epsilon_of_mu
from repro.accounting.ledger import FederatedLedger, View
from repro.accounting.shuffled import Passes, shuffled_lower_epsilon
from repro.accounting.without_replacement import rdp_fixed_batch_gaussian
from repro.audit import bounds
from repro.audit.controls import actual
from repro.audit.procedure import AuditPlan
from repro.data import partition
from repro.errors import InputError
from repro.federated.parallel.exact_sum import ExactWeightedSum
from repro.federated.shared.noise_plan import NoisePlan
from repro.privacy import (
    AdaptiveClipping,
    Clipping,
    DPSGDSettings,
    PoissonSampler,
    clipped_noisy_sum,
    make_private,
)
from repro.privacy.mechanisms import ClipAndNoiseUpdate, local_dp_mod_sigma
from repro.privacy.noise import gaussian_noise
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs import settings
from repro.secagg import Encoding, Field, IntegerEncoding
from repro.secagg.committee import committee_risk

NAN = float("nan")
# No argument is meant by these.
NEVER: dict[str, Any] = {
    **{"nan": NAN, "numpy nan": np.float32(NAN), "torch nan": torch.tensor(NAN)},
    **{"True": True, "numpy True": np.True_, "torch True": torch.tensor(True)},
    **{"text": "1", "numpy text": np.str_("1"), "complex": 1j, "list": [1.0]},
    **{"array": np.array([1.0]), "tensor": torch.tensor([1])},
    "without contents": torch.tensor(1, device="meta"),
}
# By these perhaps: then nothing is raised, or InputError.
ODD: dict[str, Any] = {
    **{"0": 0, "-0.0": -0.0, "-1": -1, "0.5": 0.5, "inf": math.inf, "-inf": -math.inf},
    **{"huge": 1e308, "huge integer": 10**400, "tiny": 5e-324, "subnormal": 1e-320},
    **{"2^31": 2**31, "2^64": 2**64, "torch inf": torch.tensor(math.inf), "None": None},
}


@dataclass(frozen=True)
class Case:
    """A function, good arguments (dyadic, so that float32 holds them), and its other names.

    optional: arguments that may be None. wanted: fields that an error may name besides the
    argument. Text among the arguments is a choice.
    """

    call: Callable[..., Any]
    good: Mapping[str, Any]
    optional: tuple[str, ...] = ()
    wanted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def of(settings_class: Any, *optional: str, **good: Any) -> Case:
    """A dataclass, and what it keeps."""
    return Case(lambda **k: astuple(settings_class(**k)), good, optional)


def composed(noise_multiplier, sample_rate, count, delta):
    event = PoissonSampledGaussianEvent(noise_multiplier, sample_rate)
    return RDPAccountant().compose(event, count).epsilon(delta)


def shares(**arguments):
    labels = np.repeat(np.arange(4), [30, 1, 9, 20])
    return [part.records.tolist() for part in partition(labels, **arguments)]


def encoded(hospitals, clip_range, max_weight, levels, weight, rounding_key):
    encoding = Encoding(Field(31), hospitals, clip_range, max_weight, levels)
    words = encoding.encode(np.array([0.5, -3.0]), weight, rounding_key)
    return encoding.canonical(), encoding.step, words.tolist()


def ledger(delta, clip_norm, size, count, colluding, weight, at):
    """A hospital-level ledger's rows and ε after a round of three hospitals in a secure sum."""
    kept = FederatedLedger(
        unit="hospital",
        mechanism="gaussian update",
        delta=delta,
        hospital_sizes={0: size, 1: 8, 2: 8},
        aggregation="secure",
        clip_norm=clip_norm,
    )
    event = GaussianEvent(2.0, unit="hospital")
    spent = [(0, event, count), (1, event, 1), (2, event, 1)]
    kept.spend_round(spent, weights={0: weight, 1: 1, 2: 1}, colluding=colluding)
    return kept.as_records(), kept.hospital_epsilon(at)


LINEAR = nn.Linear(2, 2)
RECORDS = torch.utils.data.TensorDataset(
    torch.arange(32.0).reshape(16, 2) / 32, torch.arange(16) % 2
)


def planned(**arguments):
    """What ``make_private`` plans for 16 records."""
    loss = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.SGD(LINEAR.parameters(), lr=0.125)
    training = make_private(LINEAR, optimizer, RECORDS, loss_fn=loss, **arguments)
    training.close()
    names = ("noise_multiplier", "clip_norm", "delta", "sample_rate", "steps_per_epoch", "_seed")
    return [getattr(training, name) for name in names]


def summed(**arguments):
    noise_keys.clear()  # one noise on one sum, asked for in several ways
    loss = nn.CrossEntropyLoss(reduction="none")
    inputs, targets = RECORDS.tensors
    return clipped_noisy_sum(LINEAR, loss, inputs, targets, **arguments).flat.tolist()


STEPS = {PoissonSampledGaussianEvent(1.5, 0.125): 8, GaussianEvent(4.0): 1}
PLANNED = {"target_delta": 2.0**-10, "epochs": 2.0, "clip_norm": 1.5, "batch_size": 4}
PLANNED |= {"seed": 5, "chunk_size": 8, "noise": "gaussian", "scheduler_every": "epoch"}
PLANNED |= {"engine": "auto"}
EITHER = "target_epsilon and noise_multiplier"
PLAN = ("hospitals", "dimension", "sensitivity", "noise_multiplier", "largest_sum")
PLAN += ("colluders", "drop_outs", "sum_error")
CASES = {
    "gaussian_epsilon": Case(
        accounting.gaussian_epsilon, {"sigma": 2.0, "sensitivity": 1.0, "rounds": 4, "delta": 0.25}
    ),
    "gaussian_sigma": Case(
        accounting.gaussian_sigma, {"epsilon": 2.0, "sensitivity": 1.0, "rounds": 4, "delta": 0.25}
    ),
    "classical_sigma": Case(
        accounting.classical_sigma, {"epsilon": 0.5, "sensitivity": 1.0, "delta": 0.25}
    ),
    "classical_epsilon": Case(
        accounting.classical_epsilon, {"sigma": 2.0, "sensitivity": 1.0, "delta": 0.25}
    ),
    "basic_composition": Case(
        gaussian.basic_composition, {"epsilon": 2.0, "delta": 0.25, "rounds": 4}
    ),
    "RDPAccountant": Case(
        composed, {"noise_multiplier": 1.5, "sample_rate": 0.125, "count": 8, "delta": 2.0**-10}
    ),
    "calibrate_noise_multiplier": Case(
        # Arguments are checked before any accountant; of 2^31 steps, this one takes no ten seconds.
        partial(accounting.calibrate_noise_multiplier, accountant="rdp"),
        # No steps: the answer is 0 at once, but every argument is checked.
        {"epsilon": 2.0, "delta": 2.0**-10, "sample_rate": 0.125, "steps": 0},
        wanted={"steps": ("epsilon",)},  # where no noise would do
    ),
    "search_epsilon": Case(
        lambda **k: accounting.search_epsilon({GaussianEvent(2.0): 1}, **k),
        {"delta": 2.0**-10, "trials": 4.0, "eta": 0.5},
        wanted={"trials": ("eta",)},
    ),
    "random_stopping_rdp": Case(
        lambda **k: accounting.random_stopping_rdp(
            RDPAccountant().compose(GaussianEvent(2.0)), np.array([2.0, 8.5]), **k
        ).tolist(),
        {"trials": 4.0, "eta": 0.5},
        wanted={"trials": ("eta",)},
    ),
    "PLDAccountant": Case(
        lambda count, delta, epsilon: (
            PLDAccountant().compose(GaussianEvent(4.0), count).epsilon(delta)[0],
            PLDAccountant().compose(GaussianEvent(4.0), count).delta(epsilon),
        ),
        {"count": 8, "delta": 2.0**-10, "epsilon": 2.0},
    ),
    "compose_epsilon": Case(
        lambda **k: accounting.compose_epsilon(STEPS, unit="record", **k).by_method,
        {"relation": "add_remove", "delta": 2.0**-10, "accountant": "best"},
    ),
    "lower_epsilon": Case(
        lambda **k: lower_epsilon(STEPS, unit="record", **k),
        {"relation": "add_remove", "delta": 2.0**-10},
    ),
    "summed_multiplier": Case(
        lambda noise, weight, colluding: summed_multiplier(
            0, {0: noise, 1: 2.0}, {0: weight, 1: 2}, colluding=colluding
        ),
        {"noise": 2.0, "weight": 4, "colluding": 1},
        wanted={"noise": ("noise_multiplier", "weights"), "weight": ("weights[0]", "weights")},
    ),
    "shuffled_lower_epsilon": Case(
        lambda **k: shuffled_lower_epsilon(passes=Passes.of(16, 0.25), **k),
        {"noise_multiplier": 2.0, "delta": 2.0**-10},
    ),
    "Passes": Case(lambda **k: astuple(Passes.of(**k)), {"steps": 9, "rate": 0.25, "rounds": 2}),
    "FederatedLedger": Case(
        ledger,
        {
            **{"delta": 0.125, "clip_norm": 1.5, "size": 4, "count": 1, "colluding": 1},
            **{"weight": 2.0, "at": 2.0**-10},
        },
        optional=("clip_norm", "at"),
        wanted={"size": ("hospital_sizes[0]",), "at": ("delta",)}
        | {"weight": ("weights[0]", "weights")},
    ),
    "View": Case(
        lambda multiplier: repr(View("a", "b", multiplier=multiplier).of(GaussianEvent(2.0))),
        {"multiplier": 0.5},
        wanted={"multiplier": ("multiplier of view a", "noise_multiplier")},
    ),
    "clopper_pearson": Case(
        bounds.clopper_pearson,
        {"successes": 3, "trials": 8, "confidence": 0.75},
        wanted={"trials": ("successes",)},
    ),
    "rates": Case(
        lambda **k: bounds.rates(np.arange(4.0), np.arange(4.0) - 2, **k),
        {"threshold": 0.5, "confidence": 0.75},
    ),
    "epsilon_from_rates": Case(
        lambda delta: bounds.epsilon_from_rates(bounds.Rates(0.0, 0.5, 0.25, 0.75), delta),
        {"delta": 0.125},
    ),
    "epsilon_of_mu": Case(epsilon_of_mu, {"mu": 1.5, "delta": 0.125}),
    "one_run_p_value": Case(
        bounds.one_run_p_value,
        {"canaries": 16, "guesses": 8, "right": 6, "epsilon": 0.5, "delta": 0.125},
        wanted={"canaries": ("right",), "guesses": ("right",)},
    ),
    "one_run_epsilon": Case(
        bounds.one_run_epsilon,
        {"canaries": 16, "guesses": 8, "right": 8, "delta": 2.0**-10, "confidence": 0.75},
        wanted={"canaries": ("right",), "guesses": ("right",)},
    ),
    "audit plan": of(AuditPlan, trials=128, canaries=240, confidence=0.75),
    "audit control": Case(
        lambda **k: astuple(actual(**k)),
        {"noise_multiplier": 2.0, "control": "halved"},
        optional=("control",),
    ),
    "rdp": Case(lambda order: accounting.rdp(GaussianEvent(2.0), order), {"order": 2.5}),
    "rdp_fixed_batch_gaussian": Case(
        lambda **k: rdp_fixed_batch_gaussian(orders=np.array([2.0, 8.5]), **k).tolist(),
        {"noise_multiplier": 2.0, "sample_rate": 0.125},
    ),
    "local_dp_mod_sigma": Case(
        local_dp_mod_sigma, {"epsilon": 2.0, "delta": 0.25, "sensitivity": 1.0}
    ),
    "partition, dirichlet": Case(
        lambda **k: shares(scheme="dirichlet", **k),
        {"hospitals": 3, "seed": 1, "alpha": 0.5, "validation_fraction": 0.25},
    ),
    "partition, zipf": Case(
        lambda **k: shares(scheme="zipf", **k), {"hospitals": 3, "exponent": 1.5}
    ),
    "partition, authors": Case(shares, {"hospitals": 3, "scheme": "authors"}),
    "RootSeed": Case(lambda seed: RootSeed.from_user(seed).root, {"seed": 5}),
    "PoissonSampler": of(PoissonSampler, records=8, sample_rate=0.5),
    "PoissonSampler, expected batch": Case(
        lambda **k: astuple(PoissonSampler.with_expected_batch(**k)),
        {"records": 8, "expected_batch": 2},
        wanted={"records": ("expected_batch", "sample_rate")},
    ),
    "Clipping": Case(
        lambda **k: astuple(Clipping(**k)),
        {"clip_norm": 1.5, "gamma": 0.25, "kind": "flat"},
        wanted={"kind": ("clipping kind",)},
    ),
    "DPSGDSettings": Case(
        lambda **k: astuple(DPSGDSettings(**k)),
        {
            **{"clip_norm": 1.5, "noise_multiplier": 0.5, "expected_batch": 4, "views": 1},
            **{"learning_rate": 0.5, "momentum": 0.25, "weight_decay": 0.25, "gamma": 0.25},
            **{"chunk_size": 2},
        },
        optional=("chunk_size",),
    ),
    "make_private": Case(
        planned,
        {**PLANNED, "noise_multiplier": 2.0},
        optional=("seed", "chunk_size"),
        wanted={"noise_multiplier": (EITHER,)},
    ),
    "make_private, target": Case(
        lambda target_epsilon: planned(
            **{**PLANNED, "batch_size": 16, "target_epsilon": target_epsilon}
        ),
        {"target_epsilon": 4.0},
        wanted={"target_epsilon": (EITHER,)},
    ),
    "AdaptiveClipping": Case(
        lambda z, batch, **k: (astuple(made := AdaptiveClipping(**k)), made.noises(z, batch)),
        {"quantile": 0.25, "rate": 0.5, "count_noise": 4.0, "z": 2.0, "batch": 64},
        optional=("count_noise",),
        wanted={"z": ("noise_multiplier", "count_noise"), "batch": ("expected_batch",)},
    ),
    "clipped_noisy_sum": Case(
        summed,
        {
            **{"clip_norm": 1.5, "noise_multiplier": 0.5, "seed": 3, "step": 4},
            **{"engine": "auto", "chunk_size": 8, "noise": "gaussian"},
        },
        optional=("chunk_size",),
    ),
    "gaussian_noise": Case(
        lambda **k: gaussian_noise(8, **k).tolist(),
        {"std": 0.5, "seed": 3, "step": 4, "start": 2},
    ),
    "ClipAndNoiseUpdate": of(ClipAndNoiseUpdate, clip_norm=1.5, noise_std=0.5),
    "NoisePlan": Case(
        lambda **k: astuple(NoisePlan(**k)),
        {
            **{"hospitals": 5, "dimension": 64, "sensitivity": 1.0, "noise_multiplier": 2.0},
            **{"largest_sum": 16.0, "colluders": 1, "drop_outs": 1, "sum_error": 0.0},
        },
        wanted=dict.fromkeys(PLAN, ("colluders + drop_outs", "dimension", "field_bits")),
    ),
    "Encoding": Case(
        encoded,
        {
            **{"hospitals": 3, "clip_range": 2.0, "max_weight": 8, "levels": 65},
            **{"weight": 4, "rounding_key": 7},
        },
        optional=("levels",),
        wanted={"hospitals": ("max_weight",), "max_weight": ("weight",)},
    ),
    "IntegerEncoding": Case(
        lambda **k: IntegerEncoding(Field(31), **k).canonical(),
        {"hospitals": 3, "magnitude": 100, "scale": 0.5},
        wanted={"hospitals": ("magnitude",)},
    ),
    "Field": Case(lambda field_bits: Field(field_bits).modulus, {"field_bits": 31}),
    "committee_risk": Case(
        lambda **k: astuple(committee_risk(**k)),
        {
            **{"hospitals": 7, "neighbours": 4, "threshold": 4, "colluders": 1},
            **{"drop_rate": 0.125, "quorum": 5, "rounds": 3},
        },
        wanted={"hospitals": ("neighbours", "quorum"), "neighbours": ("threshold", "quorum")}
        | {"threshold": ("quorum",)},
    ),
    "ModelSettings": of(settings.ModelSettings, width=8, name="dpresnet"),
    "PartitionSettings": of(
        settings.PartitionSettings, alpha=0.5, validation_fraction=0.25, scheme="iid"
    ),
    "LocalSettings": of(settings.LocalSettings, epochs=1.5, batch_size=4, learning_rate=0.5),
    "RecordPrivacy": of(
        settings.RecordPrivacy,
        **{"epsilon": 2.0, "delta": 0.25, "clip_norm": 1.5, "expected_batch": 4},
        **{"learning_rate": 0.5, "momentum": 0.5, "optimizer": "sgd"},
    ),
    "SharedNoise": of(
        settings.SharedNoise,
        **{"colluders": 1, "drop_outs": 1, "protocol_every": 2, "precision": "single"},
    ),
    "UpdatePrivacy": of(
        settings.UpdatePrivacy,
        **{"clip_norm": 1.5, "sensitivity": 0.5, "epsilon": 2.0, "delta": 0.25, "noise": "none"},
    ),
    "SecondOrder": of(settings.SecondOrder, mean_share=0.125, moments_share=0.25, floor=0.5),
    "RunSettings": Case(
        lambda **k: settings.RunSettings(arm="fedavg", profile="smoke", **k).as_dict(),
        {
            **{"hospitals": 5, "seed": 3, "rounds": 4, "train_stride": 16, "test_stride": 4},
            **{"threads": 2, "scope": "federated", "evaluate_on": "test"},
            **{"precision": "float32"},
        },
        optional=("seed",),
    ),
    "SecAggParameters": of(
        settings.SecAggParameters,
        "levels",
        **{"neighbours": 4, "threshold": 4, "value_range": 2.0, "drop_rate": 0.25},
        **{"levels": 65, "field_bits": 31},
    ),
}
EACH = [(name, argument) for name, case in CASES.items() for argument in case.good]
NUMBERS = [(name, one) for name, one in EACH if not isinstance(CASES[name].good[one], str)]


pytestmark = pytest.mark.usefixtures("as_users_call_it")


def refused(case: Case, argument: str, value: Any) -> bool:
    """Whether the call raises InputError; then it names the argument. Nothing else is raised."""
    said = None
    try:
        case.call(**{**case.good, argument: value})
    except InputError as problem:
        said = problem
    if said is None:
        return False
    assert said.field in (argument, *case.wanted.get(argument, ())), str(said)
    assert "\n" not in str(said)
    return True


@pytest.mark.parametrize(("name", "argument"), EACH)
def test_what_no_argument_means_is_refused_by_name(name, argument):
    case = CASES[name]
    taken = [label for label, value in NEVER.items() if not refused(case, argument, value)]
    assert not taken
    assert refused(case, argument, None) is (argument not in case.optional)


@pytest.mark.parametrize(("name", "argument"), EACH)
def test_extremes_are_taken_or_refused_by_name(name, argument):
    case = CASES[name]
    taken = [label for label, value in ODD.items() if not refused(case, argument, value)]
    if isinstance(case.good[argument], str):
        assert taken == (["None"] if argument in case.optional else [])
    elif argument not in ("eta", "threshold"):  # which may be negative
        assert not {"-1", "-inf"} & set(taken)


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_scalars_of_other_libraries_come_to_the_same(name, argument):
    case = CASES[name]
    value, expected = case.good[argument], case.call(**case.good)
    same: list[Any]
    if isinstance(value, int):
        same = [np.int64(value), np.uint8(value), np.array(value), torch.tensor(value)]
    else:
        same = [np.float64(value), np.float32(value), np.array(value), torch.tensor(value)]
    for scalar in same:
        assert repr(case.call(**{**case.good, argument: scalar})) == repr(expected), type(scalar)


def test_counts_may_be_whole_floats_but_keys_may_not():
    assert checks.check_count("n", 1e9) == 10**9
    assert checks.check_count("n", np.float32(3)) == 3
    assert type(checks.check_count("n", np.int8(3))) is int
    for value in (2.5, 0, math.inf):
        with pytest.raises(InputError, match="n: got"):
            checks.check_count("n", value)
    with pytest.raises(InputError, match="seed: got"):
        RootSeed.from_user(5.0)  # type: ignore[arg-type]


def test_streams_do_not_depend_on_the_type_of_their_numbers():
    root = RootSeed.from_user(1)
    assert root.derive("x", np.int64(3), torch.tensor(4)) == root.derive("x", 3, 4)


def test_a_subnormal_delta_has_finite_answers():
    """δ = 1e-320: ε and σ finite, and in order with those of δ = 1e-300."""
    small, larger = 1e-320, 1e-300
    for function, arguments in [
        (accounting.gaussian_epsilon, (2.0, 1.0, 1)),
        (accounting.gaussian_sigma, (2.0, 1.0, 1)),
        (accounting.classical_sigma, (0.5, 1.0)),
        (accounting.classical_epsilon, (2.0, 1.0)),
    ]:
        assert function(*arguments, larger) < function(*arguments, small) < math.inf
    assert local_dp_mod_sigma(1.0, small, 1.0) == pytest.approx(
        math.sqrt(2 * (math.log(1.25) + 320 * math.log(10))), rel=1e-3
    )
    accountant = RDPAccountant().compose(PoissonSampledGaussianEvent(1.0, 0.01), 100)
    assert accountant.epsilon(larger)[0] < accountant.epsilon(small)[0] < math.inf


def test_weights_that_sum_up_to_zero_have_no_mean():
    total = ExactWeightedSum(2, 5)
    total.add(torch.ones(2), 0)
    with pytest.raises(InputError, match="weights: got 0"):
        total.mean()
    encoding = Encoding(Field(31), 2)
    both = sum(encoding.encode(np.ones(2), 0, key).astype(np.int64) for key in (1, 2))
    with pytest.raises(InputError, match="weights: got 0"):
        encoding.decode(both % encoding.field.modulus, 2)
