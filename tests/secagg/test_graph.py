"""The neighbour graph: regular, symmetric, connected, and not the server's to choose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg.graph import connected, regular_graph, viable


@given(count=st.integers(2, 60), half=st.integers(1, 30), seed=st.binary(max_size=8))
def test_regular_symmetric_and_connected(count, half, seed):
    degree = min(2 * half, count - 1)
    if degree % 2 and degree != count - 1:
        degree -= 1
    roster = range(100, 100 + count)
    graph = regular_graph(roster, degree, seed)
    assert set(graph) == set(roster)
    for one, near in graph.items():
        assert len(near) == degree
        assert one not in near
        assert all(one in graph[other] for other in near)
    assert connected(graph, roster)


@given(count=st.integers(7, 30), data=st.data())
@settings(max_examples=50)
def test_harary_graph_needs_k_losses_to_fall_apart(count, data):
    """Any k − 1 hospitals can go and the rest is in one piece (Harary 1962)."""
    graph = regular_graph(range(count), 4, b"seed")
    gone = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    assert connected(graph, set(range(count)) - gone)


def test_the_order_depends_on_every_seed():
    """Neighbourhoods of different rounds are unrelated: over 50 seeds all pairs meet."""
    met = {frozenset((i, j)) for s in range(50) for i, near in graph_of(s).items() for j in near}
    assert len(met) == 20 * 19 // 2


def graph_of(seed):
    return regular_graph(range(20), 4, bytes([seed]))


def test_viable_peels_until_everyone_has_enough_holders():
    graph = regular_graph(range(10), 4, b"")
    assert viable(graph, range(10), 4) == set(range(10))
    assert viable(graph, range(10), 5) == set(range(10))
    assert viable(graph, range(9), 5) == set()
    assert viable(graph, [], 3) == set()


@pytest.mark.parametrize(("count", "degree"), [(5, 0), (5, 5), (6, 3), (2, 2)])
def test_degrees_without_a_graph_are_bad_input(count, degree):
    with pytest.raises(InputError):
        regular_graph(range(count), degree, b"")
