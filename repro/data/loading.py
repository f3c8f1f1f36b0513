"""Which file a run trains on: real data first, and never a silent substitute.

Order for ``data="auto"``: the file named by ``BLOODMNIST_NPZ``, MedMNIST's cache, MedMNIST's
download, and only then the synthetic stand-in, with a loud line. A file that somebody named
is used or refused, never replaced.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from repro.data.catalog import BLOODMNIST, CatalogEntry, catalog_entry, set_of
from repro.data.dataset import Dataset, Origin
from repro.data.download import DownloadFailed, download
from repro.data.npz import read_npz
from repro.errors import InputError

ENVIRONMENT = "BLOODMNIST_NPZ"
# BloodMNIST's 17,092 source images, cropped, scaled and split again by others than MedMNIST.
REBUILT_MD5 = "6eb690fca0c61ed471ccfc1cdfa8548d"


def load_dataset(data: str | os.PathLike[str] = "auto", name: str = "bloodmnist") -> Dataset:
    """Load a MedMNIST data set.

    data: ``"auto"`` (see the module), ``"synthetic"``, or the path of an ``.npz`` file with
        MedMNIST's arrays; name: MedMNIST's flag of any 2D set. A named file may have images of
        any of MedMNIST's sizes (28, 64, 128, 224 px); what is downloaded has 28.
    A file whose md5 is not the official one works, and its ``source`` says what it is.
    Raises InputError for an unknown set, a bad file, a cached file with a wrong md5, and where
    there is neither a file nor a stand-in (which exists for BloodMNIST only).
    """
    entry = catalog_entry(name)
    if os.fspath(data) == "synthetic":
        return _stand_in(entry)
    if os.fspath(data) != "auto":
        return _named_file(entry, data, "data")
    chosen = os.environ.get(ENVIRONMENT)
    if chosen and entry is BLOODMNIST:
        return _named_file(entry, chosen, ENVIRONMENT)
    return _cached_or_downloaded(entry)


def medmnist_cache(entry: CatalogEntry) -> Path:
    """Where ``medmnist`` itself would keep the file."""
    return Path.home() / ".medmnist" / f"{entry.name}.npz"


def _named_file(entry: CatalogEntry, path: str | os.PathLike[str], field: str) -> Dataset:
    file = Path(os.path.expanduser(path))
    # Opening a pipe or a device could wait for ever. (os.path, unlike pathlib, answers False
    # for impossible names instead of raising.)
    if not os.path.isfile(file):
        what = "a file" if field == ENVIRONMENT else "auto, synthetic, or a file"
        found = "this is not a regular file" if os.path.exists(file) else "there is no such file"
        raise InputError(field, os.fspath(path), f"{what} with {entry.title}'s arrays; {found}")
    return _from_file(entry, file, field)


def _from_file(entry: CatalogEntry, file: Path, field: str) -> Dataset:
    try:
        md5, found, splits = read_npz(file, entry, field)
    except InputError as problem:
        other = set_of(file)
        if other in (None, entry.name):
            raise
        expected = f"{problem.expected}; a file of another set: --dataset {other}"
        raise InputError(field, problem.value, expected) from problem
    if md5 != entry.md5 and (other := set_of(Path(md5), md5)) not in (None, entry.name):
        raise InputError(field, str(file), f"--dataset {other}, whose official file it is")
    entry = found
    origin: Origin = "file"
    if md5 == entry.md5:
        origin = "official"
    elif md5 == REBUILT_MD5 and entry == BLOODMNIST:
        origin = "rebuilt"
    return Dataset(
        name=entry.name,
        title=entry.title,
        origin=origin,
        md5=md5,
        class_names=entry.class_names,
        channels=entry.channels,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )


def _cached_or_downloaded(entry: CatalogEntry) -> Dataset:
    cache = medmnist_cache(entry)
    if not cache.is_file():
        try:
            download(entry, cache)
        except DownloadFailed as failure:
            return _last_resort(entry, failure)
    dataset = _from_file(entry, cache, "MedMNIST's cache")
    if not dataset.official:
        # Nobody chose this file, so it is a broken download and not an experiment.
        raise InputError(
            "MedMNIST's cache",
            str(cache),
            f"md5 {entry.md5}, but it has {dataset.md5}: remove it, or choose it with --data",
        )
    return replace(dataset, published=True)


def _last_resort(entry: CatalogEntry, failure: DownloadFailed) -> Dataset:
    if entry is not BLOODMNIST:
        raise InputError(
            "data", "auto", f"a {entry.title} file by --data, since the {failure}"
        ) from failure
    print(
        f"repro: WARNING: no {entry.title} ({failure}); using the SYNTHETIC STAND-IN, whose"
        f" accuracies say nothing about real cells. Real data: --data FILE or {ENVIRONMENT}=FILE",
        file=sys.stderr,
    )
    return _stand_in(entry)


def _stand_in(entry: CatalogEntry) -> Dataset:
    if entry is not BLOODMNIST:
        raise InputError(
            "data", "synthetic", f"a {entry.title} file: only BloodMNIST has a stand-in"
        )
    from repro.data.synthetic import synthetic_bloodmnist

    return synthetic_bloodmnist()
