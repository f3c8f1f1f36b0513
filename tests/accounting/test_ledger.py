"""The ledger of a federated run: maxima, sums, resumes, warnings, and what it refuses."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import (
    DataDependentRateEvent,
    FixedBatchGaussianEvent,
    GaussianEvent,
    NonPrivateEvent,
    PLDAccountant,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    ShuffledBatchesEvent,
    gaussian_epsilon,
)
from repro.accounting.composition import compose_epsilon, summed_multiplier
from repro.accounting.ledger import FederatedLedger, View
from repro.accounting.ledger.rows import warnings_of
from repro.errors import InputError
from repro.formatting import to_json

DELTA = 1.9e-4
SIZES = {0: 874, 1: 608, 2: 1304}
NAMES = """unit relation equivalent trust method epsilons mechanism view delta epsilon_round
    epsilon_total order hospital rounds steps noise_multiplier sample_rate sensitivity accountant
    seed_source public note warnings"""
KEYS = set(NAMES.split())


def dp_sgd(**more):
    usual = {"unit": "record", "mechanism": "dp-sgd", "delta": DELTA, "hospital_sizes": SIZES}
    return FederatedLedger(**usual | more)


def updates(hospitals=10, **more):
    sizes = dict.fromkeys(range(hospitals), 956)
    usual = {"unit": "hospital", "mechanism": "gaussian update", "delta": DELTA, "clip_norm": 7.0}
    return FederatedLedger(**usual | {"hospital_sizes": sizes} | more)


def noised(multiplier, hospitals):
    return [(h, GaussianEvent(multiplier, unit="hospital"), 1) for h in hospitals]


def steps_of(hospital):
    return PoissonSampledGaussianEvent(1.7, 32 / SIZES[hospital]), 3 * SIZES[hospital] // 32


def train(ledger, rounds):
    for _ in range(rounds):
        for hospital in SIZES:
            ledger.spend(hospital, *steps_of(hospital))


def test_record_epsilon_is_the_maximum_over_hospitals():
    """Disjoint records: the run's ε is the worst hospital's own, composed over its rounds."""
    ledger = dp_sgd()
    train(ledger, 50)
    alone = {}
    for hospital in SIZES:
        event, count = steps_of(hospital)
        alone[hospital] = RDPAccountant().compose(event, 50 * count).epsilon(DELTA)
    worst = max(alone, key=alone.get)
    statement = ledger.record_epsilon()
    assert worst == 1  # the smallest hospital has the highest sample rate
    assert statement.by_method["rdp"] == alone[worst][0]
    # Tighter than RDP by about a tenth, and said to be by another method.
    assert 0.8 * alone[worst][0] < statement.epsilon < 0.97 * alone[worst][0]
    assert (statement.method, statement.order) == ("pld", None)
    assert statement.hospital == worst
    assert ledger.hospital_epsilon().epsilon == math.inf


def test_the_worst_hospital_is_found_among_near_equals():
    """The first one's best bound is below the others' Rényi bounds, so all have to be asked."""
    ledger, alone = dp_sgd(), []
    for hospital, noise in zip(SIZES, (1.0, 1.01, 1.02), strict=True):
        event = PoissonSampledGaussianEvent(noise, 0.05)
        ledger.spend(hospital, event, 100)
        alone.append(compose_epsilon({event: 100}, "add_remove", "record", DELTA))
    assert alone[0].epsilon < min(bound.by_method["rdp"] for bound in alone)
    assert alone[0].epsilon > alone[1].epsilon > alone[2].epsilon
    assert ledger.record_epsilon().epsilon == alone[0].epsilon
    assert ledger.record_epsilon().hospital == 0


def test_hospital_epsilon_composes_over_rounds_exactly():
    """Noised updates: the paper's section-4 numbers, plain and after a secure sum of ten."""
    sigma = 0.698873
    ledger = updates(aggregation="secure")
    for _ in range(50):
        ledger.spend_round(noised(sigma / 7, range(10)))
    for relation, plain, summed in [("add_remove", 2759, 329), ("replace_one", 10535, 1161)]:
        got = ledger.hospital_epsilon(relation=relation, view="plain").epsilon
        assert got == pytest.approx(plain, abs=0.6)
        got = ledger.hospital_epsilon(relation=relation).epsilon
        assert got == pytest.approx(summed, abs=0.6)
    # No record is clipped: replacing the whole update is what covers a record.
    assert ledger.record_epsilon().epsilon == pytest.approx(1161, abs=0.6)


