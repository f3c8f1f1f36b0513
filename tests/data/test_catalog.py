"""MedMNIST's table, against medmnist itself."""

from __future__ import annotations

import pytest

from repro.data import BLOODMNIST, catalog, catalog_entry
from repro.data.synthetic import CLASS_COUNTS
from repro.errors import InputError, MissingDependency


@pytest.fixture(scope="module")
def published():
    return pytest.importorskip("medmnist").INFO


def test_built_in_entry_agrees_with_medmnist(published):
    row = published["bloodmnist"]
    assert BLOODMNIST.md5 == row["MD5"] == "7053d0359d879ad8a5505303e11de1dc"
    assert BLOODMNIST.url == row["url"]
    assert BLOODMNIST.channels == row["n_channels"]
    assert dict(zip(("train", "val", "test"), BLOODMNIST.sizes, strict=True)) == row["n_samples"]
    for i, name in enumerate(BLOODMNIST.class_names):
        assert row["label"][str(i)].startswith(name)
    assert tuple(sum(counts) for counts in CLASS_COUNTS.values()) == BLOODMNIST.sizes


def test_every_2d_set_is_usable_and_no_other(published):
    refused = {
        "organmnist3d",
        "nodulemnist3d",
        "adrenalmnist3d",
        "fracturemnist3d",
        "vesselmnist3d",
        "synapsemnist3d",
    }
    for name in refused:
        with pytest.raises(InputError, match=published[name]["python_class"]):
            catalog_entry(name)
    for name in set(published) - refused:
        entry, row = catalog_entry(name), published[name]
        assert (entry.md5, entry.num_classes) == (row["MD5"], len(row["label"]))
        assert (entry.channels, entry.title) == (row["n_channels"], row["python_class"])
        assert entry.sizes == tuple(row["n_samples"].values())
        assert entry.multi_label == (name == "chestmnist")
        large = catalog.entry_of_side(entry, 224)
        assert (large.side, large.md5, large.url) == (224, row["MD5_224"], row["url_224"])
    assert set(catalog.flat_sets()) == set(published) - refused
    assert catalog.flat_sets()[0] == "bloodmnist"


def test_refusals_say_why():
    with pytest.raises(InputError, match="OrganMNIST3D holds 3D volumes"):
        catalog_entry("organmnist3d")
    with pytest.raises(InputError, match=r"'bloodmist'.*bloodmnist"):
        catalog_entry("bloodmist")


def test_without_medmnist_bloodmnist_works_and_others_say_what_to_install(monkeypatch):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    assert catalog_entry("bloodmnist") is BLOODMNIST
    assert catalog.flat_sets() == ("bloodmnist",)
    assert catalog.entry_of_side(BLOODMNIST, 64).md5 == ""
    with pytest.raises(MissingDependency, match="pip install"):
        catalog_entry("pathmnist")
