"""Make the runs of an ablation. Its table and figure are drawn by ``repro.report.ablation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.ablations.base import Ablation, Cell, Conclusion
from repro.runs.profiles import Profile
from repro.runs.store import RunStore

if TYPE_CHECKING:
    from repro.data import Dataset


def run_ablation(
    ablation: Ablation,
    profile: Profile,
    dataset: Dataset,
    store: RunStore,
    *,
    hospitals: int = 10,
    seeds: Sequence[int] | None = None,
    device: str | None = None,
) -> tuple[list[Cell], Conclusion | None]:
    """Make the runs that are missing from ``store`` and return them all, variant by variant.

    seeds: None takes the ablation's own or the profile's. The runs lie in the same store as the
    matrix'; tables of the matrix leave those with other settings out.
    """
    from repro.federated.parallel.campaign import run_all

    chosen = tuple(seeds or ablation.seeds or profile.seeds)
    groups = ablation.runs(profile, hospitals, chosen)
    runs = [settings for _, group in groups for settings in group]
    records = iter(run_all(runs, dataset, store, device=device, title=ablation.name))
    cells = [Cell(label, group[0], [next(records) for _ in group]) for label, group in groups]
    return cells, ablation.conclude(cells, dataset) if ablation.conclude else None
