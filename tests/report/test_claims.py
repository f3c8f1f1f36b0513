"""The claims are complete and tagged, and each gets the verdict its runs allow."""

import dataclasses
import json
import math

import pytest

from repro.errors import InputError
from repro.report.answer import answer
from repro.report.claims import load_claims
from repro.report.expected import Band, check_expected, load_expected
from repro.report.sources import Sources
from repro.report.verdicts import (
    NOT_CHECKABLE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    judge,
    verdict_lines,
    verdict_table,
)
from repro.runs import RunStore
from tests.accounting.oracles import gaussian_log_delta
from tests.report import fake


def sources_with(tmp_path, levels, profile="paper", kind="rebuilt"):
    """Sources whose runs reach exactly ``levels``: arm -> accuracies by seed."""
    store = RunStore(tmp_path)
    for arm, accuracies in levels.items():
        for seed, accuracy in enumerate(accuracies):
            run = fake.record(arm, 10, seed, profile, kind)
            store.save(
                dataclasses.replace(run, final_accuracy=accuracy, best_accuracy=accuracy + 0.001)
            )
    return Sources.of(tmp_path)


def verdict_of(sources, claim, reading=None):
    found = [v for v in judge(sources) if v.claim == claim and reading in (None, v.reading)]
    assert len(found) == 1
    return found[0]


def test_the_papers_numbers_are_all_there_and_tagged():
    claims = load_claims()
    table = {(c.configuration, c.hospitals): c.value for c in claims.of_kind("accuracy", "quoted")}
    assert table == {
        ("DP− / SecAgg−", 10): 98.76,
        ("DP− / SecAgg−", 20): 97.77,
        ("DP− / SecAgg+", 10): 98.11,
        ("DP− / SecAgg+", 20): 97.01,
        ("DP+ / SecAgg+", 10): 97.78,
        ("DP+ / SecAgg+", 20): 96.89,
        ("PriMIA (quoted)", 10): 85.00,
        ("FedMIC (quoted)", 20): 96.33,
    }
    assert all(claim.source in claims.sources for claim in claims.claims)
    assert all(claim.tolerance == 0.3 for claim in claims.of_kind("accuracy", "quoted"))
    assert claims.accuracy("DP+ / SecAgg−", 10) is None


def test_differences_follow_from_the_table():
    claims = load_claims()
    for hospitals in (10, 20):
        without = claims.accuracy("DP− / SecAgg−", hospitals).value
        secure = claims.accuracy("DP− / SecAgg+", hospitals).value
        difference = claims.get(f"secagg-cost-{hospitals}").value
        assert difference == pytest.approx(secure - without, abs=1e-9)


@pytest.mark.parametrize(
    "entry",
    [
        'source = "hearsay"\nkind = "accuracy"\nconfiguration = "x"\nvalue = 1\ntolerance = 0',
        'source = "abs"\nkind = "rumour"\nconfiguration = "x"\nvalue = 1\ntolerance = 0',
        'source = "abs"\nkind = "accuracy"\nvalue = 1\ntolerance = 0',
    ],
)
def test_an_untagged_or_incomplete_claim_is_refused(tmp_path, entry):
    path = tmp_path / "claims.toml"
    path.write_text(f'paper = "p"\n[sources]\nabs = "a"\n[[claim]]\nid = "a"\n{entry}\n')
    with pytest.raises(InputError):
        load_claims(path)


def test_real_data_in_the_paper_profile_decides(tmp_path):
    sources = sources_with(
        tmp_path,
        {
            "fedavg": [0.965, 0.966, 0.967],
            "clip-secagg": [0.9775, 0.9778, 0.9781],
            "documented-secagg": [0.195, 0.194, 0.196],
        },
    )
    assert verdict_of(sources, "plain-10").verdict == NOT_REPRODUCED
    assert "2.16 points below" in verdict_of(sources, "plain-10").reason
    assert verdict_of(sources, "dp-secagg-10", "as most likely run").verdict == REPRODUCED
    assert verdict_of(sources, "dp-secagg-10", "as documented").verdict == NOT_REPRODUCED
    assert verdict_of(sources, "plain-20").verdict == NOT_CHECKABLE
    assert verdict_of(sources, "plain-20").measured == "not run"


EQUAL = [0.9876, 0.9875, 0.9877]


