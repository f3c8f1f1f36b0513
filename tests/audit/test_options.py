"""Audits of adaptive clipping and of banded noise: honest ones are not refuted, broken ones are."""

import json

import pytest

from repro.audit import options
from repro.audit.options import OPTIONS, OptionAudit, audit_option
from repro.cli import main

# An honest option is refuted with probability 1e-3 at most; and what is found of it has to be near
# what is stated, or an attack that sees nothing would pass.
CONFIDENCE = 0.999


@pytest.mark.parametrize("option", OPTIONS)
def test_honest_options_are_not_refuted_and_their_controls_are(option):
    honest = audit_option(option, trials=250, confidence=CONFIDENCE)
    assert honest.as_expected
    assert honest.mu > 0.5 * honest.claimed_mu
    assert 0.5 < honest.epsilon < honest.claimed_epsilon
    assert audit_option(option, control=True, trials=250, confidence=CONFIDENCE).exceeded


@pytest.mark.parametrize("caught", [True, False])
def test_the_command_audits_all_of_them_and_fails_where_one_is_not_as_expected(
    caught, tmp_path, capsys, monkeypatch
):
    def found(option, *, control, trials, confidence, seed):
        mu = 2.0 if control and caught else 1.0
        return OptionAudit(option, control, trials, confidence, 6.0, 1.5, 1.2, mu)

    monkeypatch.setattr(options, "audit_option", found)
    words = ["audit", "options", "--out", str(tmp_path), "--trials", "400", "--json"]
    assert main(words) == (0 if caught else 1)
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "audit" / "options.json").read_text())
    assert [one["option"] for one in record["audits"]] == [o for o in OPTIONS for _ in (0, 1)]
    assert [one["exceeded"] for one in record["audits"]] == [False, caught] * len(OPTIONS)
    assert {one["counted"] for one in record["audits"]} == {400}
