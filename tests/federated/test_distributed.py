"""The same run on several processes: the same bits, and one clear line when something is wrong."""

import contextlib
import io
import json
import os
import signal
import socket
import sys

import pytest
import torch

from repro.cli import main
from repro.federated.evaluation import BATCH, evaluate
from repro.federated.images import LabelledImages
from repro.federated.parallel.ranks import Ranks
from tests import forked
from tests.federated.arms_job import outcome
from tests.federated.jobs import (
    alone,
    by_hand,
    own_lines,
    rank_process,
    record,
    stable,
    torchrun,
    wait_for,
    words,
)
from tests.federated.threads import on_ranks

ARMS = (
    *("dpsgd-eps6", "fedavg", "fedavg-secagg", "calibrated-secagg", "dpsgd-eps6-secagg"),
    "scattering-dpsgd-eps6-secagg",  # on features computed once
)


@contextlib.contextmanager
def one_thread():
    """As many as a rank has: the order of summation is part of the bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def here(command):
    """The record that the command prints, given in this process."""
    with one_thread(), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(command) == 0
    return json.loads(said.getvalue())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every kind of arm as a real job of three ranks, four hospitals: arm → what came out."""
    out = tmp_path_factory.mktemp("ranks")
    script = [sys.executable, "-m", "tests.federated.arms_job", str(out), *ARMS]
    (status, said, problems), *others = by_hand([script] * 3)
    assert status == 0, problems
    assert [other[:2] for other in others] == [(0, "")] * 2  # rank 0 alone prints and writes
    assert len(list(out.rglob("record.json"))) == len(ARMS)
    return json.loads(said)


@pytest.mark.parametrize("arm", ARMS)
def test_three_ranks_give_the_same_bits_as_one_process_without_ranks(
    arm, outcomes, tmp_path, no_last_look
):
    """Every accuracy, loss, ε and fact of the record, and every bit of the final model; of
    "dpsgd-eps6" also with the gate after the last step as without."""
    with one_thread():
        alone_ = outcome(arm, tmp_path, Ranks())
    assert json.loads(json.dumps(alone_)) == outcomes[arm]


def test_the_command_under_torchrun_gives_the_record_of_the_command_alone(tmp_path):
    one = here(words("fedavg", tmp_path / "one"))
    many = record(torchrun(2, words("fedavg", tmp_path / "many")))
    assert stable(many) == stable(one)
    assert len(list((tmp_path / "many").rglob("record.json"))) == 1


LONG = 30  # rounds: enough for a kill after the first to come before the last


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return here(words("fedavg", tmp_path_factory.mktemp("whole"), rounds=LONG))


@pytest.mark.parametrize(("victim", "ranks"), [(0, 1), (1, 3)])
def test_killed_rank_ends_the_job_and_another_number_of_ranks_goes_on(
    victim, ranks, undisturbed, tmp_path
):
    """kill -9 of either rank in mid-run: one line, no hang, and fewer or more ranks end the run."""
    out = tmp_path / "killed"
    job = forked.Popen(
        torchrun(2, words("fedavg", out, rounds=LONG)),
        stdout=forked.PIPE,
        stderr=forked.PIPE,
    )
    wait_for(lambda: list(out.rglob("checkpoint.pt")), job)
    os.kill(rank_process(job, victim), signal.SIGKILL)
    stdout, stderr = job.communicate(timeout=120)
    assert job.returncode != 0
    assert stdout == ""
    (line,) = own_lines(stderr)
    assert f"rank {1 - victim} of 2 has lost another one" in line
    assert "Traceback" not in stderr.split("ChildFailedError")[0].split("repro run:")[0]
    again = words("fedavg", out, rounds=LONG)
    if ranks == 1:
        resumed = record(alone(again))
    else:
        resumed = json.loads(by_hand([alone(again)] * ranks)[0][1])
    assert resumed["resumed"] == 1, "the job was finished before the kill; nothing was proved"
    assert stable(resumed) == stable(undisturbed)


def test_more_ranks_than_hospitals(tmp_path):
    ranks = by_hand([alone(words("fedavg", tmp_path / "out", hospitals=2))] * 3)
    assert [(status, out) for status, out, _ in ranks] == [(2, "")] * 3
    assert [line for _, _, said in ranks for line in own_lines(said)] == [
        "repro run: ranks: got 3; expected at most 2, the hospitals that train in this arm"
    ]
    assert not (tmp_path / "out").exists()


OTHER_CODE = (
    "import sys, repro.cli.run as p; right = p.code_version();"
    "p.code_version = lambda: {**right, 'version': '0.0.0'};"
    "from repro.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("what", ["settings", "code", "own mistake"])
def test_ranks_that_do_not_fit_together(what, tmp_path):
    """Both ranks end with status 2, rank 0 says why in one line, nothing is written."""
    command = words("fedavg", tmp_path / "out")
    other = {
        "settings": alone([*command, "--rounds", "3"]),
        "code": [sys.executable, "-c", OTHER_CODE, *command],
        "own mistake": alone([*command, "--data", "nowhere.npz"]),
    }[what]
    (first, first_out, first_err), (second, second_out, second_err) = by_hand(
        [alone(command), other]
    )
    assert (first, second) == (2, 2)
    assert (first_out, second_out) == ("", "")
    (line,) = own_lines(first_err)
    assert ("nowhere.npz" if what == "own mistake" else f"{what} of rank 1") in line
    assert "Traceback" not in first_err + second_err
    assert own_lines(second_err) == []
    assert not (tmp_path / "out").exists()


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys):
    """What the command says, in one line, as rank 0 of 2 but for these variables."""

    def run(**variables):
        usual = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        for name, value in {**usual, **variables}.items():
            monkeypatch.setenv(name, value)
        assert main(words("fedavg", tmp_path / "out")) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_port_in_use(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = f"MASTER_PORT: got '{port}'; expected a free port; this one is in use"
        assert refused(MASTER_PORT=str(port)) == f"repro run: {said}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("RANK", "2"), ("RANK", "one"), ("MASTER_PORT", ""), ("REPRO_RANK_TIMEOUT", "soon")],
)
def test_bad_environment_is_named(variable, value, refused):
    assert variable in refused(**{variable: value})


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_commands_for_one_process_say_so(rank, lines, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    try:
        status = main(["reproduce", "--profile", "smoke"])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (2, "", lines)


def test_evaluation_shared_by_ranks_is_the_same_bits():
    """Seven batches over three ranks: loss and confusion equal one process's exactly."""
    generator = torch.Generator().manual_seed(0)
    count = 6 * BATCH + 17
    data = LabelledImages(
        torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8),
        torch.randint(0, 4, (count,), generator=generator),
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    with one_thread():
        alone_ = evaluate(model, data, 4)
        shared = on_ranks(3, lambda ranks: evaluate(model, data, 4, ranks))
    for one in shared:
        assert (one.loss, one.accuracy) == (alone_.loss, alone_.accuracy)
        assert torch.equal(one.confusion, alone_.confusion)
    assert int(alone_.confusion.sum()) == count