@pytest.mark.parametrize(
    ("accuracies", "profile", "kind", "verdict", "why"),
    [
        ([0.9835, 0.9836, 0.9837], "paper", "rebuilt", REPRODUCED, "best round"),  # by it alone
        ([0.90, 0.97, 0.99], "paper", "rebuilt", NOT_CHECKABLE, "spread too far"),
        (EQUAL, "quick", "official", NOT_CHECKABLE, "not the paper's setting"),
        (EQUAL, "paper", "synthetic", NOT_CHECKABLE, "synthetic stand-in"),
        # One run: by a tolerance that was set beforehand.
        ([0.9727], "paper", "rebuilt", REPRODUCED, "(±1.5)"),
        ([0.9725], "paper", "rebuilt", NOT_REPRODUCED, "(±1.5)"),
        ([0.999], "paper", "rebuilt", REPRODUCED, "(±1.5)"),
    ],
)
def test_what_decides_and_what_does_not(tmp_path, accuracies, profile, kind, verdict, why):
    found = verdict_of(sources_with(tmp_path, {"fedavg": accuracies}, profile, kind), "plain-10")
    assert (found.verdict, why in found.reason) == (verdict, True)
    assert found.measured.startswith(f"{100 * sum(accuracies) / len(accuracies):.2f}")
    if len(accuracies) == 1:
        assert found.reason.startswith("one run, ")
        assert found.interval == "±1.5, one run"


def test_one_seed_decides_no_difference(tmp_path):
    levels = {"fedavg": [0.9876], "fedavg-secagg": [0.9811]}
    assert verdict_of(sources_with(tmp_path, levels), "secagg-cost-10").verdict == NOT_CHECKABLE


def test_runs_in_the_papers_setting_judge_beside_those_of_another_profile(tmp_path):
    """The first screen says so, with what the run trained in; other claims stay undecided."""
    levels = {"fedavg": [0.96, 0.95, 0.96], "clip-secagg": [0.9, 0.9, 0.9]}
    sources_with(tmp_path, levels, "quick")
    run = fake.record("fedavg", 10, 0, "paper", "rebuilt")
    mixed = dataclasses.replace(
        run,
        final_accuracy=0.961,
        settings=run.settings | {"precision": "bf16-mixed"},
        history=[entry | {"longest_update": 7.5} for entry in run.history],
    )
    RunStore(tmp_path / "paper").save(mixed)
    sources = Sources.of(tmp_path)
    assert sources.evidence.profile == "quick"
    assert verdict_of(sources, "plain-10").verdict == NOT_REPRODUCED
    assert verdict_of(sources, "plain-10").measured.startswith("96.10 %")
    assert verdict_of(sources, "dp-secagg-10", "as most likely run").verdict == NOT_CHECKABLE
    given = answer(sources, judge(sources))
    assert given.scope.startswith("In the paper's own setting 1 run decides")
    assert given.short[1] == (
        "In the paper's own setting with 10 hospitals, one run each, training without any "
        "protection reaches 96.10 % (the paper: 98.76 %): not reproduced."
    )
    row = next(row for row in given.paper.rows if row["measured"] == "96.10")
    assert row["verdict"] == NOT_REPRODUCED
    assert row["clipped"] == "longest 7.5"
    assert "Trained in bf16-mixed" in given.paper.caption
    assert "over the paper's bound, 7, in 50 of 50 rounds" in given.paper.caption


def test_of_two_precisions_float32_judges(tmp_path):
    for precision, accuracy in (("float32", 0.95), ("bf16-mixed", 0.96)):
        run = fake.record("fedavg", 10, 0, "paper", "rebuilt")
        settings = run.settings | {"precision": precision}
        kept = dataclasses.replace(
            run, run_id=run.run_id + precision, settings=settings, final_accuracy=accuracy
        )
        RunStore(tmp_path).save(kept)
    (found,) = Sources.of(tmp_path).evidence.records
    assert found.final_accuracy == 0.95


def test_the_cost_of_secure_aggregation_is_paired_by_seed(tmp_path):
    """Seeds differ by points, pairs by nothing: only pairing shows that the cost is zero."""
    accuracies = [0.95, 0.96, 0.97]
    sources = sources_with(tmp_path, {"fedavg": accuracies, "fedavg-secagg": accuracies})
    found = verdict_of(sources, "secagg-cost-10")
    assert found.measured == "+0.00 ± 0.00 points"
    assert found.verdict == NOT_REPRODUCED


def test_quoted_numbers_are_not_comparable_and_say_why(tmp_path):
    found = [v for v in judge(Sources.of(tmp_path)) if v.verdict == NOT_COMPARABLE]
    assert {v.claim for v in found} == {"primia-10", "fedmic-20"}
    assert all("[infer]" in v.reason for v in found)


def test_without_noise_epsilon_is_infinite_whatever_is_installed(tmp_path):
    found = [v for v in judge(Sources.of(tmp_path)) if v.claim == "epsilon"]
    assert found[0].verdict == NOT_REPRODUCED
    assert "∞" in found[0].measured
    assert len(found) == 6


