"""Profiles: what a campaign of one takes on, and the table that prints their differences."""

from dataclasses import fields

import pytest

from repro.cli.reproduce import _arms
from repro.errors import InputError
from repro.report.shown import shown
from repro.runs.arms import ARMS
from repro.runs.profiles import PROFILES, Profile, get_profile, profile_table


def test_a_campaign_takes_the_profiles_arms_or_all_or_those_asked_for(capsys):
    overnight = get_profile("overnight")
    assert [arm.name for arm in _arms(None, overnight)] == list(overnight.arms)
    assert {arm.name for arm, _ in shown("overnight")} == set(
        overnight.arms
    )  # Table 7 is that campaign
    assert [arm.name for arm in _arms("central,single", overnight)] == ["central", "single"]
    can_run = [arm for arm in ARMS.values() if not arm.missing]
    assert _arms(None, get_profile("quick")) == can_run
    with pytest.raises(InputError, match="arm: got 'nothing'"):
        _arms("nothing", overnight)
    assert all(name in ARMS for profile in PROFILES.values() for name in profile.arms)


def test_the_table_has_every_field_of_every_profile():
    rows = {row["field"]: row for row in profile_table()}
    assert {one.name for one in fields(Profile)} - {"name", "arms", "first"} <= set(rows)
    assert rows["arms of a whole campaign"]["quick"] == "all"
    assert rows["width"] == {"field": "width", "smoke": 4, "quick": 4, "overnight": 8, "paper": 64}
    assert rows["dpsgd_expected_batch, of DPResNet with shared noise"]["overnight"] == 1024
