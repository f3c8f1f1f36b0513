"""No file, however broken, costs more than one clear line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.cli import main
from repro.data import BLOODMNIST, load_dataset
from repro.data.npz import read_npz
from repro.errors import InputError
from tests.data.files import BAD_FILES, save, small_arrays


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("way", ["option", "environment"])
def test_bad_file_is_one_line_exit_2_and_nothing_left(case, way, tmp_path, monkeypatch, capsys):
    """Through the command line, by option and by environment: refused, never replaced."""
    write, word = BAD_FILES[case]
    path = tmp_path / "blood.npz"
    write(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["partition", "--hospitals", "2", "--json"]
    if way == "option":
        monkeypatch.delenv("BLOODMNIST_NPZ", raising=False)
        command += ["--data", str(path)]
    else:
        monkeypatch.setenv("BLOODMNIST_NPZ", str(path))
    assert main(command) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert word in printed.err
    assert printed.err.startswith(
        "repro partition: " + ("data: " if way == "option" else "BLOODMNIST_NPZ: ")
    )
    assert [p.name for p in tmp_path.iterdir()] == ["blood.npz"]


@pytest.mark.parametrize("name", ["nowhere.npz", ".", "a\0b", "x" * 5000, "~nobody-here/x.npz", ""])
def test_path_that_is_no_file_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="data: got"):
        load_dataset(name)


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="not a regular file"):
        load_dataset(tmp_path / "pipe.npz")


def test_small_zip_cannot_ask_for_a_large_allocation(tmp_path):
    """A bomb that does hold what it claims (3 GB of zeros in 3 MB) is refused by its header."""
    path = save(tmp_path / "bomb.npz", {"train_labels": np.zeros((24, 1), np.uint8)})
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train_images.npy", "w", force_zip64=True) as member,
    ):
        shape = (1_300_000, 28, 28, 3)
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        zeros = bytes(1 << 20)
        left = int(np.prod(shape))
        while left:
            left -= member.write(zeros[: min(left, len(zeros))])
    with pytest.raises(InputError, match="claims 30"):
        read_npz(path, BLOODMNIST, "data")


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    arrays = small_arrays()
    # Uncompressed and small, so that damage reaches headers and the zip's directory, too.
    arrays = {key: value[:3] for key, value in arrays.items()}
    np.savez(folder / "good.npz", **arrays)
    return (folder / "good.npz").read_bytes()


@settings(max_examples=500)
@given(data=st.data())
def test_damage_is_detected_or_harmless(data, good_bytes, tmp_path_factory):
    """Bytes changed, cut or inserted anywhere: an InputError of one line, or the same arrays."""
    content = bytearray(good_bytes)
    # The first and last 2 kB hold a header and the zip's directory; hit them more often.
    place = data.draw(
        st.one_of(
            st.integers(0, 2000),
            st.integers(len(content) - 2000, len(content) - 1),
            st.integers(0, len(content) - 1),
        )
    )
    damage = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    if damage == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        del content[place:]
    elif damage == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        del content[place : place + data.draw(st.integers(1, 100))]
    path = tmp_path_factory.mktemp("damaged") / "x.npz"
    path.write_bytes(bytes(content))
    try:
        dataset = load_dataset(path)
    except InputError:
        return  # one line by construction; any other exception fails the test
    expected = small_arrays()
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        assert np.array_equal(split.images, expected[f"{name}_images"][:3])
        assert np.array_equal(split.labels, expected[f"{name}_labels"][:3, 0])
