"""Runs: deterministic, resumable, never repeated, safe to share a store."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro import progress
from repro.errors import InputError
from repro.federated import checkpoint, rounds, whitening
from repro.federated import execute as execution
from repro.federated.division import judged_on, shares, subset
from repro.federated.execute import execute
from repro.federated.parallel.preflight import check_synthetic
from repro.federated.recording import run_name
from repro.federated.shared.sum import PrivateSum
from repro.federated.training.plain import PlainTrainer
from repro.privacy import private_step
from repro.privacy.noise_key import noise_keys
from repro.runs.profiles import PROFILES
from repro.runs.store import RunStore
from tests import forked
from tests.federated.small import cut_short, run, small_dataset, small_settings


@pytest.fixture(scope="module")
def dataset():
    return small_dataset()


def test_same_settings_same_record_in_another_store(dataset, tmp_path):
    one = run(small_settings(), dataset, tmp_path / "one")
    two = run(small_settings(), dataset, tmp_path / "two")
    assert one.stable() == two.stable()
    assert [entry["round"] for entry in one.history] == [0, 1, 2]


def test_another_seed_is_another_run(dataset, tmp_path):
    one = run(small_settings(seed=0), dataset, tmp_path)
    two = run(small_settings(seed=1), dataset, tmp_path)
    assert one.run_id != two.run_id
    assert one.history != two.history


def test_settings_that_came_later_leave_finished_runs_their_names():
    """A name from before there was a choice hashes the settings without it."""
    secure = small_settings("fedavg-secagg")
    assert secure.secagg is not None
    before = secure.as_dict()
    del before["precision"], before["secagg"]["field_bits"]
    del before["shared"], before["second_order"], before["twin_of"], before["logistic_ridge"]
    del before["search"], before["model"]["filters"], before["robustness"]
    text = json.dumps([before, "data"], sort_keys=True)
    assert secure.digest("data") == hashlib.sha256(text.encode()).hexdigest()[:10]
    finer = replace(secure, secagg=replace(secure.secagg, field_bits=61))
    assert finer.digest("data") != secure.digest("data")


def test_finished_run_is_not_repeated(dataset, tmp_path, monkeypatch):
    first = run(small_settings(), dataset, tmp_path)
    monkeypatch.setattr(rounds, "run_rounds", lambda *_: pytest.fail("trained again"))
    assert run(small_settings(), dataset, tmp_path) == first


@pytest.mark.parametrize("arm", ["fedavg", "central", "single"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_stopped_run_goes_on_bit_for_bit(arm, stop_after, dataset, tmp_path, monkeypatch, capsys):
    """Stopped right after a checkpoint, with Adam's moments kept over rounds in "central"; its
    progress goes on from there too."""
    settings = small_settings(arm, rounds=3)
    whole = run(settings, dataset, tmp_path / "whole")
    cut_short(settings, dataset, tmp_path / "cut", stop_after)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    capsys.readouterr()
    resumed = execute(settings, dataset, RunStore(tmp_path / "cut"), device="cpu")
    said = capsys.readouterr().err.splitlines()
    assert f": {stop_after} of 3 rounds, accuracy" in said[0]
    assert ": 3 of 3 rounds, accuracy" in said[-1]
    assert resumed.stable() == whole.stable()
    assert (whole.resumed, resumed.resumed) == (0, 1)


def test_damaged_checkpoint_is_named_and_the_run_starts_over(dataset, tmp_path, capsys):
    settings = small_settings()
    whole = run(settings, dataset, tmp_path / "whole")
    store = RunStore(tmp_path / "damaged")
    folder = store.folder(settings.run_id(dataset.fingerprint))
    checkpoint.save_checkpoint(folder, {"round": 1})
    damaged = bytearray((folder / "checkpoint.pt").read_bytes())
    damaged[-10] ^= 1
    (folder / "checkpoint.pt").write_bytes(damaged)
    assert execute(settings, dataset, store, device="cpu", quiet=True).stable() == whole.stable()
    assert "damaged" in capsys.readouterr().err


@pytest.fixture
def releases(monkeypatch, no_last_look):
    """Whatever private arms release, as (name, bits); stopped after as many as ``left`` says."""
    made, left = [], [10**9]
    release, noisy_sum = PrivateSum.add_up, private_step.clipped_noisy_sum

    def note(name, bits):
        made.append((name, bits))
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    def releasing(self, shares, **names):
        result = release(self, shares, **names)
        note((self.purpose, names["round"], names.get("step")), result.total.tobytes())
        return result

    def summing(*arguments, **names):
        result = noisy_sum(*arguments, **names)
        bits = b"".join(part.numpy().tobytes() for part in result.gradient.values())
        note((names["seed"], names["step"]), bits)
        return result

    monkeypatch.setattr(whitening, "IMAGES", 8)
    monkeypatch.setattr(PrivateSum, "add_up", releasing)
    monkeypatch.setattr(private_step, "clipped_noisy_sum", summing)
    return made, left


@pytest.mark.parametrize("arm", ["scattering-shared-eps6", "random-newton-eps6", "dpsgd-eps6"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_private_run_that_is_cut_short_repeats_its_releases_bit_for_bit(
    arm, after, dataset, tmp_path, releases
):
    """Nobody knows the seed, and the run is stopped between a release and the next checkpoint.

    Were that round done again with other noise, the records would be in two releases of which
    the ledger knows one.
    """
    settings = small_settings(arm, rounds=4 if "newton" in arm else 2, seed=None)
    made, left = releases
    left[0] = after
    with pytest.raises(KeyboardInterrupt):
        run(settings, dataset, tmp_path)
    noise_keys.clear()  # a new process has none
    record = run(settings, dataset, tmp_path)
    of_name = {}
    for name, bits in made:
        assert of_name.setdefault(name, bits) == bits
    assert len(of_name) < len(made)  # the last one was repeated
    assert record.resumed == 1
    assert record.diagnostics == {}  # exact counts over records, which no ε covers


@pytest.mark.parametrize("arm", ["scattering-shared-eps6", "calibrated-secagg"])
def test_an_extension_that_is_cut_short_goes_on_with_its_seed(
    arm, dataset, tmp_path, releases, monkeypatch
):
    """A finished private run has forgotten its seed; what goes on from it has another, once."""
    settings, store = small_settings(arm, rounds=2, seed=None), RunStore(tmp_path)
    first = run(settings, dataset, tmp_path)
    assert first.history[-1]["train_loss"] is None  # exact, and of records
    seeds, save = [], checkpoint.save_checkpoint

    def noting(folder, state):
        save(folder, state)
        seeds.append(state["seed"]["root"])
        if len(seeds) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "save_checkpoint", noting)
    with pytest.raises(KeyboardInterrupt):
        execute(settings, dataset, store, device="cpu", quiet=True, extend=2)
    record = execute(settings, dataset, store, device="cpu", quiet=True, extend=2)
    assert record.rounds == 4
    assert len(seeds) > 2
    assert len(set(seeds)) == 1


def private_and_cut_short(dataset, folder, releases):
    """Settings of a run that was stopped within its first round, and its checkpoint."""
    settings = small_settings("random-newton-eps6", seed=None, rounds=4)
    _, left = releases
    left[0] = 1
    with pytest.raises(KeyboardInterrupt):
        run(settings, dataset, folder)
    left[0] = 10**9
    noise_keys.clear()
    path = RunStore(folder).folder(run_name(settings, dataset)) / "checkpoint.pt"
    return settings, path


def rewritten(path, change):
    state = checkpoint.load_checkpoint(path.parent)
    change(state)
    checkpoint.save_checkpoint(path.parent, state)


CPU_FACTS = ("cpu", "device", "threads", "vectors", "code", "torch", "numpy")


def test_a_private_run_does_not_go_on_elsewhere(dataset, tmp_path, releases):
    """On sums that differ in their last bits it would release their difference bare."""
    settings, path = private_and_cut_short(dataset, tmp_path, releases)
    whole, count = path.read_bytes(), len(releases[0])
    assert path.stat().st_mode & 0o077 == 0  # the seed is in it
    for changed in (*CPU_FACTS, "another rank", "an earlier version"):

        def change(state, changed=changed):
            if changed in CPU_FACTS:
                assert changed in state["made_on"][0]
                state["made_on"][0][changed] = 2 if changed == "threads" else "another"
            elif changed == "another rank":
                state["made_on"] *= 2
            else:
                del state["made_on"]

        rewritten(path, change)
        with pytest.raises(InputError, match="as when this run was begun"):
            run(settings, dataset, tmp_path)
        assert len(releases[0]) == count, changed
        path.write_bytes(whole)
    assert run(settings, dataset, tmp_path).resumed == 1  # as it was, it goes on


def test_a_private_run_whose_checkpoint_is_lost_does_not_start_over(dataset, tmp_path, releases):
    settings, path = private_and_cut_short(dataset, tmp_path, releases)
    whole, count = path.read_bytes(), len(releases[0])
    path.write_bytes(whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:])
    with pytest.raises(InputError, match="damaged"):
        run(settings, dataset, tmp_path)
    path.write_bytes(whole)
    record = run(settings, dataset, tmp_path)
    count = len(releases[0])
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        execute(settings, dataset, RunStore(tmp_path), device="cpu", quiet=True, extend=1)
    assert len(releases[0]) == count
    assert run(settings, dataset, tmp_path) == record  # finished, and untouched


def test_a_run_without_privacy_goes_on_anywhere(dataset, tmp_path, monkeypatch):
    settings, save = small_settings("fedavg", seed=None, rounds=2), checkpoint.save_checkpoint

    def stopping(folder, state):
        save(folder, state | {"made_on": []})
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "save_checkpoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(settings, dataset, tmp_path)
    monkeypatch.setattr(rounds, "save_checkpoint", save)
    assert run(settings, dataset, tmp_path).resumed == 1


def test_a_private_seed_is_forgotten_even_after_a_kill_at_the_very_end(
    dataset, tmp_path, monkeypatch
):
    settings = small_settings("scattering-shared-eps6", seed=None)
    monkeypatch.setattr(execution, "forget_seed", lambda folder: None)
    record = run(settings, dataset, tmp_path)
    folder = RunStore(tmp_path).folder(record.run_id)
    (folder / ".checkpoint.pt.abc.part").write_bytes(b"a seed")
    assert checkpoint.begun(folder).seed is not None
    monkeypatch.undo()
    assert run(settings, dataset, tmp_path) == record
    assert checkpoint.begun(folder).seed is None
    assert not list(folder.glob(".*.part"))


def _child(folder, queue):
    record = execute(small_settings(), small_dataset(), RunStore(folder), device="cpu", quiet=True)
    queue.put(record.as_dict())


def test_two_processes_share_a_store(tmp_path):
    """Both ask for the same run at once: one trains, the other waits and gets its record."""
    context = forked.get_context("spawn")
    queue = context.Queue()
    children = [context.Process(target=_child, args=(tmp_path, queue)) for _ in range(2)]
    for child in children:
        child.start()
    records = [queue.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    queue.close()
    queue.join_thread()
    assert records[0] == records[1]  # times included: it was one run
    assert len(RunStore(tmp_path).all()) == 1


def test_reproducible_and_private_seeds_are_told_apart(dataset, tmp_path):
    known = run(small_settings(seed=0), dataset, tmp_path)
    private = run(small_settings(seed=None), dataset, tmp_path)
    assert known.seed_source == "user seed"
    assert private.seed_source == "operating system entropy"
    # A private root seed is in the checkpoint while the run lasts, and nowhere afterwards.
    folders = [RunStore(tmp_path).folder(record.run_id) for record in (known, private)]
    assert checkpoint.begun(folders[0]).seed is not None
    assert checkpoint.begun(folders[1]).seed is None


def test_scopes_hold_the_images_they_should(dataset):
    labels = dataset.train.labels[::16]
    federated = shares(small_settings("fedavg", hospitals=5, seed=7), labels)
    pooled = shares(small_settings("central", hospitals=5, seed=7), labels)
    alone = shares(small_settings("single", hospitals=5, seed=7), labels)
    assert sorted(i for share in federated.values() for i in share) == list(pooled[0])
    assert list(alone) == [7 % 5]
    assert list(alone[2]) == list(federated[2])


def test_hospitals_judge_on_images_that_they_do_not_train_on(dataset):
    settings = replace(small_settings("fedavg", seed=7), evaluate_on="validation")
    data = subset(dataset, settings)
    held_out, everybody = judged_on(settings, data), data["train"]
    taken = np.concatenate(list(shares(settings, everybody.labels).values()))
    left = np.setdiff1d(np.arange(len(everybody)), taken)
    assert len(left) > 0
    assert np.array_equal(held_out.images, everybody.images[left])
    assert np.array_equal(held_out.labels, everybody.labels[left])


def test_the_record_is_of_the_last_round_and_names_the_first_best(dataset, tmp_path, monkeypatch):
    """Accuracies made up; a round's training loss is the hospitals', weighted by their images."""
    accuracies, losses, sizes = iter([0.1, 0.7, 0.7, 0.4]), {}, {}
    honest, train = rounds.evaluate, PlainTrainer.train

    def evaluated(*arguments):
        return replace(honest(*arguments), accuracy=next(accuracies))

    def trained(self, model, data, *, seed, round_number):
        report = train(self, model, data, seed=seed, round_number=round_number)
        losses.setdefault(round_number, {})[data.hospital] = report.loss
        sizes[data.hospital] = len(data.train)
        return report

    monkeypatch.setattr(rounds, "evaluate", evaluated)
    monkeypatch.setattr(PlainTrainer, "train", trained)
    record = run(small_settings(rounds=3), dataset, tmp_path)
    assert (record.best_accuracy, record.best_round) == (0.7, 1)
    last = record.history[-1]
    assert (record.final_accuracy, record.final_loss) == (0.4, last["loss"])
    assert len(set(sizes.values())) > 1
    for entry in record.history[1:]:
        known = [losses[entry["round"]][hospital] for hospital in sizes]
        mean = np.average(known, weights=list(sizes.values()))
        assert entry["train_loss"] == pytest.approx(mean, rel=1e-9)


def test_paper_profile_wants_real_images_unless_told(dataset):
    check_synthetic(dataset, PROFILES["quick"], "auto")
    check_synthetic(dataset, PROFILES["paper"], "synthetic")
    with pytest.raises(InputError, match="real images for profile paper"):
        check_synthetic(dataset, PROFILES["paper"], "auto")


def test_training_learns(dataset, tmp_path):
    """Central training on noisy stripes beats chance by far."""
    record = run(small_settings("central", rounds=12), dataset, tmp_path)
    assert record.final_accuracy > 0.6  # chance is 0.25
    true = torch.tensor(record.confusion).sum(dim=1)  # a row is a true class
    assert true.tolist() == torch.tensor(dataset.test.labels[::16]).bincount().tolist()
