"""Audits of the private step itself: honest ones are not refuted, broken ones are."""

import json

import numpy as np
import pytest
import torch

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.gaussian import gaussian_epsilon
from repro.audit.canaries import LENGTH, OrthogonalCanaries, linear_model, record_loss
from repro.audit.claim import AuditedClaim, private_arms
from repro.audit.controls import CONTROLS
from repro.audit.procedure import AuditPlan, audit
from repro.cli import main
from repro.errors import InputError
from repro.privacy import step as private_step
from repro.report.items import find
from repro.report.items.table6_audit import CONTROLS as SHOWN
from tests.data.files import save, small_arrays

DELTA = 1e-4
# False alarm of an honest audit: 1e-3 by the confidence. Power: tried with other seeds too.
PLAN = AuditPlan(trials=240, canaries=900, confidence=0.999)


def record_claim():
    noise, _ = calibrate_noise_multiplier(6.0, DELTA, 0.2, 6)
    return AuditedClaim("record", 6.0, DELTA, 0.7, float(noise), 0.2, 3, 2, 0)


def update_claim(noise=1.3):
    """Two rounds, as telling as five at a noise of 2."""
    return AuditedClaim(
        "hospital", gaussian_epsilon(noise, 1, 2, DELTA), DELTA, 7.0, noise, 1.0, 1, 2, 3
    )


CLAIMS = {"record": record_claim(), "update": update_claim(), "little noise": update_claim(0.1)}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("control", [None, *CONTROLS])
def test_honest_noise_is_not_refuted_and_every_control_is(claim, control):
    found = audit(claim, PLAN, control=control)
    assert found.exceeded == (control is not None)
    assert found.as_expected


def test_noise_that_is_computed_and_thrown_away_is_caught(monkeypatch):
    """The fault in the step, not in its settings."""
    monkeypatch.setattr(private_step, "add_gaussian_noise", lambda *arguments, **more: None)
    assert audit(record_claim(), PLAN).exceeded


def test_canaries_are_orthogonal_and_saturate_the_clip_norm():
    layout = OrthogonalCanaries.at_most(30, 0.5)
    assert layout.count == 25
    inputs, targets = layout.records(np.arange(25))
    model = linear_model(5, 5)
    gradients = []
    for x, t in zip(inputs, targets, strict=True):
        (loss,) = record_loss(model(x[None]), t[None])
        (gradient,) = torch.autograd.grad(loss, model.weight)
        gradients.append(gradient.flatten())
    assert torch.equal(torch.stack(gradients), LENGTH * 0.5 * torch.eye(25))


def test_the_command_writes_what_the_table_shows(tmp_path, capsys):
    data = str(save(tmp_path / "b.npz", small_arrays()))
    words = ["audit", "calibrated-secagg", "--hospitals", "3", "--profile", "quick", "--data", data]
    words += ["--out", str(tmp_path), "--trials", "200", "--quiet"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "audit" / "calibrated-secagg.json").read_text())
    assert record["epsilon_lower"] < record["epsilon_stated"]
    assert main([*words, "--control", "discarded"]) == 0
    assert "REFUTED" in capsys.readouterr().out
    assert main(["table", "6", "--out", str(tmp_path), "--profile", "quick"]) == 0
    text = (tmp_path / "tables" / "table6.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| calibrated-secagg |")]
    assert [line.split("|")[-2].strip() for line in lines] == ["not refuted", "caught"]
    assert tuple(CONTROLS) == SHOWN


@pytest.mark.parametrize("arm", ["fedavg", "clip-secagg"])
def test_an_arm_without_noise_is_refused_by_name(arm, tmp_path, capsys):
    data = str(save(tmp_path / "b.npz", small_arrays()))
    words = ["audit", arm, "--hospitals", "3", "--profile", "quick", "--data", data]
    assert main([*words, "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("repro audit: arm: got")
    assert arm not in [one.name for one in private_arms()]


def test_bad_plans_are_named():
    for bad in ({"trials": 3}, {"canaries": 1}, {"confidence": 1.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            AuditPlan(**bad)
    assert find("table", "6").name == "table6"
