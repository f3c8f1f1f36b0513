"""Campaigns: every run once, spread over processes or not, only what is missing repeated."""

import os
import shutil
import signal
import time

from repro.federated.execute import execute
from repro.federated.parallel import campaign
from repro.federated.parallel.campaign import matrix, run_all
from repro.runs.arms import get_arm
from repro.runs.profiles import PROFILES
from repro.runs.store import RunStore
from tests import forked
from tests.federated.small import small_dataset

ARMS = [get_arm("fedavg"), get_arm("central")]


def test_matrix_is_every_arm_once_and_central_only_once_a_seed():
    runs = matrix(PROFILES["quick"], ARMS)
    assert len(runs) == 3 * (2 + 1)
    assert len({run.run_id("data") for run in runs}) == len(runs)
    # The first runs already hold every arm: a campaign that is cut short shows something.
    assert {run.arm for run in runs[:2]} == {"fedavg", "central"}


def test_the_arms_that_a_profile_wants_first_come_first():
    paper = PROFILES["paper"]
    runs = matrix(paper)
    count = len(paper.first) * len(paper.seeds) * len(paper.hospitals)
    assert {run.arm for run in runs[:count]} == set(paper.first)
    assert not {run.arm for run in runs[count:]} & set(paper.first)
    assert len({run.run_id("data") for run in runs}) == len(runs)
    assert {run.seed for run in runs[: count // 3]} == {0}


def test_processes_change_nothing_and_only_the_missing_is_repeated(tmp_path):
    dataset = small_dataset()
    runs = matrix(PROFILES["smoke"], ARMS, hospitals=[3])
    spread = run_all(runs, dataset, RunStore(tmp_path / "spread"), device="cpu")
    alone = [run_all([run], dataset, RunStore(tmp_path / "alone"), device="cpu")[0] for run in runs]
    assert [record.stable() for record in spread] == [record.stable() for record in alone]

    store = RunStore(tmp_path / "spread")
    shutil.rmtree(store.folder(spread[0].run_id))
    again = run_all(runs, dataset, store, device="cpu")
    assert again[1] == spread[1]  # its times too: it was not run again
    assert again[0].stable() == spread[0].stable()


def test_a_run_that_was_extended_is_named(tmp_path, capsys):
    """It counts as finished, but what it holds now is not what the matrix asks for."""
    dataset, store = small_dataset(), RunStore(tmp_path)
    (settings, *_) = matrix(PROFILES["smoke"], ARMS, hospitals=[3])
    run_all([settings], dataset, store, device="cpu")
    assert "extended" not in capsys.readouterr().err
    execute(settings, dataset, store, device="cpu", quiet=True, extend=1)
    run_all([settings], dataset, store, device="cpu")
    said = capsys.readouterr().err
    assert f"{settings.run_id(dataset.fingerprint)} was extended to 3 rounds" in said


def _command(*given):
    worker = forked.get_context("spawn").Process(target=_worker, args=given)
    worker.start()
    worker.join()


def _worker(folder, ours, theirs):
    ours.close()
    campaign._prepare(small_dataset(), folder, None)
    theirs.send(os.getpid())
    time.sleep(600)


def test_a_worker_ends_with_a_command_that_is_killed(tmp_path):
    ours, theirs = forked.get_context("spawn").Pipe()
    command = forked.get_context("spawn").Process(target=_command, args=(tmp_path, ours, theirs))
    command.start()
    theirs.close()
    assert ours.recv() != command.pid
    os.kill(command.pid, signal.SIGKILL)
    command.join()
    assert ours.poll(30)  # its end is closed: nobody has it any more
    try:
        ours.recv()
    except EOFError:
        return
    raise AssertionError("the worker had more to say")
