"""How likely chance places colluders and drop-outs so that a setting's promise fails.

The graph is a ring in random order (``repro.secagg.graph``), so a hospital's k neighbours are a
uniform k-subset of the other K − 1 and the confirmers a uniform C-subset of all: numbers of
colluders among them are hypergeometric, as in Bell et al., CCS 2020, section 3. Unions of bad
events are bounded by the sum of their probabilities (Boole). Colluders are fixed before the
order is known and side with the server; every hospital is lost independently at the given rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from repro.checks import check_count, check_fraction
from repro.errors import InputError
from repro.secagg.graph import check_degree
from repro.secagg.rounds import MAX_HOSPITALS, confirmer_count, usual_quorum

EXACT = 300  # hospitals up to which whole numbers of that size cost no time
_NEGLECTED = 1e-12  # numbers lost whose total probability is below this are added, not gone through


@dataclass(frozen=True)
class CommitteeRisk:
    """Upper bounds on probabilities, over the rounds asked for, each at most 1.

    Of privacy (the server and the colluders learn more than the sum of the honest):
    secrets: some honest hospital has t or more colluders among its neighbours, so that both its
        secrets come out; confirmers: 2q − C or more confirmers collude, so that two survivor
        sets are confirmed; pieces: colluders and the lost cut the graph, so that the sums of
        two groups of honest hospitals come out; privacy: any of these.
    Of completion: lost: if all are lost after they have shared, some hospital keeps fewer than
        t share holders or the confirmers fewer than a quorum. The round fails and reveals nothing.
    """

    secrets: float
    confirmers: float
    pieces: float
    privacy: float
    lost: float
    quorum: int
    confirmer_count: int


def committee_risk(
    hospitals: int,
    neighbours: int,
    threshold: int,
    colluders: int,
    drop_rate: float = 0.0,
    *,
    quorum: int = 0,
    rounds: int = 1,
) -> CommitteeRisk:
    """The risk of (K, k, t, colluders c, rate d) in one round, or in any of ``rounds``.

    quorum: 0 for the usual one. Raises InputError for settings that no round has.
    """
    hospitals = check_count("hospitals", hospitals)
    neighbours, threshold = (
        check_count("neighbours", neighbours),
        check_count("threshold", threshold),
    )
    colluders = check_count("colluders", colluders, least=0)
    drop_rate = check_fraction("drop_rate", drop_rate, zero=True)
    quorum, rounds = check_count("quorum", quorum, least=0), check_count("rounds", rounds)
    _check(hospitals, neighbours, threshold, colluders)
    count = confirmer_count(hospitals, neighbours)
    quorum = quorum or usual_quorum(hospitals, neighbours, threshold)
    if not count < 2 * quorum <= 2 * count:
        raise InputError("quorum", quorum, f"{count // 2 + 1} to {count}")
    secrets = exposed_secrets(hospitals, neighbours, threshold, colluders)
    confirmers = _at_least(2 * quorum - count, hospitals, colluders, count) if colluders else 0.0
    pieces = _pieces(hospitals, neighbours, colluders, drop_rate)
    lost = _lost(hospitals, neighbours, threshold, quorum, count, drop_rate)

    def over_rounds(probability: float) -> float:
        return min(1.0, min(rounds, 10**300) * probability)  # a float holds no more

    return CommitteeRisk(
        secrets=over_rounds(secrets),
        confirmers=over_rounds(confirmers),
        pieces=over_rounds(pieces),
        privacy=over_rounds(secrets + confirmers + pieces),
        lost=over_rounds(lost),
        quorum=quorum,
        confirmer_count=count,
    )


def exposed_secrets(hospitals: int, neighbours: int, threshold: int, colluders: int) -> float:
    """P(some honest hospital has ≥ t colluding neighbours) ≤ (K − c)·P(X ≥ t) with
    X ~ Hypergeometric(K − 1, c, k): Boole over the honest (Bell et al. 2020, section 3)."""
    honest = hospitals - colluders
    return min(1.0, honest * _at_least(threshold, hospitals - 1, colluders, neighbours))


def cut_ring(hospitals: int, reach: int, removed: int) -> float:
    """P(a ring with neighbours within ``reach`` falls into pieces without ``removed`` of its K).

    It does iff there are two gaps of ``reach`` or more removed in a row. Such a gap is a place
    that is left, followed by r removed ones: an arc of r + 1, and no two overlap. j arcs fit a
    ring in K/(K − jr)·C(K − jr, j) ways, each hit with probability C(K − j(r+1), m − jr)/C(K, m);
    S_j is the product, and P(at least 2) = Σ_{j ≥ 2} (−1)^j (j − 1) S_j (Feller I, section
    IV.5). Exact up to ``EXACT`` hospitals, above that its first term, which is a bound.
    """
    total, sign = Fraction(0), 1
    every = math.comb(hospitals, removed)
    for j in range(2, removed // reach + 1):
        spare = hospitals - j * (reach + 1)
        if spare < 0 or removed - j * reach > spare:
            break
        arcs = Fraction(hospitals, hospitals - j * reach) * math.comb(hospitals - j * reach, j)
        total += sign * (j - 1) * arcs * math.comb(spare, removed - j * reach) / every
        if hospitals > EXACT:
            break
        sign = -sign
    return min(1.0, float(total))


def _pieces(hospitals: int, neighbours: int, colluders: int, drop_rate: float) -> float:
    """``cut_ring`` without the colluders and D ~ Binomial(K − c, d) lost, averaged over D."""
    if neighbours == hospitals - 1:
        return 0.0
    if drop_rate == 0:
        return cut_ring(hospitals, neighbours // 2, colluders)
    from scipy.stats import binom  # 0.4 s, which every command would spend at its start

    honest = hospitals - colluders
    low, high = (int(binom.ppf(q, honest, drop_rate)) for q in (_NEGLECTED / 2, 1 - _NEGLECTED / 2))
    likely = range(max(0, low - 1), min(honest, high + 1) + 1)
    cut = sum(
        float(binom.pmf(d, honest, drop_rate)) * cut_ring(hospitals, neighbours // 2, colluders + d)
        for d in likely
    )
    return cut + _NEGLECTED


def _lost(
    hospitals: int, neighbours: int, threshold: int, quorum: int, count: int, rate: float
) -> float:
    """P(some secret has < t of its k + 1 holders left, or < q of C confirmers are left), at
    most: holders left are Binomial(k + 1, 1 − d), Boole over K hospitals and the quorum."""
    from scipy.stats import binom

    holders = hospitals * float(binom.cdf(threshold - 1, neighbours + 1, 1 - rate))
    return min(1.0, holders + float(binom.cdf(quorum - 1, count, 1 - rate)))


def _at_least(least: int, population: int, marked: int, drawn: int) -> float:
    """P(X ≥ least), X ~ Hypergeometric: marked ones among ``drawn`` of a population. Exact."""
    ways = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(max(least, 0), min(marked, drawn) + 1)
    )
    return float(Fraction(ways, math.comb(population, drawn)))


def _check(hospitals: int, neighbours: int, threshold: int, colluders: int) -> None:
    if not 2 <= hospitals <= MAX_HOSPITALS:
        raise InputError("hospitals", hospitals, f"2 to {MAX_HOSPITALS}")
    check_degree(neighbours, hospitals)
    if not neighbours < 2 * threshold <= 2 * (neighbours + 1):
        expected = f"more than half of the {neighbours} neighbours, at most {neighbours + 1}"
        raise InputError("threshold", threshold, expected)
    if colluders >= hospitals:
        raise InputError("colluders", colluders, f"0 to {hospitals - 1}")
