"""Small BloodMNIST-shaped files, good and bad, for the tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def small_arrays() -> Arrays:
    """MedMNIST's keys, shapes and dtypes, with 24, 8 and 8 images of noise."""
    generator = np.random.default_rng(1)
    arrays: Arrays = {}
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        pixels = generator.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_images"] = pixels
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 8
    return arrays


def save(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def with_array(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """A file whose array ``key`` was changed."""

    def write(path: Path) -> None:
        arrays = small_arrays()
        arrays[key] = change(arrays[key])
        save(path, arrays)

    return write


def _without_key(path: Path) -> None:
    arrays = small_arrays()
    del arrays["val_labels"]
    save(path, arrays)


def _truncated(path: Path) -> None:
    save(path, small_arrays())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _flipped_bits(path: Path) -> None:
    save(path, small_arrays())
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def _header_only(path: Path, claimed: tuple[int, ...]) -> None:
    """A zip whose train_images claims ``claimed`` and holds no pixel at all."""
    save(path, {k: v for k, v in small_arrays().items() if k != "train_images"})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": claimed}
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", header.getvalue())


def _pickled(path: Path) -> None:
    arrays = small_arrays()
    arrays["train_labels"] = np.array([Exploding()] * 24, dtype=object)
    save(path, arrays)


class Exploding:
    """Unpickling it would fail the test loudly."""

    def __reduce__(self):
        return (_explode, ())


def _explode() -> None:
    raise AssertionError("a pickled object was loaded")


def _set(values: np.ndarray, value: int) -> np.ndarray:
    values = values.copy()
    values[3] = value
    return values


# What is wrong -> how to write it, and a word its error line must hold.
BAD_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda p: p.write_bytes(b"") and None, "corrupt or truncated"),
    "not an npz": (lambda p: p.write_bytes(b"hello" * 999) and None, "corrupt or truncated"),
    "truncated": (_truncated, "corrupt or truncated"),
    "flipped bits": (_flipped_bits, "corrupt or truncated"),
    "missing key": (_without_key, "val_labels"),
    "pickled objects": (_pickled, "pickled"),
    "zip bomb": (lambda p: _header_only(p, (10**12, 28, 28, 3)), "claims"),
    "missing pixels": (lambda p: _header_only(p, (24, 28, 28, 3)), "claims"),
    "overflowing shape": (lambda p: _header_only(p, (2**62, 2**62)), "claims"),
    "images too large": (
        with_array("test_images", lambda a: np.zeros((8, 64, 64, 3), np.uint8)),
        "test_images has shape (8, 64, 64, 3)",
    ),
    "grey images": (with_array("val_images", lambda a: a[..., 0]), "val_images has shape"),
    "flat images": (with_array("val_images", lambda a: a.ravel()), "val_images has shape"),
    "a single number": (
        with_array("train_images", lambda a: np.array(7, np.uint8)),
        "train_images has shape ()",
    ),
    "no images": (with_array("train_images", lambda a: a[:0]), "train_images has shape (0,"),
    "float images": (
        with_array("train_images", lambda a: (a / 255).astype(np.float32)),
        "train_images is float32",
    ),
    "fewer labels": (with_array("train_labels", lambda a: a[1:]), "train_labels has shape"),
    "many labels each": (
        with_array("train_labels", lambda a: np.repeat(a, 14, axis=1)),
        "train_labels has shape (24, 14)",
    ),
    "float labels": (
        with_array("train_labels", lambda a: a.astype(np.float64)),
        "train_labels is float64",
    ),
    "label too large": (with_array("test_labels", lambda a: _set(a, 8)), "test_labels holds 8"),
    "negative label": (
        with_array("test_labels", lambda a: _set(a.astype(np.int16), -1)),
        "test_labels holds -1",
    ),
}
