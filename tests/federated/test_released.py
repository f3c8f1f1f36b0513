"""A private run gives nothing away of a record but by the mechanism that its ledger accounts for.

Two runs of the command on neighbouring files, with the same forced entropy. The second is handed
the first one's noisy releases in place of its own, so whatever else it writes or prints may not
differ in a bit: not the name of its folder, its record, its scores, kept features, checkpoint or
terminal. (The releases themselves are what an ε covers; the attacks of ``repro audit`` test those.)
"""

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest

from repro.cli import main
from repro.cli.run import _facts
from repro.data import load_dataset
from repro.errors import InputError
from repro.federated import checkpoint, whitening
from repro.federated.division import shares
from repro.federated.parallel.distributed import _difference
from repro.federated.recording import run_name
from repro.federated.shared.sum import PrivateSum
from repro.privacy import private_step
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs.store import RunStore
from tests.federated.small import cut_short, run, small_dataset, small_settings

COPY, BLACK = "a copy of another hospital's", "black"
NEIGHBOURS = [  # every kind of mechanism, and what the one record is in the other file
    ("random-newton-eps6", COPY),
    ("scattering-shared-eps6", COPY),
    ("scattering-shared-eps6", BLACK),
    ("dpsgd-eps6-secagg", COPY),
    ("calibrated-secagg", COPY),
]
TIMES = ("timings", "wall_seconds", "started", "finished")  # of the clock, in every record


class Tape:
    """The noisy outputs of every mechanism, in order: kept at first, then handed out again."""

    def __init__(self):
        self.kept, self.playing, self.computed = [], None, []

    def play(self):
        self.playing, self.computed = iter(self.kept), []

    def pass_on(self, *own):
        if self.playing is None:
            self.kept.append(copy.deepcopy(own))  # a step divides its gradient in place
            return own
        self.computed.append(own)
        return copy.deepcopy(next(self.playing))


@pytest.fixture
def tape(monkeypatch):
    made = Tape()
    release, noisy_sum = PrivateSum.add_up, private_step.clipped_noisy_sum

    def releasing(self, *arguments, **names):
        own = release(self, *arguments, **names)
        (total,) = made.pass_on(own.total)
        return dataclasses.replace(own, total=total)

    @functools.wraps(noisy_sum)
    def summing(*arguments, **names):
        own = noisy_sum(*arguments, **names)
        gradient, flat = made.pass_on(own.gradient, own.flat)
        return dataclasses.replace(own, gradient=gradient, flat=flat)

    call = ClipAndNoiseUpdate.__call__

    def updating(self, *arguments, **names):
        own, report = call(self, *arguments, **names)
        return made.pass_on(own)[0], report

    monkeypatch.setattr(PrivateSum, "add_up", releasing)
    monkeypatch.setattr(private_step, "clipped_noisy_sum", summing)
    monkeypatch.setattr(ClipAndNoiseUpdate, "__call__", updating)
    monkeypatch.setattr(whitening, "IMAGES", 8)
    known = RootSeed(bytes(range(32)), "operating system entropy")
    monkeypatch.setattr(RootSeed, "from_entropy", classmethod(lambda cls: known))
    return made


@pytest.fixture(scope="module")
def whole():
    return small_dataset(classes=8)


def trained(whole):
    """Position in the file of a record that hospital 0 trains on, and of one of hospital 1's."""
    own = shares(small_settings(), whole.train.labels[::16])
    return 16 * own[0][3], 16 * own[1][3]


def neighbour(whole, kind):
    """``whole`` but for one record that is trained on."""
    images, labels = whole.train.images.copy(), whole.train.labels.copy()
    one, other = trained(whole)
    if kind == COPY:
        images[one], labels[one] = images[other], (labels[other] + 1) % 8
    else:  # as near to nothing as a file can hold
        images[one] = 0
    return dataclasses.replace(whole, train=type(whole.train)(images, labels))


def file(dataset, path):
    arrays = {}
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        arrays |= {f"{name}_images": split.images, f"{name}_labels": split.labels[:, None]}
    np.savez(path, **arrays)
    return path


def rounds(arm):
    return "3" if "newton" in arm else "1"


def command(arm, data, out):
    words = ["run", arm, "--hospitals", "3", "--profile", "smoke", "--rounds", rounds(arm)]
    return [*words, "--device", "cpu", "--quiet", "--data", str(data), "--out", str(out)]


def given_away(arm, data, out, capsys):
    """All that the command writes and prints, by file name; times of the clock left out (and the
    progress bar, which speaks when time has passed, of rounds and test accuracy)."""
    noise_keys.clear()  # as in another process
    assert main(command(arm, data, out)) == 0
    said = capsys.readouterr()
    terminal = (said.out + said.err).replace(str(out), "OUT")
    found = {"terminal": terminal}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        found[name] = path.read_bytes() if path.is_file() else b"a folder"
        if path.name == "record.json":
            record = json.loads(found[name])
            found[name] = json.dumps({k: v for k, v in record.items() if k not in TIMES}, indent=1)
        elif path.name == checkpoint.NAME:
            state = checkpoint.load_checkpoint(path.parent)
            found[name] = repr({k: v for k, v in sorted(state.items()) if k != "seconds"})
    return found


