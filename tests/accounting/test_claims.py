"""Claims checked: the paper's numbers to the printed digit, and the arithmetic behind the words."""

import math

import pytest

from repro.accounting import PLDAccountant, PoissonSampledGaussianEvent, gaussian_epsilon
from repro.accounting.checks import ADD_REMOVE, REPLACE_ONE
from repro.accounting.claim import PrivacyClaim
from repro.accounting.claims import AFTER_SUM, SERVER, check, shown
from repro.accounting.claims_cases import CASES
from repro.errors import InputError


def changed(claim, **more):
    return PrivacyClaim(**{**vars(claim), **more})


def by_view(verdict, unit="hospital"):
    return {(f.view, f.relation): f for f in verdict.findings if f.unit == unit}


def test_the_paper():
    """Section 4 of the paper's audit, every number to the digit it is printed with [calc]."""
    verdict = check(CASES["paper"][1])
    assert round(verdict.claim.noise, 6) == 0.698873
    assert (round(verdict.nominal_round, 2), round(verdict.nominal_total, 1)) == (5.61, 86.3)
    assert verdict.basic == (300, pytest.approx(9.5e-3))
    found = by_view(verdict)
    for key, once, total in [
        ((SERVER, ADD_REMOVE), 84.9, 2759),
        ((SERVER, REPLACE_ONE), 270.9, 10535),
        ((AFTER_SUM, ADD_REMOVE), 15.6, 329),
        ((AFTER_SUM, REPLACE_ONE), 41.8, 1161),
    ]:
        assert round(found[key].epsilon_round, 1) == once
        assert round(found[key].epsilon_total) == total
    assert round(found[SERVER, ADD_REMOVE].sigma_needed, 1) == 32.8
    assert round(found[SERVER, REPLACE_ONE].sigma_needed, 1) == 65.5
    assert verdict.holds is False
    for number in ("2,759", "84.9", "86.3", "329", "32.8", "0.699", "does not hold"):
        assert number in verdict.words
    twenty = check(changed(CASES["paper"][1], hospitals=20))
    rows = by_view(twenty)
    assert round(rows[AFTER_SUM, ADD_REMOVE].epsilon_total) == 181
    assert round(rows[AFTER_SUM, REPLACE_ONE].epsilon_total) == 613
    assert round(rows[AFTER_SUM, ADD_REMOVE].epsilon_round, 1) == 9.9


def test_flowers_local_dp_mod():
    """σ follows the sensitivity it is passed, not the clip norm; ε follows the clip norm."""
    base = CASES["flower-localdpmod"][1]
    wider = changed(base, clip_norm=2 * base.clip_norm)
    assert wider.noise == base.noise == pytest.approx(math.sqrt(2 * math.log(1.25e5)))
    first, second = (check(claim).findings[0] for claim in (base, wider))
    assert second.epsilon_total > 2.5 * first.epsilon_total
    assert second.epsilon_total == gaussian_epsilon(base.noise, 20.0, 10, 1e-5)


def test_noise_that_is_discarded():
    """As in Flower up to 1.13.1: ∞ in every view, and the words say why."""
    for case in ("paper", "flower-localdpmod"):
        verdict = check(changed(CASES[case][1], noise_added=False))
        assert {f.epsilon_total for f in verdict.findings} == {math.inf}
        assert verdict.holds is False
        assert verdict.words.startswith("No noise is added")


def test_flip():
    """σ = 4.8e-5 on updates clipped at 1: ε = 2.1e8."""
    verdict = check(CASES["flip"][1])
    assert f"{verdict.claim.noise:.1e}" == "4.8e-05"
    assert f"{verdict.findings[0].epsilon_total:.1e}" == "2.1e+08"
    assert verdict.holds is None
    assert "2.13e+08" in verdict.words


def test_record_level():
    """DP-SGD: the accountant's own ε, no statement for a hospital, and the noise that would do."""
    given = {"noise_multiplier": 1.1, "steps": 100, "rounds": 10, "epsilon": 1.0, "delta": 1e-5}
    verdict = record_level(clip_norm=2.0, **given)
    claim = verdict.claim
    (finding,) = verdict.findings
    event = PoissonSampledGaussianEvent(1.1, 0.01)
    assert finding.epsilon_total == PLDAccountant().compose(event, 1000).epsilon(1e-5)[0]
    assert finding.epsilon_round == PLDAccountant().compose(event, 100).epsilon(1e-5)[0]
    assert verdict.holds is False
    enough = check(changed(claim, noise_multiplier=None, sigma=finding.sigma_needed))
    assert enough.holds is True
    assert 0.995 < enough.findings[0].epsilon_total <= 1
    assert "A whole hospital is not protected" in verdict.words


def record_level(**more):
    given = {"clip_norm": 1.0, "noise_multiplier": 1.0, "level": "record", "delta": 1e-6}
    return check(PrivacyClaim(**{**given, "sample_rate": 0.01, "steps": 1000, **more}))


def test_three_answers():
    """Proved, refuted by a bound from below, and neither: between the two no claim is false."""
    found = record_level().findings[0]
    lower, upper = found.epsilon_lower, found.epsilon_total
    assert 2.1 < lower < upper < 2.13  # dp-accounting: 2.1246
    assert record_level(epsilon=upper).holds is True
    assert record_level(epsilon=lower * 0.999).holds is False
    between = record_level(epsilon=(lower + upper) / 2)
    assert between.holds is None
    assert "is not proved here for adding or removing one record" in between.words
    assert "does not hold" not in between.words
    assert between.as_dict()["holds"] is None