def test_rows_say_what_they_hold_for():
    """Every row has every key, survives strict JSON, and names its view, relation and unit."""
    ledger = updates(aggregation="secure")
    for _ in range(2):
        ledger.spend_round(noised(5.0, range(10)))
    rows = ledger.as_records()
    assert len(json.loads(to_json(rows))) == 6
    assert all(set(row) == KEYS for row in rows)
    seen = {(row["unit"], row["relation"], row["view"]) for row in rows}
    assert ("hospital", "add_remove", "server, plain aggregation") in seen
    assert ("hospital", "replace_one", "server, after secure aggregation") in seen
    row = next(r for r in rows if r["unit"] == "hospital" and "secure" in r["view"])
    assert row["noise_multiplier"] == pytest.approx(5 * math.sqrt(10))
    assert (row["sensitivity"], row["rounds"], row["steps"]) == (7.0, 2, 2)
    once, twice = (gaussian_epsilon(5 * math.sqrt(10), 1, n, DELTA) for n in (1, 2))
    assert row["epsilon_round"] == pytest.approx(once, rel=1e-12)
    assert row["epsilon_total"] == pytest.approx(twice, rel=1e-12)
    assert "hospital sizes (FedAvg weights)" in row["public"]
    assert "really adds its noise" in row["note"]


def test_dp_sgd_rows_are_honest_about_the_hospital():
    """Record-level training protects no hospital: ∞, with a note; secure sums change nothing."""
    ledger = dp_sgd(aggregation="secure")
    train(ledger, 2)
    by = {(row["unit"], row["view"].split()[-2]): row for row in ledger.as_records()}
    record, hospital = by["record", "plain"], by["hospital", "plain"]
    assert hospital["epsilon_total"] == hospital["epsilon_round"] == math.inf
    assert "not" in hospital["note"]
    assert record["epsilon_round"] < record["epsilon_total"] < math.inf
    assert record["relation"] == "add_remove"
    assert by["record", "secure"]["epsilon_total"] == record["epsilon_total"]
    assert record["sample_rate"] == 32 / SIZES[record["hospital"]]


def test_sampled_hospitals_have_no_statement_for_replacing_one():
    """Poisson-sampled hospitals: ε for add/remove, ∞ (not a wrong number) for replacing one."""
    ledger = updates()
    ledger.spend(0, PoissonSampledGaussianEvent(2.0, 0.1, unit="hospital"))
    assert ledger.hospital_epsilon().epsilon < math.inf
    assert ledger.hospital_epsilon(relation="replace_one").epsilon == math.inf
    by_unit = {row["unit"]: row["epsilon_total"] for row in ledger.as_records()}
    assert by_unit["record"] == math.inf


def test_a_run_without_noise_has_infinite_epsilon():
    """Arms without noise say ∞ for everybody, and survive strict JSON."""
    ledger = updates(mechanism="none", hospital_sizes=SIZES, aggregation="secure")
    ledger.spend(0, NonPrivateEvent(unit="hospital"))
    for row in ledger.as_records():
        assert row["epsilon_total"] == row["epsilon_round"] == math.inf
        assert row["accountant"] == "none"
    assert json.loads(to_json(ledger.as_records()))[0]["epsilon_total"] == "inf"


def test_nothing_spent_is_zero():
    """Before the first round every guaranteed ε is 0."""
    assert updates().hospital_epsilon().epsilon == 0
    assert dp_sgd().record_epsilon().epsilon == 0
    assert all(row["rounds"] == 0 for row in dp_sgd().as_records())


