"""What MedMNIST says about its data sets: classes, channels, split sizes, md5, address.

Every 2D set in each of the sizes that it is published in, with one label an image or several.

BloodMNIST's entry is written out here, so the paper's main job needs no ``medmnist``.
Every other entry is read from MedMNIST's own table when it is asked for.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro.errors import InputError, MissingDependency

SPLITS = ("train", "val", "test")
SIDE = 28  # pixels; MedMNIST's standard size
SIDES = (SIDE, 64, 128, 224)  # the sizes of MedMNIST+ (version 3)
# MedMNIST tasks: an image has exactly one of the labels, or any number of them.
_SINGLE_LABEL = ("multi-class", "binary-class", "ordinal-regression")
_MULTI_LABEL = "multi-label, binary-class"


@dataclass(frozen=True)
class CatalogEntry:
    """One MedMNIST data set in one size.

    ``sizes`` holds the number of images of train, val and test; ``md5`` is the official file's.
    side: of the square images, pixels, one of ``SIDES``. multi_label: may an image have none or
    several of the labels at once, as in ChestMNIST? Then ``class_names`` names the labels.
    """

    name: str
    title: str
    channels: int
    class_names: tuple[str, ...]
    sizes: tuple[int, int, int]
    md5: str
    url: str
    side: int = SIDE
    multi_label: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


# Source: medmnist 3.0.2, INFO["bloodmnist"]; class 3 is "immature granulocytes(myelocytes,
# metamyelocytes and promyelocytes)" there, too long for a figure's legend.
BLOODMNIST = CatalogEntry(
    name="bloodmnist",
    title="BloodMNIST",
    channels=3,
    class_names=(
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocyte",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    sizes=(11_959, 1_712, 3_421),
    md5="7053d0359d879ad8a5505303e11de1dc",
    url="https://zenodo.org/records/10519652/files/bloodmnist.npz?download=1",
)


def catalog_entry(name: str = "bloodmnist") -> CatalogEntry:
    """The entry called ``name`` (MedMNIST's lower-case flag, e.g. ``"pathmnist"``), 28 px.

    Raises InputError for an unknown name and a 3D set, and MissingDependency where another set
    than BloodMNIST is asked for without ``medmnist``.
    """
    if name == BLOODMNIST.name:
        return BLOODMNIST
    table = _medmnist_table(name)
    if name not in table:
        usable = ", ".join(key for key, row in table.items() if _refusal(key, row) is None)
        raise InputError("dataset", name, f"one of MedMNIST's 2D sets: {usable}")
    row = table[name]
    refusal = _refusal(name, row)
    if refusal is not None:
        raise InputError("dataset", name, f"a 2D set for classification, but {refusal}")
    return CatalogEntry(
        name=name,
        title=row["python_class"],
        channels=int(row["n_channels"]),
        class_names=tuple(row["label"][str(i)] for i in range(len(row["label"]))),
        sizes=tuple(int(row["n_samples"][split]) for split in SPLITS),  # type: ignore[arg-type]
        md5=row["MD5"],
        url=row["url"],
        multi_label=row["task"] == _MULTI_LABEL,
    )


def entry_of_side(entry: CatalogEntry, side: int) -> CatalogEntry:
    """The same set in images of ``side`` pixels, one of ``SIDES``.

    md5 and url are empty where MedMNIST's table is not there to say them (BloodMNIST without
    ``medmnist``): a file is then not recognised as the official one.
    """
    if side == entry.side:
        return entry
    try:
        row = _medmnist_table(entry.name)[entry.name]
    except MissingDependency:
        row = {}
    return replace(entry, side=side, md5=row.get(f"MD5_{side}", ""), url=row.get(f"url_{side}", ""))


def flat_sets() -> tuple[str, ...]:
    """MedMNIST's flags of all its 2D sets, BloodMNIST first; that one alone without its table."""
    try:
        table = _medmnist_table("medmnist")
    except MissingDependency:
        return (BLOODMNIST.name,)
    usable = [name for name, row in table.items() if _refusal(name, row) is None]
    return tuple(sorted(usable, key=lambda name: name != BLOODMNIST.name))


def set_of(file: Path, md5: str | None = None) -> str | None:
    """The MedMNIST set that a file is, by its md5 or else by its name; None where neither says."""
    try:
        table = _medmnist_table(file.stem)
    except MissingDependency:
        return None
    by_md5 = next((name for name, row in table.items() if md5 and md5 in row.values()), None)
    return by_md5 or next((name for name in table if file.stem.startswith(name)), None)


def _refusal(name: str, row: dict[str, Any]) -> str | None:
    """Why a set of MedMNIST's table cannot be used, or None."""
    if name.endswith("3d"):
        return f"{row['python_class']} holds 3D volumes"
    if row["task"] not in (*_SINGLE_LABEL, _MULTI_LABEL):
        return f"{row['python_class']} is {row['task']}"
    return None


def _medmnist_table(name: str) -> dict[str, dict[str, Any]]:
    """``medmnist.INFO``, without importing ``medmnist``.

    Importing it would load torchvision and make a directory in the user's home, all for one
    literal; so the literal is read from its source file instead.
    """
    spec = importlib.util.find_spec("medmnist")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        source = Path(folder, "info.py")
        if source.is_file():
            for statement in ast.parse(source.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.Assign) and _assigns(statement, "INFO"):
                    table: dict[str, dict[str, Any]] = ast.literal_eval(statement.value)
                    return table
    raise MissingDependency("medmnist", f"data set {name!r}", "pip install 'medmnist>=3.0'")


def _assigns(statement: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