def test_small_rates_and_many_steps():
    """σ = 1, q = 1e-3, 10⁴ steps: dp-accounting proves 0.555, and 10 % above that holds."""
    settings = {"sample_rate": 1e-3, "steps": 10_000}
    assert record_level(**settings, epsilon=0.61).holds is True
    assert record_level(**settings, epsilon=0.5).holds is False


def test_fixed_batches_and_shuffled_passes():
    """What is proved and what cannot be are far apart, so there is much that is neither."""
    fixed = record_level(sampling="fixed", epsilon=3.0)
    (found,) = fixed.findings
    assert found.relation == REPLACE_ONE
    assert found.method == "rdp"
    assert found.epsilon_lower == record_level().findings[0].epsilon_lower
    assert fixed.holds is None
    assert "between 2.12 and" in fixed.words
    assert "replacing one record" in fixed.words
    shuffled = record_level(sampling="shuffled", epsilon=1.0)
    (found,) = shuffled.findings
    assert found.epsilon_total == gaussian_epsilon(1.0, 1.0, 10, 1e-6)  # ten passes
    assert 1.0 < found.epsilon_lower < found.epsilon_total
    assert shuffled.holds is False
    assert record_level(sampling="shuffled", epsilon=found.epsilon_total).holds is True
    middle = record_level(sampling="shuffled", epsilon=0.9 * found.epsilon_total)
    assert middle.holds is None
    assert middle.findings[0].sigma_needed > 1.0


def test_the_noise_needed_makes_the_claim_true():
    """Put back, the σ that is asked for holds, and 1 % less does not."""
    claim = CASES["paper"][1]
    needed = check(claim).findings[0].sigma_needed
    assert check(changed(claim, sigma=needed * (1 + 1e-12))).holds is True
    assert check(changed(claim, sigma=needed * 0.99)).holds is False


def test_dishonest_clients_and_sampling_leave_less_noise():
    """Twenty hospitals, half of them in a round, four fifths of those honest: eight are counted."""
    claim = changed(CASES["paper"][1], hospitals=20, hospital_rate=0.5, honest=0.8)
    assert claim.in_sum == 8
    found = by_view(check(claim))[AFTER_SUM, ADD_REMOVE]
    exact = gaussian_epsilon(claim.noise * math.sqrt(8), 7, 50, 1.9e-4)
    assert found.epsilon_total == pytest.approx(exact, rel=1e-12)
    assert changed(claim, honest=1e-3).in_sum == 1  # the one protected is honest


def test_relations_that_differ_are_both_said():
    """σ between what adding one update needs and what replacing one does: twice as much."""
    claim = CASES["paper"][1]
    verdict = check(changed(claim, sigma=40.0))
    assert [f.holds for f in verdict.findings[:2]] == [True, False]
    exact = gaussian_epsilon(40.0, 14.0, 50, 1.9e-4)
    assert f"It does not hold for replacing one: ε is then {exact:.3g} in total." in verdict.words
    assert "replacing one" not in check(claim).words  # both fail: nothing to tell apart
    full_batch = record_level(sample_rate=1.0, steps=1, epsilon=6.0)
    assert [f.holds for f in full_batch.findings] == [True, False]
    assert full_batch.findings[1].epsilon_total == gaussian_epsilon(1.0, 2.0, 1, 1e-6)
    assert "It does not hold for replacing one" in full_batch.words


def test_a_claim_that_holds():
    verdict = check(PrivacyClaim(clip_norm=1.0, sigma=10.0, epsilon=1.0, delta=1e-5))
    assert verdict.holds is True
    assert "holds" in verdict.words
    assert "does not" not in verdict.words


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clip_norm": 0}, "clip_norm"),
        ({"delta": 1.0}, "delta"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": None}, "sigma"),
        ({"sigma": 1.0, "noise_multiplier": 1.0}, "noise_multiplier"),
        ({"rounds": 0}, "rounds"),
        ({"honest": 0}, "honest"),
        ({"hospital_rate": 1.5}, "hospital_rate"),
        ({"level": "patient"}, "level"),
        ({"sampling": "cyclic"}, "sampling"),
        ({"sample_rate": 2}, "sample_rate"),
        ({"steps": 100}, "steps"),
        ({"sample_rate": 0.01}, "sample_rate"),
        ({"sampling": "shuffled"}, "sampling"),
        ({"level": "record", "hospitals": 10}, "hospitals"),
        ({"level": "record", "secure_aggregation": True}, "secure_aggregation"),
    ],
)
def test_impossible_claims_are_refused(change, field):
    with pytest.raises(InputError) as refusal:
        PrivacyClaim(**{"clip_norm": 1.0, "epsilon": 1.0, "delta": 1e-5, **change})
    assert refusal.value.field == field


def test_numbers_for_readers():
    found = [shown(x) for x in (5.6098, 2758.8, 2.13e8, math.inf, 0.01234)]
    assert " ".join(found) == "5.61 2,759 2.13e+08 ∞ 0.0123"
