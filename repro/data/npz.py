"""Reading a MedMNIST ``.npz`` that nobody vouches for.

An ``.npz`` is a zip of ``.npy`` members. Every member's header is checked against what the
data set must look like **before** its data is unpacked, so a small file cannot ask for a large
allocation, and pickled objects are never loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repro.data.catalog import SIDE, SIDES, SPLITS, CatalogEntry, entry_of_side
from repro.data.dataset import Split
from repro.errors import InputError

# Ten times the largest 28×28 set (PathMNIST's train split, 0.2 GB); it has 13.5 GB at 224×224.
_LARGEST_MEMBER = {SIDE: 2 << 30}
_LARGEST_OF_OTHERS = 16 << 30
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,  # a seek to before the file's beginning, for instance
    EOFError,
    ValueError,
    SyntaxError,
    NotImplementedError,  # a compression this Python lacks
    RuntimeError,  # an encrypted member
    struct.error,
    tokenize.TokenError,  # a damaged .npy header
    OverflowError,
    MemoryError,
)


class _Unfit(Exception):
    """What is wrong with the file, as the rest of the sentence "expected …, but it …"."""


def read_npz(
    path: Path, entry: CatalogEntry, field: str, names: Sequence[str] = SPLITS
) -> tuple[str, CatalogEntry, dict[str, Split]]:
    """The file's md5, the entry in the file's own size, and the splits of these names.

    path: a regular file; field: the option or variable that named it, for error messages.
    Raises InputError (one line) for a file that is missing, unreadable, not an ``.npz``,
    truncated, lacks an array, or holds one of another shape or dtype, or a label out of range.
    The number of images is the file's own, and so is their side, one of ``SIDES``; only the
    official file must have the official ones.
    """
    expected = f"a readable .npz file with {entry.title}'s arrays"
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(field, str(path), f"{expected}: {error.strerror}") from error
    with file:
        try:
            md5 = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                md5.update(block)
            # The same handle is parsed: the md5 names the bytes that were read.
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                entry = entry_of_side(entry, _side(archive, entry))
                splits = {name: _read_split(archive, name, entry) for name in names}
        except _Unfit as error:
            raise InputError(field, str(path), f"{expected}, but {error}") from error
        except _BROKEN as error:
            reason = f"it is corrupt or truncated ({str(error) or type(error).__name__})"
            raise InputError(field, str(path), f"{expected}, but {reason}") from error
    return md5.hexdigest(), entry, splits


def _side(archive: zipfile.ZipFile, entry: CatalogEntry) -> int:
    """Of the train split's images, where it is one of ``SIDES``; else the entry's, to refuse by."""
    with contextlib.suppress(KeyError):
        shape, _, _ = _read_header(archive, archive.getinfo("train_images.npy"))
        if len(shape) > 2 and shape[1] in SIDES:
            return int(shape[1])
    return entry.side


def _read_split(archive: zipfile.ZipFile, split: str, entry: CatalogEntry) -> Split:
    side, most = entry.side, _LARGEST_MEMBER.get(entry.side, _LARGEST_OF_OTHERS)
    images = _read_array(archive, f"{split}_images", most)
    # MedMNIST stores grey images without a channel axis.
    grey_shape = (side, side) if entry.channels == 1 else None
    if images.dtype != np.uint8:
        raise _Unfit(f"{split}_images is {images.dtype}, not uint8")
    if images.shape[1:] == grey_shape:
        images = images[..., None]
    if images.shape[1:] != (side, side, entry.channels) or not len(images):
        raise _Unfit(
            f"{split}_images has shape {images.shape}, not (N, {side}, {side}, {entry.channels})"
        )
    labels = _read_array(archive, f"{split}_labels", most)
    if labels.dtype.kind not in "iu":
        raise _Unfit(f"{split}_labels is {labels.dtype}, not an integer type")
    columns, most = (entry.num_classes, 1) if entry.multi_label else (1, entry.num_classes - 1)
    flat = labels.shape == (len(images),) and not entry.multi_label
    if labels.shape != (len(images), columns) and not flat:
        raise _Unfit(f"{split}_labels has shape {labels.shape}, not ({len(images)}, {columns})")
    if labels.min() < 0 or labels.max() > most:
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise _Unfit(f"{split}_labels holds {worst}, not only 0 to {most}")
    labels = labels if entry.multi_label else labels.reshape(-1)
    return Split(np.ascontiguousarray(images), labels.astype(np.int64))


def _read_array(archive: zipfile.ZipFile, key: str, most: int) -> np.ndarray:
    """Of at most ``most`` bytes."""
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        raise _Unfit(f"it has no array {key}") from None
    shape, dtype, header = _read_header(archive, member)
    if dtype.hasobject:
        raise _Unfit(f"{key} holds pickled Python objects, which are never loaded")
    size = math.prod([*shape, dtype.itemsize])
    if size > most or header + size != member.file_size:
        raise _Unfit(f"{key} claims {size} bytes, which is too many or not what the file holds")
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_header(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length in bytes of a ``.npy`` header."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f".npy format {version}")
        return shape, dtype, stream.tell()
