"""A training across hospitals where each proves how long its update is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.cli import main
from repro.errors import InputError
from repro.federated.bounded import ProvedUpdates
from repro.federated.deploy import training
from repro.federated.deploy.plan import load_plan
from tests.federated.deploy.trial import Trial

NORM = 0.5


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proved")
    return Trial(folder, "fedavg-secagg", hospitals=5, more=["--norm", NORM, "--least", 3])


def check_logs(trial, capsys):
    names = ["server", *range(trial.hospitals)]
    logs = [str(trial.files(name).state / "transcript.log") for name in names]
    capsys.readouterr()
    assert main(["secagg", "audit-log", *logs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_the_operator_is_told(trial, capsys):
    trial.run("federation", "plan", trial.plan_words[0], trial.folder / "again.json",
              *trial.plan_words[1:], "--directory", trial.folder / "other.json")  # fmt: skip
    assert f"every update is proved to be no longer than {NORM}" in capsys.readouterr().out


def test_it_trains_to_the_simulation_s_bits(trial, capsys):
    trial.anew()
    assert trial.plan.norm == trial.plan.stated["settings"]["robustness"]["norm"] == NORM
    np.testing.assert_array_equal(trial.as_threads(), trial.simulated())
    check_logs(trial, capsys)


def test_a_cheat_is_named_and_left_out_of_every_sum(trial, monkeypatch, capsys):
    """Hospital 1 sends a hundred times its update; the others' model is as without it."""
    trial.anew()
    honest = ProvedUpdates.summand

    def lies(self, hospital, update):
        summand = honest(self, hospital, update)
        return 100 * summand if hospital == 1 else summand

    class Liar(training.BoundedRound):
        """Whose owner checks nothing of what it sends."""

        def check(self, vector, weight):
            pass

    monkeypatch.setattr(ProvedUpdates, "summand", lies)
    monkeypatch.setattr(training, "BoundedRound", Liar)
    monkeypatch.setattr("repro.secagg.bounded.hospital.BoundedHospital._provable", lambda *_: True)
    trial.as_threads()
    assert [survivors for *_, survivors in trial.result[1].sums] == [[0, 2, 3, 4]] * 2
    assert sum("hospital 1 is left out: did not prove" in line for line in trial.said) == 2
    found = trial.result[1].vector.numpy()
    monkeypatch.setattr(ProvedUpdates, "summand", honest)
    assert np.abs(found - trial.simulated()).max() < 1.0  # a hundred times the update is far more
    check_logs(trial, capsys)


def test_three_hospitals_are_no_committee(trial):
    with pytest.raises(InputError, match="fewer than 4"):
        replace(trial.plan, hospitals=dict.fromkeys(range(3), 100), least=2)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_norm_is_a_length(trial, norm):
    with pytest.raises(InputError, match="norm"):
        replace(trial.plan, norm=norm)
    assert load_plan(trial.folder / "plan.json", trial.operator).norm == NORM


def test_shared_noise_is_longer_than_any_useful_norm(trial):
    with pytest.raises(InputError, match="norm"):
        replace(trial.plan, arm="shared-dpsgd-eps6")


@pytest.mark.parametrize("length", [0.0, 1e-3, NORM, 1e3, 1e30])
def test_every_honest_update_keeps_the_bound(length):
    """Long ones are cut to the norm, the others are as they were but for rounding."""
    normal = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    update = normal * (length / float(normal.norm()))
    proved = ProvedUpdates(NORM, {0: 300, 1: 900})
    expected = update.double().numpy() * min(1.0, NORM / (length or 1.0))
    np.testing.assert_allclose(proved.cut(update), expected, rtol=1e-5)
    for hospital, share in ((0, 1 / 3), (1, 1.0)):
        summand = proved.summand(hospital, update)
        assert np.linalg.norm(summand.astype(float)) <= proved.bound(1000).norm
        np.testing.assert_allclose(summand * (NORM / 1e6), share * expected, atol=NORM / 1e6)
