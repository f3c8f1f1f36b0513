"""Every number that a public function takes: the right value, or InputError that names it.

Each argument in turn is given what people give by mistake (zero, NaN, ∞, the largest and smallest
numbers, truth values, text, None, arrays) and what they may give instead of a Python number
(scalars of NumPy and torch, which must come to the same result, bit for bit).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from repro import accounting, checks
from repro.accounting import GaussianEvent, PoissonSampledGaussianEvent, RDPAccountant, gaussian
from repro.accounting.without_replacement import rdp_fixed_batch_gaussian
from repro.data import partition
from repro.errors import InputError
from repro.federated.parallel.exact_sum import ExactWeightedSum
from repro.federated.shared.noise_plan import NoisePlan
from repro.privacy import Clipping, DPSGDSettings, PoissonSampler
from repro.privacy.mechanisms import ClipAndNoiseUpdate, local_dp_mod_sigma
from repro.random import RootSeed
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
        accounting.calibrate_noise_multiplier,
        # No steps: the answer is 0 at once, but every argument is checked.
        {"epsilon": 2.0, "delta": 2.0**-10, "sample_rate": 0.125, "steps": 0},
        wanted={"steps": ("epsilon",)},  # where no noise would do
    ),
    "search_epsilon": Case(
        lambda **k: accounting.search_epsilon({GaussianEvent(2.0): 1}, **k),
        {"delta": 2.0**-10, "trials": 4.0, "eta": 0.5},
        wanted={"trials": ("eta",)},
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
            **{"average_decay": 0.5, "chunk_size": 2},
        },
        optional=("average_decay", "chunk_size"),
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
    "SecAggParameters": of(
        settings.SecAggParameters, neighbours=4, threshold=4, value_range=2.0, drop_rate=0.25
    ),
}
EACH = [(name, argument) for name, case in CASES.items() for argument in case.good]
NUMBERS = [(name, one) for name, one in EACH if not isinstance(CASES[name].good[one], str)]


@pytest.fixture(autouse=True)
def _as_users_call_it():
    """Without the tests' run-time type checks, which users do not have."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


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
        assert not taken
    elif argument != "eta":  # which may be negative
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
