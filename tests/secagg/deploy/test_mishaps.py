"""A half-copied file, a failed training step, a full disk: a line in the log, and on with it."""

from __future__ import annotations

import errno
import os

import jaxtyping
import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Contribution
from repro.secagg.deploy import results as results_module
from repro.secagg.deploy.directory import PinnedDirectory
from repro.secagg.deploy.results import Results
from tests.secagg.deploy.federation import DIMENSION, Deployment


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path, opening=20.0)


def test_a_half_copied_directory_leaves_the_last_one_in_force(deployment):
    """Cut at every length (in steps), empty, gone: the pinned one, and one warning."""
    path = deployment.folder / "directory.json"
    content, said = path.read_bytes(), []
    arguments = (path, deployment.operator.public, deployment.folder / "seen")
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="directory"):  # nothing to go by yet
        PinnedDirectory(*arguments).current()
    path.write_bytes(content)
    pinned = PinnedDirectory(*arguments, said.append)
    assert pinned.current() == deployment.directory
    for length in range(0, len(content) - 1, 37):
        path.write_bytes(content[:length])
        assert pinned.current() == deployment.directory
        assert "going by the directory of serial 1" in said[-1]
    path.unlink()
    said.clear()
    for _ in range(3):
        assert pinned.current() == deployment.directory
    assert len(said) == 1
    path.write_bytes(content)
    assert pinned.current() == deployment.directory
    assert len(said) == 1


def test_rounds_go_on_over_a_half_copied_directory(deployment):
    """Everybody reads the torn file before round 2, and takes the next whole one for round 3."""
    path = deployment.folder / "directory.json"
    whole = path.read_bytes()
    deployment.serve(3, pause=1.0)
    for one in range(4):
        deployment.join(one, 3)
    deployment.until(lambda: 1 in deployment.results())
    path.write_bytes(whole[:200])
    deployment.until(lambda: 2 in deployment.results())
    path.write_bytes(whole)
    deployment.finish()
    assert not deployment.errors
    assert list(deployment.results()) == [1, 2, 3]
    assert any("the last good one" in line for line in deployment.lines)


def good(deployment, announced):
    return Contribution(deployment.vector(0, announced.number), 1)


def fails(message):
    def step(deployment, announced):
        raise RuntimeError(message)

    return step


def gives(make, weight=1):
    return lambda deployment, announced: Contribution(make(), weight)


def with_one(value):
    vector = np.zeros(DIMENSION)
    vector[7] = value
    return vector


BAD = {
    "a failed step": (fails("CUDA out of memory"), "CUDA out of memory"),
    "not a number": (gives(lambda: with_one(np.nan)), "not finite"),
    "infinite": (gives(lambda: with_one(-np.inf)), "not finite"),
    "short": (gives(lambda: np.zeros(DIMENSION - 1)), "(40,)"),
    "integers": (gives(lambda: np.zeros(DIMENSION, int)), "float32"),
    "a list": (gives(lambda: [0.0] * DIMENSION), "(40,)"),
    "a weight that is not a number": (gives(lambda: with_one(0), np.nan), "weight"),
    "an infinite weight": (gives(lambda: with_one(0), np.inf), "weight"),
    "a weight above the bound": (gives(lambda: with_one(0), 101), "0 to 100"),
    "half a weight": (gives(lambda: with_one(0), 0.5), "weight"),
}


@pytest.fixture
def _as_users_call_it():
    """Without the tests' run-time type checks, which hospitals do not have."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("_as_users_call_it")
def test_what_cannot_be_summed_is_refused_by_the_directory(deployment):
    for name, (make, says) in BAD.items():
        if name != "a failed step":
            with pytest.raises(InputError) as caught:
                deployment.directory.check(make(deployment, None))
            assert says in str(caught.value), name
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a failed step", "not a number"])
def test_a_bad_step_costs_its_round_and_no_more(tmp_path, name):
    """Hospital 0 leaves round 1 out, says why, trains once for it, and is in round 2; it never
    says that it takes part in round 1."""
    deployment, steps = Deployment(tmp_path, opening=2.0), []
    make, says = BAD[name]

    def contribution(announced):
        steps.append(announced.number)
        return (make if announced.number == 1 else good)(deployment, announced)

    deployment.serve(2, pause=0.5)
    deployment.join(0, 1, contribution)
    deployment.take_part(2, range(1, 4))
    assert not deployment.errors
    deployment.check(1, [1, 2, 3])
    deployment.check(2, range(4))
    assert steps == [1, 2]
    assert any("round 1 is left out" in line and says in line for line in deployment.lines)
    assert [line for line in deployment.lines if "as hospital 0" in line] == [
        "round 2: taking part as hospital 0"
    ]


def test_results_that_cannot_be_written_are_found_before_anybody_is_asked(deployment):
    """``results`` is a plain file: one line, and the server has not even listened."""
    (deployment.folder / "results").write_text("a file")
    with pytest.raises(InputError, match="results") as caught:
        deployment.serve_here(1)
    assert "\n" not in str(caught.value)
    assert not deployment.listening.is_set()


@pytest.mark.parametrize("name", ["missing", "too large"])
def test_an_application_that_cannot_be_sent_opens_no_round(deployment, name):
    """Gone or grown between two rounds: no round is opened about it, and the server goes on."""
    model = deployment.folder / "model"
    model.write_bytes(b"model")
    deployment.serve(2, application=model, pause=0.5)
    for one in range(4):
        deployment.join(one, 2)
    deployment.until(lambda: 1 in deployment.results())
    if name == "missing":
        model.unlink()
    else:
        model.write_bytes(bytes(2 << 20))
    deployment.until(lambda: any("no round: application" in line for line in deployment.lines))
    model.write_bytes(b"model")
    deployment.finish()
    assert list(deployment.results()) == [1, 2]


def test_a_folder_that_goes_bad_later_opens_no_round(deployment):
    deployment.serve(2, pause=0.5)
    for one in range(4):
        deployment.join(one, 2)
    deployment.until(lambda: 1 in deployment.results())
    folder, aside = deployment.folder / "results", deployment.folder / "aside"
    folder.rename(aside)
    folder.write_text("a file")
    deployment.until(lambda: any("no round: results" in line for line in deployment.lines))
    assert not any("round 2: open" in line for line in deployment.lines)
    folder.unlink()
    aside.rename(folder)
    deployment.finish()
    assert list(deployment.results()) == [1, 2]


def test_a_full_disk_is_found_before_a_round(tmp_path, monkeypatch):
    def full(descriptor, offset, size):
        assert size > 8 * 1000  # the whole mean
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="No space left"):
        Results(tmp_path / "results").reserve(b"s" * 32, 1000)


def test_a_sum_that_cannot_be_written_is_kept_until_it_can(deployment, monkeypatch):
    tries, honest = [], results_module.write_whole

    def write_whole(path, content, mode=0o644):
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.EIO, "Input/output error")
        honest(path, content, mode)

    monkeypatch.setattr(results_module, "write_whole", write_whole)
    deployment.serve(1)
    deployment.take_part(1)
    assert len(tries) == 4
    assert any("in memory only" in line for line in deployment.lines)
    deployment.check(1, range(4))
    assert [path.name for path in sorted((deployment.folder / "results").rglob("*.*"))] == [
        "round-000001.json",
        "round-000001.npy",
    ]
