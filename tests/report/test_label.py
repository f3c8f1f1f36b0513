"""Privacy labels: every run on record has one, its numbers are the ledger's, and lies are refused.

Noise of the headline is held against the arithmetic of shares, written here once more.
"""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest

from repro.accounting import gaussian_epsilon, gaussian_sigma
from repro.accounting.ledger import UNPROTECTED
from repro.accounting.tradeoff import TradeOff
from repro.errors import InputError
from repro.formatting import to_json
from repro.report.label import as_html, as_markdown, content, label_of
from repro.report.label.page import FAITHFUL
from repro.runs.arms import ARMS
from repro.runs.store import RunStore
from tests.report.page import Page

RECORDS = Path(__file__).resolve().parents[2] / "paper_results"
HEADLINE = "turned-newton-eps6-all-k10-s0-quick-a859b2e492"
SAMPLED = "scattering-shared-eps6-k10-s0-quick-"  # Poisson-sampled steps


@pytest.fixture(scope="module")
def runs():
    return [
        record
        for folder in (RECORDS, RECORDS / "overnight", RECORDS / "paper")
        for record in RunStore(folder, written=False).all()
    ]


@pytest.fixture(scope="module")
def headline():
    record = RunStore(RECORDS, written=False).load(HEADLINE)
    assert record is not None
    return record


def audit_of(arm):
    path = RECORDS / "audit" / f"{arm}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def changed(record, **fields):
    return dataclasses.replace(copy.deepcopy(record), **fields)


def test_every_run_on_record_has_a_label(runs, monkeypatch):
    """The first run of each arm and profile; all of an arm differ in seed and hospitals alone."""
    # The curve of sampled steps takes seconds; it has tests of its own.
    monkeypatch.setattr(content, "trade_off", lambda *_: TradeOff(1.0, 0.0, 0.0))
    seen = set()
    for record in runs:
        if (record.arm, record.profile) in seen:
            continue
        seen.add((record.arm, record.profile))
        label = label_of(record, audit_of(record.arm))
        text = as_markdown(label)
        assert as_html(label)
        assert json.loads(to_json(label))["basic"]["name"] == record.run_id
        private = ARMS[record.arm].private
        assert math.isfinite(label["privacy_loss"]["privacy_parameters"]["epsilon"]) == private
        assert (label["accountant"] is not None) == private
        if private and ARMS[record.arm].search is None:  # a search's is stated as the ledger has it
            assert label["accountant"]["epsilon_recomputed"] is not None, record.run_id
        assert ("NOT PRIVATE: ε = ∞" in text) == (not private)
    assert {arm for arm, _ in seen} >= {"fedavg", "clip-secagg", "dpsgd-eps6", "calibrated-secagg"}


def test_the_headline_says_what_its_shares_come_to(headline):
    """Noise for ε = 6 in m = 8 shares; 9 are unknown to a coalition of one, 10 to the server."""
    label = label_of(headline, audit_of(headline.arm))
    mu = 1 / gaussian_sigma(6.0, 1.0, 1, 1e-5)
    for view in label["views"]:
        left = {UNPROTECTED: 1, "coalition of 1 hospital with the server": 9}.get(view["view"], 10)
        seen = mu * math.sqrt(8 / left)
        assert view["epsilon"] == pytest.approx(gaussian_epsilon(1 / seen, 1, 1, 1e-5), rel=1e-6)
        swapped = gaussian_epsilon(1 / seen, 2, 1, 1e-5)
        assert view["epsilon_exchanged"] == pytest.approx(swapped, rel=1e-6)
        assert view["backup_only"] == (left == 1)
    gaussian = label["gaussian_dp"]
    assert gaussian["mu"] == pytest.approx(mu * math.sqrt(8 / 9), rel=1e-6)
    assert (gaussian["regret"], gaussian["least_rate"]) == (0, 0)
    stated = label["privacy_loss"]
    assert stated["view"].startswith("coalition")
    assert stated["privacy_parameters"]["epsilon"] == headline.privacy[3]["epsilon_total"]
    assert stated["number_of_privacy_units"] == 11_959
    assert math.isinf(stated["other_units"]["hospital"])
    assert not label["search"]["covered"]
    assert label["search"]["epsilon_charged"] > 12
    assert 0 < label["audit"]["epsilon_lower"] < 6
    assert label["implementation"]["budget_shares"] == {"mean_share": 0.05, "moments_share": 0.25}


