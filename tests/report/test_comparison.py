"""Differences between arms: paired by seed, only between runs that are alike."""

import dataclasses

import pytest

from repro.report.comparison import Paired, compare, compared, signed
from repro.report.sources import Sources
from repro.runs import RunStore
from tests.report import fake


def test_points_are_paired_by_seed(tmp_path):
    """By hand: seeds 0 and 1 were run with both, so only their differences count."""
    store = RunStore(tmp_path)
    for arm, accuracies in {"fedavg": (0.5, 0.6, 0.9), "clip-secagg": (0.4, 0.6)}.items():
        for seed, accuracy in enumerate(accuracies):
            run = fake.record(arm, 10, seed)
            store.save(dataclasses.replace(run, final_accuracy=accuracy))
    found = compare(Sources.of(tmp_path).evidence, "clip-secagg", "fedavg", 10)
    assert found is not None
    assert found.seeds == (0, 1)
    assert found.points == pytest.approx((-10.0, 0.0))
    assert found.summary.mean == pytest.approx(-5.0)
    assert found.summary.deviation == pytest.approx(10 / 2**0.5)


@pytest.mark.parametrize(
    ("points", "resolved"),
    [
        ((-1.0, -1.1, -0.9), True),  # mean −1, interval ±0.25
        ((-0.9, -0.2, -0.4), False),  # mean −0.5, interval ±0.9
        ((-5.0,), False),  # one seed tells nothing about seeds, and is said to
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_a_difference_is_resolved_when_its_interval_leaves_zero_out(points, resolved):
    paired = Paired(tuple(range(len(points))), points)
    assert paired.resolved == resolved
    one = len(points) == 1
    assert ("one seed: no interval" in str(paired)) == one
    assert ("not resolved" in str(paired)) == (not resolved and any(points) and not one)
    if any(points):
        assert all(signed(point) in str(paired) for point in points)


def test_unlike_runs_are_refused(tmp_path):
    """Longer training, another network or other images would mix two questions."""
    store = fake.store(tmp_path, ["fedavg", "clip-secagg", "scattering-fedavg"])
    evidence = Sources.of(tmp_path).evidence
    assert compare(evidence, "clip-secagg", "fedavg", 10) is not None
    with pytest.raises(ValueError, match="not alike"):
        compare(evidence, "scattering-fedavg", "fedavg", 10)
    run = fake.record("clip-secagg", 10, 0)
    longer = run.settings["local"] | {"epochs": 2}
    changed = dataclasses.replace(run, settings=run.settings | {"local": longer})
    records = [r for r in store.all() if r.run_id != run.run_id] + [changed]
    with pytest.raises(ValueError, match="not alike"):
        compare(dataclasses.replace(evidence, records=tuple(records)), "clip-secagg", "fedavg", 10)


def test_what_was_not_run_is_called_that(tmp_path):
    fake.store(tmp_path, ["fedavg"])
    evidence = Sources.of(tmp_path).evidence
    assert compare(evidence, "clip-secagg", "fedavg", 10) is None
    assert compared(evidence, "clip-secagg", "fedavg") == "not run"
