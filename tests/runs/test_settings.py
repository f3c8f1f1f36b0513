"""A misspelt choice or an impossible number is refused by name; finished runs keep their names."""

import dataclasses

import pytest

from repro.data import SCHEMES
from repro.errors import InputError
from repro.models.registry import MODELS
from repro.privacy.clipping import KINDS
from repro.report.claims import PAPER_RESULTS
from repro.runs import settings as module
from repro.runs.arms import ARMS, get_arm
from repro.runs.composition import compose, precision_of
from repro.runs.filter_settings import FilterSettings
from repro.runs.profiles import PROFILES
from repro.runs.search_settings import SearchSettings
from repro.runs.settings import (
    LocalSettings,
    ModelSettings,
    PartitionSettings,
    RecordPrivacy,
    Robustness,
    RunSettings,
    SecAggParameters,
    SecondOrder,
    SharedNoise,
    UpdatePrivacy,
)
from repro.runs.store import RunStore

BAD = [
    (ModelSettings, "name", "resnet"),
    (ModelSettings, "normalisation", "Group"),
    (ModelSettings, "downsampling", "strided"),
    (ModelSettings, "skips", "two"),
    (ModelSettings, "width", 0),
    (PartitionSettings, "scheme", "author"),
    (PartitionSettings, "alpha", 0.0),
    (PartitionSettings, "validation_fraction", 1.0),
    (LocalSettings, "epochs", 0),
    (LocalSettings, "batch_size", 0),
    (LocalSettings, "learning_rate", float("nan")),
    (RecordPrivacy, "optimizer", "Adam"),
    (RecordPrivacy, "clipping", "flatt"),
    (RecordPrivacy, "epsilon", -6.0),
    (RecordPrivacy, "delta", 1.0),
    (RecordPrivacy, "momentum", 1.0),
    (RecordPrivacy, "expected_batch", 0),
    (UpdatePrivacy, "noise", "documentd"),
    (UpdatePrivacy, "clip_norm", float("inf")),
    (SharedNoise, "colluders", -1),
    (SharedNoise, "protocol_every", 0),
    (Robustness, "lie", "small"),
    (Robustness, "hostile", -1),
    (Robustness, "group", 1),
    (SecAggParameters, "field_bits", 32),
    (SecAggParameters, "drop_rate", 1.0),
    (SecAggParameters, "levels", 1),
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_a_bad_setting_is_named(kind, name, value):
    with pytest.raises(InputError) as refused:
        kind(**{name: value})
    assert refused.value.field == name
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scope", "central"),
        ("evaluate_on", "val"),
        ("rounds", 0),
        ("train_stride", 0),
        ("precision", "bf16"),
    ],
)
def test_a_bad_setting_of_the_run_is_named(name, value):
    settings = compose(get_arm("fedavg"), PROFILES["smoke"], hospitals=5, seed=0)
    with pytest.raises(InputError) as refused:
        dataclasses.replace(settings, **{name: value})
    assert refused.value.field == name


def test_choices_are_those_that_the_code_knows():
    assert tuple(MODELS) == module.MODEL_NAMES
    assert tuple(SCHEMES) == module.SCHEMES
    assert module.CLIPPINGS == KINDS


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_the_parts_follow_from_what_is_set(arm):
    settings = compose(arm, PROFILES["smoke"], hospitals=5, seed=0)
    parts = (settings.trainer, settings.mechanism, settings.aggregator)
    assert parts == (arm.trainer, arm.mechanism, arm.aggregator)


def test_runs_of_record_keep_their_names():
    """Every run on record, ablations' too, is found again under the name of its settings."""
    records = RunStore(PAPER_RESULTS).all()
    assert len(records) >= 126
    for record in records:
        settings = from_record(record.settings)
        assert settings.run_id(record.dataset["fingerprint"]) == record.run_id


def test_the_precision_is_in_a_name_unless_it_is_float32():
    own = compose(get_arm("fedavg"), PROFILES["paper"], hospitals=10, seed=0)
    mixed = compose(
        get_arm("fedavg"), PROFILES["paper"], hospitals=10, seed=0, precision="bf16-mixed"
    )
    assert own.run_id("data") == "fedavg-k10-s0-paper-" + own.digest("data")
    assert mixed.run_id("data") != own.run_id("data")
    assert mixed.as_dict()["precision"] == "bf16-mixed"


@pytest.mark.parametrize(
    ("arm", "profile", "asked", "fast", "taken"),
    [
        ("fedavg", "paper", None, True, "bf16-mixed"),
        ("clip-secagg", "paper", None, True, "bf16-mixed"),
        ("fedavg", "paper", None, False, "float32"),
        ("fedavg", "quick", None, True, "float32"),
        ("fedavg", "quick", "auto", True, "bf16-mixed"),
        ("dpsgd-eps6", "paper", None, True, "float32"),  # auto: never for an arm that adds noise
        ("documented-secagg", "paper", "auto", True, "float32"),
        ("dpsgd-eps6", "paper", "bf16-mixed", False, "bf16-mixed"),  # said by name: obeyed
        ("scattering-fedavg", "paper", None, True, "float32"),
        ("fedavg", "paper", "float32", True, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_fast_and_nothing_is_promised(
    arm, profile, asked, fast, taken
):
    assert precision_of(get_arm(arm), PROFILES[profile], asked, lambda: fast) == taken


# Choices that there no longer are. A record tells the value that everything on record had.
RETIRED = {"local_steps": 1, "local_rate": 0.1, "views": 1, "average": 0.0, "concurrent": 1}


def from_record(given):
    """The ``RunSettings`` that a record tells."""
    parts = {
        "model": ModelSettings,
        "partition": PartitionSettings,
        "local": LocalSettings,
        "record_privacy": RecordPrivacy,
        "twin_of": RecordPrivacy,
        "update_privacy": UpdatePrivacy,
        "secagg": SecAggParameters,
        "robustness": Robustness,
        "second_order": SecondOrder,
        "search": SearchSettings,
        "shared": SharedNoise,
    }
    filters = given["model"].get("filters")
    if filters is not None:
        made = FilterSettings(**tuples(filters))
        given = given | {"model": given["model"] | {"filters": made}}
    own = {one.name for one in dataclasses.fields(RunSettings)}
    kept = {
        name: parts[name](**tuples(without_retired(value))) if name in parts and value else value
        for name, value in without_retired(given).items()
        if name in own
    }
    return RunSettings(**kept)


def tuples(value):
    """What JSON made lists of."""
    if isinstance(value, dict):
        return {name: tuples(one) for name, one in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def without_retired(values):
    for name in RETIRED.keys() & values.keys():
        assert values[name] == RETIRED[name]
    return {name: value for name, value in values.items() if name not in RETIRED}
