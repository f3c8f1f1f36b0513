"""Which data is used, in which order, and what it calls itself."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from repro.data import BLOODMNIST, catalog_entry, label_counts, load_dataset, loading, partition
from repro.data.catalog import set_of
from repro.data.download import DownloadFailed
from repro.errors import InputError
from tests.data.files import save, small_arrays


@pytest.fixture(autouse=True)
def offline_home(tmp_path, monkeypatch):
    """An empty home, no variable, and a downloader that only counts."""
    calls = []

    def refuse(entry, target):
        calls.append(target)
        raise DownloadFailed("download failed: no network in tests")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BLOODMNIST_NPZ", raising=False)
    monkeypatch.setattr(loading, "download", refuse)
    return calls


def official_is(monkeypatch, path) -> None:
    """Pretend that MedMNIST published the file at ``path``."""
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    entry = dataclasses.replace(BLOODMNIST, md5=md5)
    monkeypatch.setattr(loading, "BLOODMNIST", entry)
    monkeypatch.setattr(loading, "catalog_entry", lambda name: entry)


def test_file_has_medmnist_arrays_and_is_named_as_not_official(tmp_path):
    path = save(tmp_path / "secret-folder-name.npz", small_arrays())
    dataset = load_dataset(path)
    arrays = small_arrays()
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        assert np.array_equal(split.images, arrays[f"{name}_images"])
        assert np.array_equal(split.labels, arrays[f"{name}_labels"][:, 0])
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert not dataset.official
    assert not dataset.synthetic
    assert dataset.md5 == hashlib.md5(path.read_bytes()).hexdigest()
    assert "not the official BloodMNIST" in dataset.caption()
    assert dataset.md5 in dataset.caption()
    assert (dataset.num_classes, dataset.channels) == (8, 3)
    assert "secret" not in repr(dataset.facts()) + dataset.caption()
    assert {"name", "source", "official", "md5"} <= set(dataset.facts())


def test_official_and_rebuilt_files_are_known_by_md5_alone(tmp_path, monkeypatch):
    path = save(tmp_path / "a.npz", small_arrays())
    monkeypatch.setattr(loading, "REBUILT_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    rebuilt = load_dataset(path)
    assert not rebuilt.official
    assert "rebuilt from its source images" in rebuilt.caption()
    official_is(monkeypatch, path)
    official = load_dataset(path)
    assert official.official
    assert official.source == "official BloodMNIST file"
    assert "not" not in official.caption()


def test_a_private_run_says_which_data_only_where_they_were_asked_for_by_name(
    tmp_path, monkeypatch
):
    """A file that turns out to be the official one would say so of every record in it."""
    path = save(tmp_path / "a.npz", small_arrays())
    official_is(monkeypatch, path)
    named = load_dataset(path)
    assert named.official
    told = named.facts(private=True)
    assert (told["official"], told["md5"], told["fingerprint"]) == (False, None, None)
    assert "which one, a private run does not say" in told["source"] + named.caption(private=True)
    assert named.md5 not in named.caption(private=True)
    cache = loading.medmnist_cache(BLOODMNIST)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(path.read_bytes())
    asked = load_dataset("auto")
    assert asked.facts(private=True) == asked.facts() | {"fingerprint": None}
    assert asked.caption(private=True) == asked.caption()


def test_what_is_public_of_a_file_is_its_test_split_and_how_many_records_it_has(tmp_path):
    plain = load_dataset(save(tmp_path / "a.npz", small_arrays()))
    for key, public in (("train", False), ("val", False), ("test", True)):
        for what in ("images", "labels"):
            arrays = small_arrays()
            arrays[f"{key}_{what}"][3] = 7 - arrays[f"{key}_{what}"][3] % 8
            other = load_dataset(save(tmp_path / "b.npz", arrays))
            assert other.fingerprint != plain.fingerprint
            assert (other.public_fingerprint != plain.public_fingerprint) == public
    fewer = small_arrays()
    for what in ("images", "labels"):
        fewer[f"train_{what}"] = fewer[f"train_{what}"][1:]
    other = load_dataset(save(tmp_path / "b.npz", fewer))
    assert other.public_fingerprint != plain.public_fingerprint


def test_order_is_option_then_environment_then_cache_then_download(tmp_path, monkeypatch):
    """Four different files; taking one away reveals the next."""
    paths = []
    for i in range(4):
        arrays = small_arrays()
        arrays["train_images"][0] = i
        paths.append(save(tmp_path / f"{i}.npz", arrays))
    option, variable, cached, downloaded = paths
    cache = loading.medmnist_cache(BLOODMNIST)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(cached.read_bytes())
    monkeypatch.setenv("BLOODMNIST_NPZ", str(variable))
    monkeypatch.setattr(
        loading, "download", lambda entry, target: target.write_bytes(downloaded.read_bytes())
    )

    def first_pixel(data: str) -> int:
        return int(load_dataset(data).train.images[0, 0, 0, 0])

    assert first_pixel(str(option)) == 0
    assert first_pixel("auto") == 1
    monkeypatch.setenv("BLOODMNIST_NPZ", "")  # empty is unset
    official_is(monkeypatch, cached)
    assert first_pixel("auto") == 2
    cache.unlink()
    official_is(monkeypatch, downloaded)
    assert first_pixel("auto") == 3


def test_cached_file_with_wrong_md5_is_refused(tmp_path, capsys):
    cache = loading.medmnist_cache(BLOODMNIST)
    cache.parent.mkdir(parents=True)
    save(cache, small_arrays())
    with pytest.raises(InputError, match=f"md5 {BLOODMNIST.md5}, but it has"):
        load_dataset("auto")
    assert not load_dataset(cache).official  # chosen by name, it works


def test_without_a_file_the_stand_in_is_loud(offline_home, tmp_path, capsys):
    dataset = load_dataset("auto")
    assert dataset.synthetic
    assert len(offline_home) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "SYNTHETIC STAND-IN" in line
    assert "no network in tests" in line
    assert not (tmp_path / "home").exists()
    assert "synthetic stand-in" in dataset.caption()


def test_stand_in_by_name_asks_no_network(offline_home):
    assert load_dataset("synthetic").synthetic
    assert offline_home == []


@pytest.mark.parametrize("data", ["auto", "synthetic"])
def test_other_sets_have_no_stand_in(data, monkeypatch, tmp_path):
    # The variable is BloodMNIST's: another set must not read its file.
    monkeypatch.setenv("BLOODMNIST_NPZ", str(save(tmp_path / "b.npz", small_arrays())))
    with pytest.raises(InputError, match="DermaMNIST"):
        load_dataset(data, "dermamnist")


def test_another_medmnist_file_names_its_option(tmp_path, monkeypatch):
    """By its name where its arrays do not fit, by its md5 where they happen to."""
    grey = {key: value[..., 0] if "images" in key else value
            for key, value in small_arrays().items()}  # fmt: skip
    with pytest.raises(InputError, match="--dataset breastmnist"):
        load_dataset(save(tmp_path / "breastmnist.npz", grey))
    path = save(tmp_path / "mine.npz", small_arrays())
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(
        loading, "set_of", lambda file, known=None: "dermamnist" if known == md5 else None
    )
    with pytest.raises(InputError, match="--dataset dermamnist, whose official file it is"):
        load_dataset(path)


def test_sets_are_known_by_their_official_md5(tmp_path):
    entry = catalog_entry("dermamnist")
    assert set_of(tmp_path / "any.npz", entry.md5) == "dermamnist"
    assert set_of(tmp_path / "any.npz", "0" * 32) is None
    assert set_of(tmp_path / "pathmnist_64.npz") == "pathmnist"


def test_grey_set_gets_a_channel_axis(tmp_path):
    """OrganAMNIST: 11 classes, images stored as (N, 28, 28)."""
    arrays = small_arrays()
    arrays |= {key: value[..., 0] for key, value in arrays.items() if key.endswith("images")}
    arrays["test_labels"][0] = 10
    dataset = load_dataset(save(tmp_path / "o.npz", arrays), "organamnist")
    assert dataset.train.images.shape == (24, 28, 28, 1)
    assert (dataset.channels, dataset.num_classes) == (1, 11)
    assert "OrganAMNIST" in dataset.caption()


def test_fingerprint_names_contents_not_the_container(tmp_path):
    arrays = small_arrays()
    packed = load_dataset(save(tmp_path / "a.npz", arrays))
    np.savez(tmp_path / "b.npz", **arrays)
    plain = load_dataset(tmp_path / "b.npz")
    assert packed.md5 != plain.md5
    assert packed.fingerprint == plain.fingerprint
    for key in arrays:
        changed = {**arrays, key: arrays[key].copy()}
        changed[key][0] ^= 1
        assert load_dataset(save(tmp_path / "c.npz", changed)).fingerprint != plain.fingerprint


def test_loading_imports_neither_torch_nor_medmnist(tmp_path):
    """Also for a set that is looked up in MedMNIST's table; and no ~/.medmnist is made."""
    code = (
        "import sys; from repro.data import load_dataset, catalog_entry\n"
        "load_dataset('synthetic'); catalog_entry('pathmnist')\n"
        "assert not {'torch','torchvision','medmnist','matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_several_labels_an_image_and_another_size(tmp_path):
    """ChestMNIST at 64 px: (N, 14) of 0 and 1, and nothing else."""
    pytest.importorskip("medmnist")
    stream = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": stream.integers(0, top, shape, dtype=np.uint8)
        for split, count in (("train", 6), ("val", 2), ("test", 3))
        for what, top, shape in (("images", 256, (count, 64, 64)), ("labels", 2, (count, 14)))
    }
    found = load_dataset(save(tmp_path / "chest.npz", arrays), "chestmnist")
    assert found.multi_label
    assert (found.train.images.shape, found.num_classes) == ((6, 64, 64, 1), 14)
    assert np.array_equal(found.test.labels, arrays["test_labels"])
    assert label_counts(found.train.labels, 14) == arrays["train_labels"].sum(axis=0).tolist()
    held = partition(found.train.labels, 3)
    assert sorted(i for one in held for i in one.records) == list(range(6))
    with pytest.raises(InputError, match="labels"):
        partition(found.train.labels, 3, "dirichlet")
    for key, value, said in (
        ("val_labels", arrays["val_labels"][:, :13], r"\(2, 13\), not \(2, 14\)"),
        ("test_labels", arrays["test_labels"] + 1, "holds 2, not only 0 to 1"),
        ("test_images", arrays["test_images"][:, :28, :28], r"\(3, 28, 28\), not \(N, 64, 64, 1\)"),
    ):
        with pytest.raises(InputError, match=said):
            load_dataset(save(tmp_path / "bad.npz", arrays | {key: value}), "chestmnist")