@pytest.mark.parametrize(("arm", "kind"), NEIGHBOURS)
def test_neighbours_give_away_the_same_but_for_the_noisy_releases(
    arm, kind, whole, tape, tmp_path, capsys
):
    first = given_away(arm, file(whole, tmp_path / "whole.npz"), tmp_path / "first", capsys)
    assert any(name.endswith("record.json") for name in first)
    tape.play()
    other = file(neighbour(whole, kind), tmp_path / "other.npz")
    second = given_away(arm, other, tmp_path / "second", capsys)
    assert list(second) == list(first)
    for name, content in first.items():
        assert second[name] == content, name
    assert next(tape.playing, None) is None  # as many releases, and the record was in them:
    pairs = zip(tape.kept, tape.computed, strict=True)
    assert any(not np.array_equal(np.asarray(a[-1]), np.asarray(b[-1])) for a, b in pairs)


def test_what_a_private_run_says_of_its_data_and_what_it_does_not(whole, tmp_path, capsys):
    data = file(whole, tmp_path / "a.npz")
    assert main([*command("calibrated-secagg", data, tmp_path / "out"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    told = record["dataset"]
    assert [told[key] for key in ("md5", "fingerprint", "duplicates")] == [None] * 3
    assert "which one, a private run does not say" in told["source"]
    own = shares(small_settings(), whole.train.labels[::16])
    assert told["train_images"] == sum(map(len, own.values()))
    assert told["test_images"] == sum(map(sum, record["confusion"]))
    for row in record["privacy"]:
        assert any("stored more than once" in w for w in row["warnings"]) == (
            row["unit"] == "record"
        )
    assert record["diagnostics"] == {}  # exact counts, which no ε covers
    public = json.dumps(record)
    dataset = load_dataset(data)
    for secret in (dataset.md5, dataset.fingerprint):
        assert secret not in public


def test_a_run_that_anybody_can_repeat_says_all_there_is(whole, tmp_path):
    settings = small_settings("scattering-shared-eps6", rounds=1)
    record = run(settings, whole, tmp_path)
    assert record.dataset["fingerprint"] == whole.fingerprint
    assert record.dataset["duplicates"]["stored"]["images"] == 0
    assert record.run_id == settings.run_id(whole.fingerprint)
    assert record.diagnostics["gradients"] > 0


def test_a_private_run_goes_on_with_its_own_records_only(whole, tape, tmp_path, monkeypatch):
    """Its name does not tell them; with others the round that was cut short would be released
    twice with one noise. Once it is finished nothing is kept that could tell."""
    settings, store = small_settings("scattering-shared-eps6", seed=None), RunStore(tmp_path)
    other = neighbour(whole, BLACK)
    release, calls = PrivateSum.add_up, []

    def stopping(self, *arguments, **names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return release(self, *arguments, **names)

    monkeypatch.setattr(PrivateSum, "add_up", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(settings, whole, tmp_path)
    with pytest.raises(InputError, match="data: got 'other records'"):
        run(settings, other, tmp_path)
    assert len(calls) == 2
    noise_keys.clear()
    record = run(settings, whole, tmp_path)
    assert record.resumed == 1
    folder = store.folder(record.run_id)
    assert checkpoint.load_checkpoint(folder)["data"] is None
    assert whole.fingerprint.encode() not in (folder / checkpoint.NAME).read_bytes()


def test_a_finished_private_run_is_returned_whatever_the_records(whole, tmp_path, capsys):
    """And says so each time, the same line for the same records as for others."""
    settings = small_settings("scattering-shared-eps6", seed=None, rounds=1)
    record = run(settings, whole, tmp_path)
    capsys.readouterr()
    said = []
    for dataset in (whole, neighbour(whole, BLACK)):
        assert run(settings, dataset, tmp_path) == record
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "give another --out to train on others" in said[0]
    fewer = dataclasses.replace(whole, test=type(whole.test)(*_half(whole.test)))
    assert run(settings, fewer, tmp_path).run_id != record.run_id


def _half(split):
    return split.images[: len(split) // 2], split.labels[: len(split) // 2]


def test_a_private_run_is_not_judged_on_its_hospitals_images(whole, tmp_path):
    settings = small_settings("dpsgd-eps6", seed=None)
    settings = dataclasses.replace(settings, evaluate_on="validation")
    with pytest.raises(InputError, match="evaluate_on: got 'validation'; expected test"):
        run(settings, whole, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ranks_that_read_unlike_private_data_are_told_so_without_it(whole):
    """The line names the field and a rank; with a public seed it shows both fingerprints."""
    other = neighbour(whole, BLACK)
    for seed in (None, 3):
        settings = small_settings("dpsgd-eps6", seed=seed)
        alike = [_facts(settings, whole, 0), _facts(settings, whole, 0)]
        assert _difference(alike) is None
        problem = str(_difference([_facts(settings, whole, 0), _facts(settings, other, 0)]))
        assert problem.startswith("data of rank 1: got ")
        assert (whole.fingerprint in problem) == (seed is not None)


def test_a_private_run_that_was_cut_short_is_not_begun_again_in_another_precision(whole, tmp_path):
    """Its ε is spent: it is finished, or its folder deleted by whoever knows that."""
    settings = small_settings("dpsgd-eps6", seed=None)
    cut_short(settings, whole, tmp_path, after=1)
    mixed = dataclasses.replace(settings, precision="bf16-mixed")
    begun = f"precision.*float32, in which {run_name(settings, whole)} was begun"
    with pytest.raises(InputError, match=begun):
        run(mixed, whole, tmp_path)
    cut_short(dataclasses.replace(mixed, seed=0), whole, tmp_path, after=1)  # that one is begun
