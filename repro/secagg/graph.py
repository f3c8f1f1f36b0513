"""Who masks with whom: the k-regular graph of Bell et al. 2020 (SecAgg+), section 3.

A Harary graph on a ring in random order: everybody's neighbours are the k/2 next on either
side; k = K − 1 is Bonawitz et al.'s complete graph. The order is a hash of session, number and
directory, so each hospital works out its neighbours itself and the server has no say in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from repro.checks import check_count
from repro.errors import InputError

Graph = Mapping[int, frozenset[int]]


def regular_graph(roster: Collection[int], degree: int, seed: bytes) -> dict[int, frozenset[int]]:
    """Hospital -> its ``degree`` neighbours. degree: even, or K − 1."""
    count = len(roster)
    check_degree(degree, count)
    if degree == count - 1:
        return {hospital: frozenset(roster) - {hospital} for hospital in roster}
    ring = sorted(roster, key=lambda hospital: hashed(b"repro secagg ring v2" + seed, hospital))
    reach = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    return {
        hospital: frozenset(ring[(at + step) % count] for step in reach)
        for at, hospital in enumerate(ring)
    }


def check_degree(degree: int, count: int) -> None:
    """Raise InputError for a number of neighbours that no graph of ``count`` hospitals has."""
    if check_count("neighbours", degree) >= count:
        raise InputError("neighbours", degree, f"1 to {count - 1} (hospitals - 1)")
    if degree % 2 and degree != count - 1:
        raise InputError("neighbours", degree, f"an even number, or all {count - 1} others")


def viable(graph: Graph, present: Collection[int], threshold: int) -> set[int]:
    """The largest subset in which everybody has ``threshold`` share holders, itself included."""
    left = set(present)
    while True:
        lonely = {one for one in left if len(graph[one] & left) + 1 < threshold}
        if not lonely:
            return left
        left -= lonely


def connected(graph: Graph, members: Collection[int]) -> bool:
    """Whether the graph restricted to ``members`` is in one piece (an empty one is)."""
    unseen = set(members)
    frontier = {unseen.pop()} if unseen else set()
    while frontier:
        frontier = {n for one in frontier for n in graph[one]} & unseen
        unseen -= frontier
    return not unseen


def hashed(seed: bytes, hospital: int) -> bytes:
    """SHA-256 of both: sorting by it is a permutation nobody can steer without the seed."""
    return hashlib.sha256(seed + hospital.to_bytes(8, "little")).digest()
