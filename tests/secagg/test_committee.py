"""Committee failure against enumeration of every placement, and against simulated rounds."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from repro.cli import main
from repro.errors import InputError
from repro.secagg import Party, committee_risk
from repro.secagg.committee import cut_ring, exposed_secrets
from tests.secagg.parties import make_round


def ring_neighbours(hospitals, reach):
    return {
        at: {(at + step) % hospitals for step in range(-reach, reach + 1) if step}
        for at in range(hospitals)
    }


def pieces_of(near, left):
    """Number of connected pieces of the graph restricted to ``left``, by flooding."""
    unseen, pieces = set(left), 0
    while unseen:
        todo, pieces = [unseen.pop()], pieces + 1
        while todo:
            found = near[todo.pop()] & unseen
            unseen -= found
            todo += found
    return pieces


@pytest.mark.parametrize(("hospitals", "reach"), [(6, 1), (9, 1), (10, 2), (12, 2), (13, 3)])
def test_a_cut_ring_is_counted_exactly(hospitals, reach):
    """All C(K, m) sets of removed hospitals, for every m."""
    near = ring_neighbours(hospitals, reach)
    for removed in range(hospitals + 1):
        cut = total = 0
        for gone in itertools.combinations(range(hospitals), removed):
            total += 1
            cut += pieces_of(near, set(range(hospitals)) - set(gone)) > 1
        assert math.isclose(cut_ring(hospitals, reach, removed), cut / total, abs_tol=1e-12)


def test_its_first_term_bounds_it_where_it_is_not_exact(monkeypatch):
    exact = [cut_ring(60, 2, m) for m in range(61)]
    monkeypatch.setattr("repro.secagg.committee.EXACT", 10)
    assert all(cut_ring(60, 2, m) >= value for m, value in enumerate(exact))
    assert cut_ring(60, 2, 6) == pytest.approx(exact[6], rel=0.05)


@pytest.mark.parametrize(
    ("hospitals", "neighbours", "threshold"), [(9, 4, 3), (9, 4, 4), (11, 6, 4)]
)
def test_exposed_secrets_are_bounded_and_the_mean_is_exact(hospitals, neighbours, threshold):
    """All placements of c colluders: Boole's sum is the mean number of exposed hospitals."""
    near = ring_neighbours(hospitals, neighbours // 2)
    for colluders in range(hospitals - 1):
        exposed = [
            sum(len(near[one] & set(where)) >= threshold for one in set(near) - set(where))
            for where in itertools.combinations(range(hospitals), colluders)
        ]
        bound = exposed_secrets(hospitals, neighbours, threshold, colluders)
        assert bound == pytest.approx(min(1.0, float(np.mean(exposed))), abs=1e-12)
        assert bound >= np.mean([count > 0 for count in exposed]) - 1e-12


def test_confirmers_are_hypergeometric():
    for colluders in (5, 20, 60):
        risk = committee_risk(500, 10, 8, colluders)
        assert (risk.confirmer_count, risk.quorum) == (64, 36)
        expected = stats.hypergeom.sf(2 * 36 - 64 - 1, 500, colluders, 64)
        assert risk.confirmers == pytest.approx(expected, rel=1e-9)
    small = [committee_risk(10, 4, 4, colluders).confirmers for colluders in range(10)]
    assert small == [0.0] * 6 + [1.0] * 4  # quorum 8 of 10: six may sign twice


def test_complete_graphs_have_no_chance_in_them():
    """Everybody neighbours everybody: safe up to t − 1 colluders, not beyond."""
    for colluders in range(8):
        risk = committee_risk(10, 9, 7, colluders, 0.2)
        assert risk.secrets == float(colluders >= 7)
        assert risk.pieces == 0.0


def test_pieces_average_over_the_lost():
    """K = 9, two colluders, every subset of the seven others with its probability."""
    near, rate = ring_neighbours(9, 1), 0.2
    expected = 0.0
    for where in itertools.combinations(range(9), 2):
        others = set(range(9)) - set(where)
        for size in range(8):
            chance = rate**size * (1 - rate) ** (7 - size)
            expected += chance * sum(
                pieces_of(near, others - set(gone)) > 1
                for gone in itertools.combinations(sorted(others), size)
            )
    expected /= math.comb(9, 2)
    assert committee_risk(9, 2, 2, 2, rate).pieces == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(("rate", "threshold"), [(0.03, 4), (0.1, 3)])
def test_lost_rounds_are_bounded(rate, threshold):
    """2,000 draws of the lost, judged by the protocol's own test on real graphs: the frequency
    is below the bound, but for five of its standard deviations (false alarm below 1e-6)."""
    party = Party(range(30))
    _, first = make_round(30, threshold, 4, party=party)
    random, draws = np.random.default_rng(2), 2000
    rounds = [replace(first, number=number) for number in range(1, 21)]
    failed = 0
    for draw in range(draws):
        present = np.flatnonzero(random.random(30) >= rate).tolist()
        failed += bool(rounds[draw % 20].holders_missing(range(30), present))
    bound = committee_risk(30, 4, threshold, 0, rate).lost
    assert failed / draws <= bound + 5 * math.sqrt(bound * (1 - bound) / draws)
    assert failed > 0


def test_real_graphs_expose_as_often_as_said():
    """4,000 rounds' own graphs of 20 hospitals with 6 colluders: the mean number of exposed
    hospitals lies within five standard errors of the formula (false alarm below 1e-6)."""
    party = Party(range(20))
    _, first = make_round(20, 3, 4, party=party)
    counts = []
    for number in range(1, 4001):
        near = replace(first, number=number).graph
        counts.append(sum(len(near[one] & set(range(6))) >= 3 for one in range(6, 20)))
    error = np.std(counts) / math.sqrt(len(counts))
    mean = 14 * float(stats.hypergeom.sf(2, 19, 6, 4))
    assert abs(np.mean(counts) - mean) < 5 * error


def test_rounds_add_up():
    one, many = (committee_risk(100, 6, 5, 8, 0.02, rounds=n) for n in (1, 50))
    assert many.privacy == pytest.approx(min(1.0, 50 * one.privacy))
    assert committee_risk(10, 4, 4, 0).privacy == 0.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ((1, 1, 1, 0), "hospitals"),
        ((10, 5, 4, 0), "neighbours"),
        ((10, 4, 2, 0), "threshold"),
        ((10, 4, 4, 10), "colluders"),
        ((10, 4, 4, -1), "colluders"),
        ((10, 4, 4, 1, 1.0), "drop_rate"),
        ((10, 4, 4, 1, float("nan")), "drop_rate"),
    ],
)
def test_bad_settings(settings, field):
    with pytest.raises(InputError) as caught:
        committee_risk(*settings)
    assert caught.value.field == field
    for more in ({"quorum": 5}, {"rounds": 0}):
        with pytest.raises(InputError):
            committee_risk(10, 4, 4, 1, **more)


def test_as_a_command(capsys):
    words = "secagg committee --hospitals 100 --neighbours 20 --threshold 14 --colluders 10"
    assert main([*words.split(), "--drop-rate", "0.05", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    risk = committee_risk(100, 20, 14, 10, 0.05)
    assert data["privacy"] == risk.privacy
    assert set(data) >= {"secrets", "confirmers", "pieces", "privacy", "lost", "quorum"}
    assert main(words.split()) == 0
    assert f"{risk.confirmers:.3g}" in capsys.readouterr().out
    assert main([*words.split(), "--threshold", "3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