def test_epsilon_of_the_documented_noise(tmp_path):
    """To a whole number, against the exact Gaussian trade-off (Balle & Wang 2018) in 60 digits."""
    found = {v.reading: v for v in judge(Sources.of(tmp_path)) if v.claim == "epsilon"}
    documented = found["as documented: add/remove one hospital's update"]
    mu, said = (
        7.0 / 0.698873 * math.sqrt(50),
        float(documented.measured.split()[0].replace(",", "")),
    )
    assert documented.measured == f"{said:,.0f} in total"
    low, high = (gaussian_log_delta(mu, said + half) for half in (0.5, -0.5))
    assert low < math.log(1.9e-4) < high
    assert documented.verdict == NOT_REPRODUCED


def test_sizes_and_parameters_need_no_runs(drawn):
    found = {v.claim: v.verdict for v in judge(Sources.of(drawn))}
    assert found["sizes-10"] == found["sizes-20"] == found["parameters"] == REPRODUCED


def test_counting_parameters_agrees_with_the_model(tmp_path):
    from repro.models import DPResNet
    from repro.report.items.figure_dpresnet import parameters

    assert parameters() == sum(p.numel() for p in DPResNet().parameters())


def test_verdicts_print_one_line_each(sources):
    verdicts = judge(sources)
    lines = verdict_lines(verdicts)
    assert len(lines) == len(verdicts) == len(verdict_table(sources).rows)
    assert not any("\n" in line for line in lines)


def test_a_mean_outside_its_band_is_reported(tmp_path):
    evidence = sources_with(tmp_path, {"fedavg": [0.95, 0.96, 0.97]}).evidence
    band = Band("paper", "rebuilt", "fedavg", 10, 95.5, 96.5)
    assert check_expected(evidence, [band]) == []
    found = check_expected(evidence, [dataclasses.replace(band, low=96.1)])
    assert math.isclose(found[0].measured, 96.0)
    assert "left its expected band" in str(found[0])
    other = dataclasses.replace(band, low=99.0, data="official")
    missing = dataclasses.replace(band, low=99.0, arm="single")
    assert check_expected(evidence, [other, missing]) == []


def test_expected_bands_on_file_are_well_formed(tmp_path):
    load_expected()
    path = tmp_path / "expected.toml"
    path.write_text('[[band]]\nprofile = "quick"\n')
    with pytest.raises(InputError, match="band"):
        load_expected(path)


def foreign(tmp_path, profile="paper"):
    """Runs of another data set that would decide every claim if they were of BloodMNIST."""
    store = RunStore(tmp_path)
    for arm in ("fedavg", "fedavg-secagg"):
        for seed in (0, 1, 2):
            run = fake.record(arm, 10, seed, profile, "official")
            data = run.dataset | {"name": "pathmnist", "fingerprint": "fake-pathmnist"}
            store.save(dataclasses.replace(run, dataset=data, final_accuracy=0.9876))
    return store


def test_another_data_set_gets_no_verdict_on_its_images(tmp_path):
    foreign(tmp_path)
    judged = {
        v.claim: v for v in judge(Sources.of(tmp_path)) if load_claims().get(v.claim).comparable
    }
    for claim in load_claims().of_kind("accuracy", "difference", "sizes"):
        if claim.comparable:
            assert judged[claim.id].verdict == NOT_COMPARABLE
            assert "pathmnist" in judged[claim.id].reason
            assert judged[claim.id].measured == "–"
    # What follows from settings alone holds whatever the images are.
    for claim in load_claims().of_kind("epsilon", "parameters"):
        assert judged[claim.id].verdict in (REPRODUCED, NOT_REPRODUCED)


def test_a_band_of_bloodmnist_does_not_bind_another_data_set(tmp_path):
    foreign(tmp_path)
    evidence = Sources.of(tmp_path).evidence
    assert evidence.foreign == "pathmnist"
    band = Band("paper", "official", "fedavg", 10, 0.0, 1.0)
    assert check_expected(evidence, [band]) == []


def test_of_two_data_sets_the_claims_own_is_drawn(tmp_path):
    store = foreign(tmp_path)
    for seed in (0, 1):
        store.save(fake.record("fedavg", 10, seed, "smoke", "synthetic"))
    evidence = Sources.of(tmp_path).evidence
    assert evidence.foreign is None
    assert evidence.profile == "smoke"


def test_a_partition_of_another_data_set_decides_no_sizes(tmp_path):
    fake.store(tmp_path, ["fedavg"], kind="rebuilt")
    fake.side_files(tmp_path)
    path = tmp_path / "partition" / "k10.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"dataset": {"name": "pathmnist"}}))
    found = [v for v in judge(Sources.of(tmp_path)) if v.claim.startswith("sizes")]
    assert {(v.hospitals, v.verdict) for v in found} >= {(10, NOT_COMPARABLE), (20, REPRODUCED)}
