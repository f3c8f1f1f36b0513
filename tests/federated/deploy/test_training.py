"""Hospitals and a server that train apart make the bits of the simulation, crashes included."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from repro.federated import whitening
from repro.federated.deploy import server
from repro.federated.deploy.keeping import Kept
from repro.federated.protocol import Place
from repro.federated.shared.rounds import SharedRounds
from repro.privacy.noise_key import noise_keys
from tests.federated.deploy.trial import Crash, Trial


@pytest.fixture(scope="module")
def dpsgd(tmp_path_factory):
    return Trial(tmp_path_factory.mktemp("dpsgd"), "shared-dpsgd-eps6")


def test_a_newton_method_trains_to_the_simulation_s_bits(tmp_path, monkeypatch):
    """Three exchanges of three kinds: a mean, second moments, steps."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    trial = Trial(tmp_path, "random-newton-eps6", rounds=4)
    expected = trial.simulated()
    noise_keys.clear()  # the federation's processes are others
    np.testing.assert_array_equal(trial.as_threads(), expected)


def test_dp_sgd_trains_to_the_simulation_s_bits_and_ledger(dpsgd):
    """Each hospital's own ledger adds up to what the plan says of the whole training: with three
    hospitals none may be lost, so the most that it can spend is what it spends."""
    expected = dpsgd.simulated()
    noise_keys.clear()
    np.testing.assert_array_equal(dpsgd.as_threads(), expected)
    promised = {
        (row["unit"], row["relation"], row["view"]): float(row["epsilon_at_most"])
        for row in dpsgd.plan.stated["privacy"]
    }
    for mine in dpsgd.joined.values():
        spent = mine.kept.ledger(mine.training).as_records()
        assert {(row["unit"], row["relation"], row["view"]) for row in spent} == set(promised)
        for row in spent:
            most = promised[row["unit"], row["relation"], row["view"]]
            assert row["epsilon_total"] == pytest.approx(most, rel=1e-9)


def test_exchanges_that_a_crash_cuts_short_are_used_up(dpsgd, monkeypatch):
    """Hospital 2 dies in exchange 2 of round 1 with its part marked as shared and not yet sent;
    the server dies in exchange 1 of round 2 with the sum in its hands. Both come back by the same
    call. The model is the simulation's with these two sums lost, and nothing was shared twice."""
    dpsgd.anew()
    lost = {Place(1, 1), Place(2, 0)}
    monkeypatch.setattr(SharedRounds, "lost", lambda self, at: {2} if at in lost else set())
    expected = dpsgd.simulated()
    noise_keys.clear()
    shared, crashed = [], []
    share, advance = Kept.share, server._Served._advance

    def dies_after_sharing(self, training, hospital, at):
        share(self, training, hospital, at)
        shared.append((hospital, at))
        if (hospital, at) == (2, Place(1, 1)) and not crashed:
            crashed.append("hospital")
            raise Crash

    def dies_before_the_checkpoint(self, following, survivors):
        if self.progress.at == Place(2, 0) and crashed == ["hospital"]:
            crashed.append("server")
            raise Crash
        advance(self, following, survivors)

    monkeypatch.setattr(Kept, "share", dies_after_sharing)
    monkeypatch.setattr(server._Served, "_advance", dies_before_the_checkpoint)
    np.testing.assert_array_equal(dpsgd.as_threads(), expected)
    assert crashed == ["hospital", "server"]
    assert len(set(shared)) == len(shared) == 18  # once each: three hospitals, six exchanges
    failed = [Place(*at) for *at, survivors in dpsgd.result[1].sums if not survivors]
    assert set(failed) == lost


def test_processes_that_are_killed_before_they_share_change_no_bit(tmp_path):
    """The commands of the manual over TLS; kill -9 for a hospital that makes its first update, and
    for the server as it opens round 2. All three are in every sum (--least 3), so an opening waits
    for whoever comes back."""
    trial = Trial(tmp_path, "fedavg-secagg", more=["--least", 3])
    expected = trial.simulated()
    tls = ["--tls-certificate", "server.key.tls.pem", "--tls-key", "server.key.tls.key"]
    serving = trial.words("serve", "server", *tls, "--test", "files/test.npz")
    running = [trial.process([*serving, "--port", "0"])]
    try:
        address = running[0].stderr.readline().split()[-1]
        again = [*serving, "--port", address.rpartition(":")[2]]
        joining = [
            trial.words(
                *("join", one, "--data", trial.file(one), "--policy", "policy.toml"),
                *("--server", address, "--tls-authorities", "server.key.tls.pem"),
                *("--patience", 120, "--device", "cpu"),
            )
            for one in range(3)
        ]
        victim = trial.process(joining[2])
        kill_when(victim, "making the vector")
        running += [trial.process(words) for words in joining]
        kill_when(running[0], "round 2, exchange 1")
        running[0] = trial.process(again)
        ended = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert [process.returncode for process in running] == [0] * 4, ended
    for name in ("server", 0, 1, 2):
        np.testing.assert_array_equal(np.load(tmp_path / f"at-{name}" / "model.npy"), expected)
    assert 0 <= json.loads(ended[0][0])["accuracy"] <= 1
    assert json.loads(ended[1][0])["spent"][0]["epsilon_at_most"] == "inf"
    assert trial.run("secagg", "audit-log", *tmp_path.glob("at-*/transcript.log")) is None


def kill_when(process, says):
    assert any(says in line for line in process.stderr), says
    process.send_signal(signal.SIGKILL)
    process.communicate()