@given(first=st.integers(0, 6), then=st.integers(0, 6))
@settings(max_examples=10)
def test_a_resumed_run_spends_what_an_unbroken_one_does(first, then):
    """Saved through JSON after any round and restored, the ledger is the same to the last bit."""
    unbroken = dp_sgd()
    train(unbroken, first + then)
    before = dp_sgd()
    train(before, first)
    after = dp_sgd()
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    train(after, then)
    assert after.state_dict() == unbroken.state_dict()
    assert after.as_records() == unbroken.as_records()


def test_running_on_adds_to_what_was_spent():
    """More rounds after a finished run cost more, composed with the first ones."""
    ledger = dp_sgd()
    train(ledger, 5)
    finished = ledger.record_epsilon()
    train(ledger, 5)
    event, count = steps_of(1)
    both = RDPAccountant().compose(event, 10 * count).epsilon(DELTA)[0]
    tight = PLDAccountant().compose(event, 10 * count).epsilon(DELTA)[0]
    after = ledger.record_epsilon()
    assert dict(after.by_method) == {"rdp": both, "pld": tight}
    assert finished.epsilon < after.epsilon == min(both, tight)


def test_rounds_with_fewer_survivors_cost_more():
    """A round that loses hospitals has less noise in its sum; it is the worst single round."""
    full, broken = updates(aggregation="secure"), updates(aggregation="secure")
    events = noised(3.0, range(10))
    for _ in range(3):
        full.spend_round(events)
    broken.spend_round(events)
    broken.spend_round(events, survivors=range(4))
    broken.spend_round(events)
    assert broken.hospital_epsilon().epsilon > full.hospital_epsilon().epsilon
    row = next(r for r in broken.as_records() if r["unit"] == "hospital" and "secure" in r["view"])
    assert row["epsilon_round"] == gaussian_epsilon(3.0 * 2, 1, 1, DELTA)
    # A hospital that dropped out of that round spent less than the survivors.
    assert row["hospital"] in range(4)


def test_a_weighted_sum_protects_the_largest_hospital_least():
    """FedAvg weights: the ε after secure aggregation is that of the largest hospital."""
    ledger, fair = (updates(hospital_sizes=SIZES, aggregation="secure") for _ in range(2))
    ledger.spend_round(noised(4.0, SIZES))
    multiplier = 4.0 * math.hypot(*SIZES.values()) / 1304
    statement = ledger.hospital_epsilon()
    assert statement.hospital == 2
    assert statement.epsilon == gaussian_epsilon(multiplier, 1, 1, DELTA)
    fair.spend_round(noised(4.0, SIZES), weights=dict.fromkeys(SIZES, 1))
    assert fair.hospital_epsilon().epsilon < statement.epsilon


def test_a_clipped_sum_gets_no_credit_for_the_others_noise():
    """Values clipped before the sum: stated as if the update had been seen alone."""
    ledger = updates(aggregation="secure")
    ledger.spend_round(noised(4.0, range(10)), exact_sum=False)
    assert ledger.hospital_epsilon().epsilon == gaussian_epsilon(4.0, 1, 1, DELTA)


def test_a_round_is_recorded_whole_or_not_at_all():
    """One bad entry among good ones: nothing of the round is kept."""
    ledger = updates()
    ledger.spend_round(noised(4.0, range(3)))
    before = ledger.state_dict()
    with pytest.raises(InputError):
        ledger.spend_round([*noised(4.0, range(3)), (99, GaussianEvent(1.0, unit="hospital"), 1)])
    with pytest.raises(InputError):
        ledger.spend_round(noised(4.0, range(3)), weights={0: 1.0})
    assert ledger.state_dict() == before


def test_several_events_of_one_hospital_are_one_round():
    """DP-SGD and a noised statistic in the same round: composed, and counted as one round."""
    ledger = dp_sgd()
    event, count = steps_of(1)
    ledger.spend_round([(1, event, count), (1, GaussianEvent(5.0), 2)])
    both = RDPAccountant().compose(event, count).compose(GaussianEvent(5.0), 2)
    assert ledger.record_epsilon().by_method["rdp"] == both.epsilon(DELTA)[0]
    row = ledger.as_records()[0]
    assert (row["rounds"], row["steps"]) == (1, count + 2)


