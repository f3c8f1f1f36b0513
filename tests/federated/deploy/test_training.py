"""Hospitals and a server that train apart make the bits of the simulation, crashes included."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

from repro.accounting.ledger import UNPROTECTED
from repro.errors import InputError
from repro.federated import whitening
from repro.federated.deploy import server
from repro.federated.deploy.keeping import Kept
from repro.federated.deploy.plan import load_plan
from repro.federated.deploy.training import statements
from repro.federated.protocol import Place
from repro.federated.shared.rounds import SharedRounds
from repro.privacy.noise_key import noise_keys
from tests.federated.deploy.trial import Crash, Trial


@pytest.fixture(scope="module")
def dpsgd(tmp_path_factory):
    return Trial(tmp_path_factory.mktemp("dpsgd"), "shared-dpsgd-eps6")


def test_a_newton_method_trains_to_the_simulation_s_bits(tmp_path, monkeypatch):
    """Three exchanges of three kinds: a mean, second moments, steps. Features are whitened as the
    operator's file says: no party works that out again, and none takes another file."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    trial = Trial(tmp_path, "random-newton-eps6", rounds=4)
    expected = trial.simulated()
    noise_keys.clear()  # the federation's processes are others
    monkeypatch.setattr(whitening.Whitened, "_fit", None)
    np.testing.assert_array_equal(trial.as_threads(), expected)
    file = tmp_path / "plan.whitening"
    content = bytearray(file.read_bytes())
    for spoilt in (content[:-4], bytes([content[0] ^ 1]) + content[1:], None):
        file.unlink() if spoilt is None else file.write_bytes(spoilt)
        with pytest.raises(InputError, match="goes with the plan"):
            load_plan(tmp_path / "plan.json", trial.operator)


def test_dp_sgd_trains_to_the_simulation_s_bits_and_ledger(dpsgd):
    """Each hospital's own ledger adds up to what the plan says of the whole training: with three
    hospitals none may be lost, so the most that it can spend is what it spends."""
    dpsgd.anew()
    expected = dpsgd.simulated()
    noise_keys.clear()
    np.testing.assert_array_equal(dpsgd.as_threads(), expected)
    promised = {
        (row["unit"], row["relation"], row["view"]): float(row["epsilon_at_most"])
        for row in dpsgd.plan.stated["privacy"]
    }
    training, progress = dpsgd.result
    ledgers = [mine.kept.ledger(mine.training) for mine in dpsgd.joined.values()]
    for ledger in (*ledgers, training.spent_in(progress.sums)):
        spent = ledger.as_records()
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
    # Of what came to nothing nobody has seen anything, unless secure aggregation is broken.
    ours = statements(dpsgd.result[0].spent_in(dpsgd.result[1].sums))
    for mine, most in zip(ours, dpsgd.plan.stated["privacy"], strict=True):
        assert (mine["unit"], mine["view"]) == (most["unit"], most["view"])
        if (mine["unit"], mine["relation"]) == ("record", "add_remove"):
            broken = mine["view"] == UNPROTECTED
            assert (mine["epsilon_at_most"] < 0.99 * most["epsilon_at_most"]) != broken


def test_processes_that_are_killed(tmp_path):
    """The commands of the manual over TLS; kill -9 for a hospital that makes its first update, and
    for the server as it opens round 2, neither of which changes a bit: all three are in every sum
    (--least 3), so an opening waits for whoever comes back. And for a hospital that has marked its
    part of round 2 as shared: with the others' sum or without, it shares that part once."""
    trial = Trial(tmp_path, "fedavg-secagg", more=["--least", 3])
    tls = ["--tls-certificate", "server.key.tls.pem", "--tls-key", "server.key.tls.key"]
    serving = trial.words("serve", "server", *tls, "--test", "files/test.npz")
    names, running = ["server", 0, 1, 2], [trial.process([*serving, "--port", "0"])]
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
        (state,) = (tmp_path / "at-0" / "trainings").glob("*.json")
        while last_shared(state) < [2, 0]:
            time.sleep(0.01)
        running[1].kill()
        running[1].communicate()
        if last_shared(state) == [2, 0]:  # else the kill came after the end
            running[1] = trial.process(joining[0])
        else:
            names.remove(0)
            del running[1]
        ended = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert [process.returncode for process in running] == [0] * len(names), ended
    first, last = (survivors for *_, survivors in json.loads(ended[0][0])["sums"])
    assert first == [0, 1, 2]
    expected = trial.simulated(rounds=2 if last else 1)
    for name in names:
        np.testing.assert_array_equal(np.load(tmp_path / f"at-{name}" / "model.npy"), expected)
    assert 0 <= json.loads(ended[0][0])["accuracy"] <= 1
    assert json.loads(ended[1][0])["spent"][0]["epsilon_at_most"] == "inf"
    assert trial.run("secagg", "audit-log", *tmp_path.glob("at-*/transcript.log")) is None


def last_shared(state):
    """Round and exchange that a hospital has on its disk."""
    return json.loads(state.read_text())["shared"] or [0, 0]


def kill_when(process, says):
    assert any(says in line for line in process.stderr), says
    process.send_signal(signal.SIGKILL)
    process.communicate()
