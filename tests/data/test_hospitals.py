"""Partitions: the authors' numbers, and what must hold for every scheme and size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.data import SCHEMES, authors_sizes, check_partition, partition, partition_authors
from repro.data.hospitals import zipf_sizes
from repro.errors import InputError

# Authors' code A on BloodMNIST's train split.
AUTHORS_10 = [1093, 1298, 761, 1631, 926, 1466, 1090, 1302, 1125, 1267]
AUTHORS_20 = [495, 700, 328, 868, 492, 704, 527, 669, 410, 786]
AUTHORS_20 += [578, 618, 496, 700, 477, 719, 384, 812, 511, 685]
TRAIN_10 = [874, 1038, 608, 1304, 740, 1172, 872, 1041, 900, 1013]
BLOODMNIST_TRAIN = 11_959

partitions = st.fixed_dictionaries(
    {
        "hospitals": st.integers(1, 40),
        "scheme": st.sampled_from(list(SCHEMES)),
        "seed": st.integers(0, 2**64 - 1),
        "alpha": st.floats(1e-6, 1e6),
        "exponent": st.floats(0, 30),
    }
)


def some_labels(count: int, classes: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, classes, count)


def test_authors_sizes_are_those_of_their_code():
    assert authors_sizes(BLOODMNIST_TRAIN, 10) == AUTHORS_10
    assert authors_sizes(BLOODMNIST_TRAIN, 20) == AUTHORS_20


def test_authors_move_less_than_half_of_a_part():
    """Whatever the generator draws from [0, ⌊0.5·⌊N/K⌋⌋): all of it sometimes, never more."""
    reached = 0
    for part in range(2, 60):
        first, second, third = authors_sizes(3 * part, 3)
        assert (first + second, third) == (2 * part, part)
        assert 0 <= part - first < part // 2
        reached += part - first == part // 2 - 1
    assert reached


@pytest.mark.parametrize("seed", [0, 1])
def test_authors_train_sizes_are_those_of_their_code(seed):
    labels = some_labels(BLOODMNIST_TRAIN)
    ten = partition(labels, 10, seed=seed)
    assert [len(hospital.train) for hospital in ten] == TRAIN_10
    twenty = partition(labels, 20, seed=seed)
    assert sum(len(hospital.train) for hospital in twenty) == 9_560


def test_authors_slices_are_contiguous_in_stored_order_and_need_no_global_generator():
    np.random.seed(7)  # noqa: NPY002 - theirs is the global generator; ours must not care
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    slices = partition_authors(BLOODMNIST_TRAIN, 10)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.array_equal(np.concatenate(slices), np.arange(BLOODMNIST_TRAIN))
    assert [len(part) for part in slices] == AUTHORS_10


@given(count=st.integers(80, 600), chosen=partitions)
def test_every_record_is_in_exactly_one_place_and_no_hospital_is_empty(count, chosen):
    shares = partition(some_labels(count), **chosen)
    assert len(shares) == chosen["hospitals"]
    everything = np.concatenate([part for s in shares for part in (s.train, s.validation)])
    assert np.array_equal(np.sort(everything), np.arange(count))
    for share in shares:
        assert len(share.train) >= 1
        assert len(share.validation) >= 1
        assert len(share.train) == int(len(share.records) * 0.8)
        assert np.array_equal(share.records, np.union1d(share.train, share.validation))


@given(chosen=partitions)
def test_same_seed_same_partition(chosen):
    labels = some_labels(300)
    for one, two in zip(partition(labels, **chosen), partition(labels, **chosen), strict=True):
        assert np.array_equal(one.train, two.train)
        assert np.array_equal(one.validation, two.validation)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_seed_is_another_split(scheme):
    labels = some_labels(500)
    one, two = (partition(labels, 5, scheme, seed=seed) for seed in (0, 1))
    assert not all(
        np.array_equal(a.train, b.train) and len(a.train) == len(b.train)
        for a, b in zip(one, two, strict=True)
    )


@given(
    count=st.integers(2, 400), fraction=st.floats(0, 0.999), scheme=st.sampled_from(list(SCHEMES))
)
def test_any_validation_fraction_leaves_something_to_train_on(count, fraction, scheme):
    (share,) = partition(some_labels(count), 1, scheme, validation_fraction=fraction)
    assert len(share.train) >= 1
    assert abs(len(share.train) - (1 - fraction) * count) <= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_as_many_hospitals_as_can_have_two_records(scheme):
    labels = some_labels(41)
    assert min(len(s.records) for s in partition(labels, 20, scheme)) == 2
    with pytest.raises(InputError, match="hospitals: got 21; expected an integer from 1 to 20"):
        partition(labels, 21, scheme)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"hospitals": 0}, "hospitals"),
        ({"hospitals": -3}, "hospitals"),
        ({"hospitals": True}, "hospitals"),
        ({"scheme": "fair"}, "scheme"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"exponent": -0.1}, "exponent"),
        ({"exponent": float("inf")}, "exponent"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": float("nan")}, "validation_fraction"),
    ],
)
def test_bad_argument_is_named_whatever_the_scheme(wrong, field):
    arguments = {"hospitals": 4, **wrong}
    with pytest.raises(InputError, match=f"^{field}: got"):
        check_partition(**arguments)
    with pytest.raises(InputError, match=f"^{field}: got"):
        partition(some_labels(100), **arguments)


def test_dirichlet_concentration_sets_the_label_skew():
    """Mean over hospitals of the largest class share: near 1 at α = 0.01, near 1/8 at α = 1e4.

    Fixed seed; with 8 hospitals the bounds 0.75 and 0.16 are far from both limits.
    """
    labels = some_labels(8000)

    def skew(alpha: float) -> float:
        shares = partition(labels, 8, "dirichlet", alpha=alpha, seed=3)
        counts = [np.bincount(labels[s.records], minlength=8) for s in shares]
        return float(np.mean([c.max() / c.sum() for c in counts]))

    assert skew(0.01) > 0.75
    assert skew(0.01) > skew(0.5) > skew(1e4)
    assert skew(1e4) < 0.16


def test_iid_and_zipf_keep_the_label_mix():
    """Each hospital's class counts against the hypergeometric mean.

    Bound: 5 deviations for 5 · 8 counts and two schemes, false alarm below 5e-5.
    """
    labels = np.sort(some_labels(8000))  # slices in stored order would be of a class or two
    for scheme in ("iid", "zipf"):
        for share in partition(labels, 5, scheme, seed=5):
            counts = np.bincount(labels[share.records], minlength=8)
            expected = len(share.records) * np.bincount(labels) / len(labels)
            assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_zipf_sizes_follow_the_law():
    """Beyond the two records that each has: 1, 1/2, 1/3 and 1/4 of 1,152 at s = 1."""
    assert zipf_sizes(2408, 4, 1.0) == [1154, 578, 386, 290]
    assert zipf_sizes(403, 4, 0.0) == [101, 101, 101, 100]
    assert zipf_sizes(100, 4, 1e9) == [94, 2, 2, 2]


def test_iid_sizes_are_equal():
    assert [len(s.records) for s in partition(some_labels(403), 4, "iid")] == [100, 101, 101, 101]
