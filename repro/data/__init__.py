"""Data: which images, where they come from, and how hospitals share them. NumPy only.

- ``catalog``: what MedMNIST says about each of its data sets;
- ``loading``: the file a run trains on, or the synthetic stand-in, and its name;
- ``synthetic``: blood-cell-like images for machines without the real ones;
- ``hospitals``: who holds which training records.
"""

from repro.data.catalog import BLOODMNIST, CatalogEntry, catalog_entry
from repro.data.dataset import Dataset, Split
from repro.data.hospitals import (
    SCHEMES,
    HospitalRecords,
    authors_sizes,
    check_partition,
    label_counts,
    partition,
    partition_authors,
)
from repro.data.loading import load_dataset

__all__ = [
    "BLOODMNIST",
    "SCHEMES",
    "CatalogEntry",
    "Dataset",
    "HospitalRecords",
    "Split",
    "authors_sizes",
    "catalog_entry",
    "check_partition",
    "label_counts",
    "load_dataset",
    "partition",
    "partition_authors",
]
