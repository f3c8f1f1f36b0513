"""Reading a MedMNIST ``.npz`` that nobody vouches for.

An ``.npz`` is a zip of ``.npy`` members. Every member's header is checked against what the
data set must look like **before** its data is unpacked, so a small file cannot ask for a large
allocation, and pickled objects are never loaded.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from repro.data.catalog import SIDE, SPLITS, CatalogEntry
from repro.data.dataset import Split
from repro.errors import InputError

# Ten times the largest 28×28 set (PathMNIST's train split, 0.2 GB).
_LARGEST_MEMBER = 2 << 30
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


def read_npz(path: Path, entry: CatalogEntry, field: str) -> tuple[str, dict[str, Split]]:
    """The file's md5 and its three splits.

    path: a regular file; field: the option or variable that named it, for error messages.
    Raises InputError (one line) for a file that is missing, unreadable, not an ``.npz``,
    truncated, lacks an array, or holds one of another shape or dtype, or a label out of range.
    The number of images is the file's own; only the official file must have the official one.
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
                splits = {name: _read_split(archive, name, entry) for name in SPLITS}
        except _Unfit as error:
            raise InputError(field, str(path), f"{expected}, but {error}") from error
        except _BROKEN as error:
            reason = f"it is corrupt or truncated ({str(error) or type(error).__name__})"
            raise InputError(field, str(path), f"{expected}, but {reason}") from error
    return md5.hexdigest(), splits


def _read_split(archive: zipfile.ZipFile, split: str, entry: CatalogEntry) -> Split:
    images = _read_array(archive, f"{split}_images")
    # MedMNIST stores grey images without a channel axis.
    grey_shape = (SIDE, SIDE) if entry.channels == 1 else None
    if images.dtype != np.uint8:
        raise _Unfit(f"{split}_images is {images.dtype}, not uint8")
    if images.shape[1:] == grey_shape:
        images = images[..., None]
    if images.shape[1:] != (SIDE, SIDE, entry.channels) or not len(images):
        raise _Unfit(
            f"{split}_images has shape {images.shape}, not (N, {SIDE}, {SIDE}, {entry.channels})"
        )
    labels = _read_array(archive, f"{split}_labels")
    if labels.dtype.kind not in "iu":
        raise _Unfit(f"{split}_labels is {labels.dtype}, not an integer type")
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise _Unfit(f"{split}_labels has shape {labels.shape}, not ({len(images)}, 1)")
    labels = labels.reshape(-1)
    if labels.min() < 0 or labels.max() >= entry.num_classes:
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise _Unfit(f"{split}_labels holds {worst}, not only 0 to {entry.num_classes - 1}")
    return Split(np.ascontiguousarray(images), labels.astype(np.int64))


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        raise _Unfit(f"it has no array {key}") from None
    shape, dtype, header = _read_header(archive, member)
    if dtype.hasobject:
        raise _Unfit(f"{key} holds pickled Python objects, which are never loaded")
    size = math.prod([*shape, dtype.itemsize])
    if size > _LARGEST_MEMBER or header + size != member.file_size:
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