def test_the_first_thing_said_is_whether_the_model_is_private(headline):
    public = label_of(headline)
    assert "public seed 0" in public["first"][0]
    assert as_markdown(public).splitlines()[2].startswith("**THIS MODEL ITSELF IS NOT PRIVATE")
    rows = [row | {"seed_source": "operating system entropy"} for row in headline.privacy]
    secret = changed(headline, seed=None, seed_source="operating system entropy", privacy=rows)
    label = label_of(secret)
    assert label["first"] == []
    said = {"source": "operating system entropy", "public": False}
    assert label["seed"] == said | {"seed": None, "repeatable": False}
    assert "whoever knows the seed" not in label["threat_model"]["excluded"]


def test_settings_from_drawn_images_are_inside_epsilon(runs):
    drawn = next(r for r in runs if r.arm == "drawn-newton-eps6")
    assert label_of(drawn)["search"] == {"covered": True, "trials": 0, "epsilon_charged": None}


@pytest.mark.parametrize("least", ["coalition", "server", "public"])
def test_no_view_without_a_bound_is_passed_over(headline, least):
    rows = [
        row | {"epsilon_total": math.inf} if row["view"].startswith(least) else row
        for row in headline.privacy
    ]
    label = label_of(changed(headline, privacy=rows))
    assert label["first"] == ["NOT PRIVATE: ε = ∞. Its ledger states no finite ε."]
    assert math.isinf(label["privacy_loss"]["privacy_parameters"]["epsilon"])


def test_a_refuted_arm_says_so_first(headline):
    audit = audit_of(headline.arm) | {"exceeded": True}
    assert label_of(headline, audit)["first"][-1].startswith("REFUTED")


def _scale(entry, key, factor):
    entry[key] *= factor


LIES = {
    "ε a little less": lambda record: _scale(
        next(row for row in record.privacy if row["view"] == "server"), "epsilon_total", 1 - 1e-4
    ),
    "a hospital was lost": lambda record: record.history[5]["secagg"].update(survivors=9),
    "a round more": lambda record: record.history.append(
        record.history[-1] | {"round": record.history[-1]["round"] + 1}
    ),
    "less noise planned": lambda record: _scale(
        record.history[4]["secagg"]["plan"], "noise_multiplier", 0.999
    ),
    "another target": lambda record: record.settings["record_privacy"].update(epsilon=5.9),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_contradicts_its_ledger_gets_no_label(headline, lie):
    record = copy.deepcopy(headline)
    LIES[lie](record)
    with pytest.raises(InputError, match=r"epsilon_total of run|noise_multiplier of run"):
        label_of(record)


@pytest.mark.parametrize(("field", "by"), [("epsilon_total", 0.99), ("steps", 2)])
def test_so_does_one_of_sampled_steps(runs, field, by):
    record = copy.deepcopy(next(r for r in runs if r.run_id.startswith(SAMPLED)))
    record.privacy[0][field] *= by
    with pytest.raises(InputError, match="epsilon_total of run"):
        label_of(record)


def test_the_curve_of_local_noise_is_of_one_hospital(runs):
    """Hospitals' sampled steps differ, so the one that is worst at δ need not be so elsewhere."""
    own = label_of(next(r for r in runs if r.run_id.startswith("scattering-dpsgd-eps1-k10-s0-")))
    shared = label_of(next(r for r in runs if r.run_id.startswith(SAMPLED)))
    assert own["gaussian_dp"]["of_hospital"] is not None
    assert "whose ε is largest" in as_markdown(own)
    assert shared["gaussian_dp"]["of_hospital"] is None
    assert own["gaussian_dp"]["regret"] < FAITHFUL < shared["gaussian_dp"]["regret"]
    assert "use the curve" in as_markdown(shared)


def test_an_arm_that_nobody_knows_is_refused(headline):
    with pytest.raises(InputError, match="arm"):
        label_of(changed(headline, arm="forgotten"))


def test_the_page_is_whole_and_loads_nothing(headline):
    text = as_html(label_of(headline))
    page = Page(text)
    assert page.sources == page.links == []
    assert "<svg" in text