@given(
    hospitals=st.lists(
        st.tuples(st.floats(0.1, 10.0), st.floats(0.1, 4.0)), min_size=2, max_size=7
    ),
    colluding=st.integers(0, 8),
)
@settings(max_examples=50)
def test_the_noise_of_a_sum(hospitals, colluding):
    """√Σ(wⱼzⱼ)²/wᵢ over the hospital itself and whoever is left of the others, at the worst."""
    weights = {h: weight for h, (weight, _) in enumerate(hospitals)}
    multipliers = {h: z for h, (_, z) in enumerate(hospitals)}
    for h, weight in weights.items():
        others = [one for one in weights if one != h]
        left = itertools.combinations(others, max(0, len(others) - colluding))
        worst = min(
            math.sqrt(sum((weights[one] * multipliers[one]) ** 2 for one in (h, *some))) / weight
            for some in left
        )
        found = summed_multiplier(h, multipliers, weights, colluding=colluding)
        assert found == pytest.approx(worst, rel=1e-12)


def test_warnings_name_the_hospital():
    """δ ≥ 1/n is warned about with the hospital's name; so are noise keys someone knows."""
    sizes = {3: 1304, 4: 1000, 5: 608}
    ledger = dp_sgd(delta=1e-3, hospital_sizes=sizes, seed_source="user seed")
    warnings = warnings_of(ledger.terms, "record")
    assert [w for w in warnings if w.startswith("hospital 3:")]
    assert [w for w in warnings if w.startswith("hospital 4:")]
    assert not [w for w in warnings if w.startswith("hospital 5:")]
    assert any("user seed" in w for w in warnings)
    assert warnings_of(dp_sgd().terms, "record") == []


@pytest.mark.parametrize(
    ("hospital", "event", "count"),
    [
        (9, GaussianEvent(1.0), 1),
        (0, GaussianEvent(1.0, unit="hospital"), 1),
        (0, ShuffledBatchesEvent(1.0, 32), 1),
        (0, DataDependentRateEvent(1.0), 1),
        (0, FixedBatchGaussianEvent(1.0, 0.1), 1),  # the others are proved for add/remove only
        (0, GaussianEvent(1.0), -1),
    ],
)
def test_what_cannot_be_accounted_for_is_refused_at_once(hospital, event, count):
    """Refused before anything is recorded, so a run stops before it trains without a proof."""
    ledger = dp_sgd()
    train(ledger, 1)
    before = ledger.state_dict()
    with pytest.raises(InputError):
        ledger.spend(hospital, event, count)
    assert ledger.state_dict() == before


def test_a_foreign_state_is_refused():
    """Another unit, mechanism or hospital is not restored, and the spend stays as it was."""
    ledger = dp_sgd()
    train(ledger, 1)
    state = ledger.state_dict()
    for broken in (
        {**state, "unit": "hospital"},
        {**state, "mechanism": "none"},
        {**state, "spent": [{**state["spent"][0], "hospital": 77}]},
    ):
        with pytest.raises(InputError):
            ledger.load_state_dict(broken)
    assert ledger.state_dict() == state


@pytest.mark.parametrize(
    "bad",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"unit": "patient"},
        {"hospital_sizes": {0: 0}},
        {"aggregation": "magic"},
        {"clip_norm": 0.0},
        {"seed_source": "dice"},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(InputError):
        dp_sgd(**bad)


def shared(**more):
    """Three hospitals that share the noise of a sum, seen by all and by a coalition of one."""
    views = [
        View("model", "public model", "every hospital adds its share"),
        View("coalition", "coalition of 1", "the others add theirs", multiplier=(2 / 3) ** 0.5),
    ]
    return dp_sgd(views=views, **more)


