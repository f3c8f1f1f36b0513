"""Streams: reproducible, separated by purpose and ids, and never shown."""

import pytest

from repro.errors import InputError
from repro.randomness import RootSeed


def test_same_seed_same_keys_and_other_names_other_keys():
    seed = RootSeed.from_user(7)
    assert seed.derive("noise", 3) == RootSeed.from_user(7).derive("noise", 3)
    keys = {seed.derive(p, *ids) for p in ("noise", "order") for ids in [(), (1,), (1, 2), ("1",)]}
    assert len(keys) == 8
    # Length prefixes: moving a character between parts is another stream.
    assert seed.derive("ab", "c") != seed.derive("a", "bc")


def test_entropy_differs_and_says_so():
    one, two = RootSeed.from_entropy(), RootSeed.from_entropy()
    assert one.derive("noise") != two.derive("noise")
    assert one.source == "operating system entropy"
    assert RootSeed.from_user(0).source == "user seed"


def test_repr_hides_the_root():
    seed = RootSeed.from_entropy()
    assert seed.root.hex() not in repr(seed)
    assert repr(seed.root) not in repr(seed)


@pytest.mark.parametrize("bad", [-1, 2**64, True])
def test_bad_seeds_are_refused(bad):
    with pytest.raises(InputError, match="seed: got"):
        RootSeed.from_user(bad)
