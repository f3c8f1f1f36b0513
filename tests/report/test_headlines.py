"""What stands beside a headline: both neighbouring relations, the images, the test set's chance."""

import dataclasses
import math

import numpy as np
import pytest

from repro.accounting import PoissonSampledGaussianEvent, RDPAccountant, gaussian_epsilon
from repro.accounting.ledger import UNPROTECTED
from repro.report.answer import answer
from repro.report.privacy import exchanged, replaced_epsilon, true_epsilon
from repro.report.shown import trained_on, widest_test_error
from repro.report.sources import Sources
from repro.report.statistics import binomial_error
from repro.runs import RunStore
from repro.runs.arms import ARMS
from tests.report import fake

ARM = "random-newton-eps6"
COALITION = "coalition of 1 hospital with the server"


def run(hospitals, seed, arm=ARM, rows=None):
    """9,562 or 9,560 images; ε as the ledgers of the runs of record have it."""
    made = fake.record(arm, hospitals, seed, kind="rebuilt")
    spent = {10: (5.5975, 13.0019), 20: (5.8115, 13.5366)}[hospitals]
    row = {"unit": "record", "delta": 1e-5, "epsilon_round": 1.0}
    own = [
        row | {"view": view, "relation": relation, "epsilon_total": factor * total}
        for view, factor in ((UNPROTECTED, 4), (COALITION, 1), ("server", 0.9))
        for relation, total in zip(("add_remove", "replace_one"), spent, strict=True)
    ]
    data = made.dataset | {"train_images": {10: 9562, 20: 9560}[hospitals]}
    return dataclasses.replace(made, dataset=data, privacy=rows or own)


def test_a_headline_says_which_relation_which_images_and_how_sure(tmp_path):
    store = RunStore(tmp_path)
    for hospitals in (10, 20):
        for seed in (0, 1, 2):
            store.save(run(hospitals, seed))
    sources = Sources.of(tmp_path, profile="quick")
    given = answer(sources, [])
    headline = given.short[2]
    assert headline.endswith(
        " at ε = 6 for a record (zero-out; ε = 13 / 13.5 if exchanged for another)."
    )
    images = sum(fake.TEST_SIZES)
    finals = [run(hospitals, 1).final_accuracy for hospitals in (10, 20)]  # the seeds' means
    reached = " / ".join(f"{100 * one:.1f} %" for one in finals).replace(" % /", " /")
    assert f"reach {reached} (10 / 20 hospitals)" in headline
    (row,) = (row for row in given.table.rows if row["what"].startswith("honest") and
              row["group"] == ARMS[ARM].family.heading)  # fmt: skip
    assert row["epsilon"] == "5.81 (record; 13.5 exchanged)"
    caption = given.table.caption
    assert "trained on 9,562 / 9,560 images (20 % of every hospital's are held out)" in caption
    every = [run(k, seed).final_accuracy for k in (10, 20) for seed in (0, 1, 2)]
    own = sorted(100 * math.sqrt(p * (1 - p) / images) for p in every)
    assert f"own binomial error is {own[0]:.2f} to {own[-1]:.2f} points" in caption
    assert "zero-out: how many records a hospital has is public" in caption
    assert f"shared: {reached}" in given.found[3].text


def test_beside_it_stands_what_needed_no_private_image_to_be_chosen(tmp_path):
    store, free = RunStore(tmp_path), "drawn-newton-eps6"
    cells = [(hospitals, seed) for hospitals in (10, 20) for seed in (0, 1, 2)]
    for cell in cells:
        store.save(run(*cell))
    assert "No setting" not in answer(Sources.of(tmp_path, profile="quick"), []).short[2]
    for cell in cells:
        store.save(run(*cell, free))
    given = answer(Sources.of(tmp_path, profile="quick"), [])
    reached = " / ".join(f"{100 * run(k, 1, free).final_accuracy:.1f}" for k in (10, 20))  # means
    assert given.short[2].endswith(
        f" No setting chosen on private images, a choice no ε covers: {reached} %."
    )
    assert given.found[3].text.endswith(f"There was none for {ARMS[free].family.sentence}.")


@pytest.mark.parametrize("kind", ["synthetic", "rebuilt"])
def test_drawn_images_or_one_seed_find_nothing_possible(tmp_path, kind):
    seeds = (0, 1) if kind == "synthetic" else (0,)
    store = fake.store(tmp_path, [])
    for hospitals in (10, 20):
        for seed in seeds:
            store.save(fake.record(ARM, hospitals, seed, kind=kind))
    line = answer(Sources.of(tmp_path, profile="quick"), []).short[2]
    because = {"synthetic": "a program drew their images", "rebuilt": "there is one seed only"}
    assert line == f"What honest privacy costs these runs cannot say: {because[kind]}."


def test_the_headlines_own_numbers():
    """The issue's: 0.45 points at 92.4 % of 3,421 images."""
    assert 100 * binomial_error(0.924, 3421) == pytest.approx(0.453, abs=5e-4)
    draws = np.random.default_rng(0).binomial(3421, 0.924, 200_000) / 3421
    assert binomial_error(0.924, 3421) == pytest.approx(draws.std(), rel=0.01)  # six deviations
    assert widest_test_error([]) == ""


def test_records_that_do_not_say_how_many_images_are_left_out(tmp_path):
    fake.store(tmp_path, ["fedavg"])
    sources = Sources.of(tmp_path, profile="quick")
    assert trained_on(sources.evidence, "fedavg") == ""
    assert "trained on" not in answer(sources, []).table.caption


def test_an_exchange_is_two_neighbours_away():
    """The search finds what a fine grid over δ′ finds, and at rate 1, where the exact ε of an
    exchange is known, it is not below that."""
    noise, rate, steps, delta = 1.4, 0.05, 200, 1e-5
    once = RDPAccountant().compose(PoissonSampledGaussianEvent(noise, rate), steps)
    inner = [delta * 10 ** (-part / 100) for part in range(600)]
    pairs = [(2 * once.epsilon(one)[0], one) for one in inner]
    best = min(both for both, one in pairs if (1 + math.exp(both / 2)) * one <= delta)
    assert exchanged(noise, rate, steps, delta) == pytest.approx(best, rel=0.01)
    exact = gaussian_epsilon(4.0, 2.0, 10, delta)
    assert exact < exchanged(4.0, 1.0, 10, delta) < 3 * exact
    assert exchanged(0.2, 1.0, 1000, delta) == math.inf  # nothing useful is known


def test_what_an_exchange_costs_is_the_ledgers_where_it_says_it():
    made = run(20, 0)
    assert replaced_epsilon([run(10, 0), made], "record") == 13.5366
    assert true_epsilon([made], "record") == "5.81 (record; 13.5 exchanged)"
    row = made.privacy[2] | {"noise_multiplier": 1.4, "sample_rate": 0.05, "steps": 200}
    assert (row["relation"], row["view"]) == ("add_remove", COALITION)
    local = run(20, 0, rows=[row | {"mechanism": "dp-sgd"}])  # of one hospital among many
    assert replaced_epsilon([local], "record") == math.inf
    row["mechanism"] = "dp-sgd, shared noise"
    sampled = run(20, 0, rows=[row])
    assert replaced_epsilon([sampled], "record") == exchanged(1.4, 0.05, 200, 1e-5)
    unknown = run(20, 0, rows=[row, row | {"view": "server", "steps": None}])
    assert replaced_epsilon([unknown], "record") == math.inf
    assert true_epsilon([unknown], "record") == "5.81 (record)"
    assert replaced_epsilon([sampled], "hospital") == math.inf