def test_an_arm_brings_its_own_views():
    """Each view is stated with the noise it is left with, and with what must be trusted."""
    ledger, event = shared(), PoissonSampledGaussianEvent(2.0, 0.05)
    ledger.spend_round((h, event, 20) for h in SIZES)
    rows = {row["view"]: row for row in ledger.as_records() if row["unit"] == "record"}
    assert rows["public model"]["noise_multiplier"] == 2.0
    assert rows["coalition of 1"]["noise_multiplier"] == pytest.approx(2.0 * (2 / 3) ** 0.5)
    assert rows["public model"]["epsilon_total"] < rows["coalition of 1"]["epsilon_total"]
    assert rows["coalition of 1"]["trust"] == "the others add theirs"
    assert "holds if the others add theirs" in rows["coalition of 1"]["note"]
    # The statement asked for without a view is the last one's.
    assert ledger.record_epsilon().epsilon == rows["coalition of 1"]["epsilon_total"]
    model = ledger.record_epsilon(view="model")
    assert model.epsilon == rows["public model"]["epsilon_total"]


def test_a_round_may_show_a_view_less_noise():
    """After a drop-out the coalition sees less noise in that round, the other rounds as planned."""
    ledger, event = shared(), GaussianEvent(3.0)
    ledger.spend_round((h, event, 1) for h in SIZES)
    less = {h: {"coalition": event.scaled(0.5)} for h in SIZES}
    ledger.spend_round(((h, event, 1) for h in SIZES), seen=less)
    mu = math.hypot(1 / (3 * (2 / 3) ** 0.5), 1 / 1.5)
    assert ledger.record_epsilon().epsilon == pytest.approx(gaussian_epsilon(1 / mu, 1, 1, DELTA))
    restored = shared()
    restored.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert restored.as_records() == ledger.as_records()
    with pytest.raises(InputError, match="view"):
        ledger.spend_round(
            ((h, event, 1) for h in SIZES), seen={0: {"martians": event.scaled(0.5)}}
        )


@pytest.mark.parametrize("views", [[], [View("a", "one"), View("a", "another")]])
def test_views_are_told_apart(views):
    with pytest.raises(InputError, match="views"):
        dp_sgd(views=views)


def test_equal_entries_of_a_state_add_up():
    """A list that names an entry twice is the whole of both; a refused one changes nothing."""
    whole, part = updates(3), updates(3)
    for ledger in (part, whole, whole):
        ledger.spend_round(noised(4.0, range(3)))
        ledger.spend_round(noised(3.0, range(2)))
    both = {**part.state_dict(), "spent": part.state_dict()["spent"] * 2}
    listed = updates(3)
    listed.load_state_dict(both)
    assert listed.state_dict() == whole.state_dict()
    assert listed.as_records() == whole.as_records()
    with pytest.raises(InputError):
        listed.load_state_dict({**both, "unit": "record"})
    assert listed.state_dict() == whole.state_dict()


def test_equal_events_written_differently_add_up():
    """A multiplier of 4 and one of 4.0 are one event: a state naming both counts both."""
    ledger = updates(2)
    ledger.spend_round(noised(4.0, range(2)))
    entry = ledger.state_dict()["spent"][0]
    twin = json.loads(json.dumps(entry))
    twin["event"]["noise_multiplier"] = 4
    state = {**ledger.state_dict(), "spent": [entry, twin]}
    ledger.load_state_dict(state)
    assert sum(ledger.spent[entry["hospital"]].values()) == 2


def test_states_written_with_two_fixed_views_are_still_read():
    """What a secure sum showed used to be called ``in_sum``."""
    ledger = updates(2, aggregation="secure")
    ledger.spend_round(noised(4.0, range(2)))
    state = ledger.state_dict()
    for entry in state["spent"]:
        entry["in_sum"] = entry.pop("seen")["secure"]
    restored = updates(2, aggregation="secure")
    restored.load_state_dict(state)
    assert restored.as_records() == ledger.as_records()


def test_zero_out_is_stated_where_n_is_public():
    """The same ε as for adding or removing, named beside it; never for fixed-size batches."""
    ledger = dp_sgd()
    train(ledger, 2)
    row = ledger.as_records()[0]
    assert (row["relation"], row["equivalent"]) == ("add_remove", ["zero_out"])
    assert "zero_out" in ledger.relations()
    fixed = dp_sgd()
    fixed.spend(0, FixedBatchGaussianEvent(2.0, 0.1))
    assert all(row["equivalent"] == [] for row in fixed.as_records())
    assert "zero_out" not in fixed.relations()
