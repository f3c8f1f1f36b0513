"""Table 2 and Figure 8: the numbers of the paper's setting, recomputed to the printed digits."""

import math

import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.gaussian import gaussian_epsilon
from repro.report.items import figure_epsilon, table2_privacy

PRINTED = {  # (reading, relation): ε of one round, of fifty [calc]
    ("nominal: pretending sensitivity 1", "add or remove"): (5.61, 86.3),
    ("nominal, budgets added up (basic composition)", "add or remove"): (6, 300),
    ("one hospital's update, seen alone", "add or remove"): (84.9, 2759),
    ("one hospital's update, seen alone", "replace"): (270.9, 10535),
    ("sum of 10 after secure aggregation", "add or remove"): (15.6, 329),
    ("sum of 10 after secure aggregation", "replace"): (41.8, 1161),
    ("sum of 20 after secure aggregation", "add or remove"): (9.9, 181),
    ("sum of 20 after secure aggregation", "replace"): (25.2, 613),
}


def printed(value, expected):
    """``value`` rounds to ``expected`` at the digits it is printed with."""
    digits = len(f"{expected}".partition(".")[2])
    return round(value, digits) == expected


def test_every_reading_of_the_setting():
    """Each printed ε is reproduced to its last digit."""
    rows = {(row["reading"], row["relation"]): row for row in table2_privacy.rows()}
    for key, (once, total) in PRINTED.items():
        assert printed(rows[key]["epsilon_round"], once), key
        assert printed(rows[key]["epsilon_total"], total), key
    assert rows["nominal, budgets added up (basic composition)", "add or remove"][
        "delta"
    ] == pytest.approx(9.5e-3)


def test_the_table_ends_with_what_would_hold():
    """The first row promises nothing; the last two keep ε = 6 with σ = 32.8 and 65.5."""
    rows = table2_privacy.rows()
    assert rows[0]["epsilon_total"] == math.inf
    for row, sigma in zip(rows[-2:], (32.8, 65.5), strict=True):
        assert printed(row["sigma"], sigma)
        assert 6 - 1e-9 < row["epsilon_total"] <= 6
    keys = {tuple(row) for row in rows}
    assert len(keys) == 1


def test_weighting_by_size_costs_the_largest_hospital():
    """FedAvg's weights leave the largest hospital less of the others' noise than equal ones."""
    rows = {(row["reading"], row["relation"]): row for row in table2_privacy.rows()}
    weighted = rows["the same of 10, weighted by size: largest hospital", "replace"]
    equal = rows["sum of 10 after secure aggregation", "replace"]
    assert weighted["epsilon_total"] > equal["epsilon_total"]


def test_noise_tables_hold():
    """Every σ of the first two tables meets its target when put back into the accountant."""
    delta, rounds = table2_privacy.DELTA, table2_privacy.ROUNDS
    for row in table2_privacy.noise_for_updates((1.0, 6.0)):
        for target in (1.0, 6.0):
            sigma = row[f"ε = {target:g}"]
            got = gaussian_epsilon(sigma, row["sensitivity"], rounds, delta)
            assert target * (1 - 1e-9) < got <= target
    for row in table2_privacy.noise_for_sums((6.0,)):
        sigma = row["ε = 6"] * math.sqrt(row["hospitals"]) * (1 + 1e-12)
        assert gaussian_epsilon(sigma, row["sensitivity"], rounds, delta) <= 6


def test_noise_for_records_has_the_papers_steps():
    """150 local epochs of the mean hospital at batch 32 are 4,481 steps; Rényi DP alone would ask
    for 1.77, and dp_accounting's losses show that the table's less is enough and not too much."""
    row = table2_privacy.noise_for_records((6.0,))[0]
    assert row["steps"] == 4481
    noise, rate, delta = row["ε = 6"], row["batch"] / row["images"], table2_privacy.DELTA
    assert calibrate_noise_multiplier(6, delta, rate, 4481, accountant="rdp")[0] == (
        pytest.approx(1.77, rel=0.01)
    )
    once = from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=1e-3)
    assert once.self_compose(4481).get_epsilon_for_delta(delta) == pytest.approx(6, rel=0.01)


def test_figure_agrees_with_the_table_and_is_monotone():
    """The curves end at the table's totals; ε rises with rounds, noise falls with ε."""
    panels = figure_epsilon.series()
    lines = {line["label"]: line for line in panels["epsilon_against_rounds"]["lines"]}
    assert printed(lines["add or remove an update"]["y"][-1], 2759)
    for line in lines.values():
        assert len(line["x"]) == len(line["y"]) == 50
        assert all(a < b for a, b in zip(line["y"], line["y"][1:], strict=False))
    for name in ("noise_against_epsilon", "multiplier_against_epsilon"):
        for line in panels[name]["lines"]:
            assert all(a > b for a, b in zip(line["y"], line["y"][1:], strict=False))


def test_the_words_beneath_name_both_units():
    """A hospital and a patient are each told what they could conclude."""
    words = " ".join(table2_privacy.notes())
    assert "A hospital could conclude" in words
    assert "A patient could conclude" in words
