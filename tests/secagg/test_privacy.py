"""What the server and its colluders see of an honest hospital: nothing but the sum.

The exact argument is a bijection: for any two honest inputs with one sum there are keys that
turn one transcript into the other, byte for byte, so over uniform masks both are equally likely.
The tests carry that out on real transcripts, with the adversary doing all it can first.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from repro.secagg import messages, shamir
from repro.secagg.hospital import pairwise_mask_key, self_mask_key
from repro.secagg.keys import AgreementKey
from repro.secagg.masks import mask
from tests.secagg.parties import Stage


def masked_vector(round_, message):
    payload = bytes(message[56:-64])
    return messages.Masked.from_bytes(payload, round_.field, round_.dimension).vector.copy()


class Adversary:
    """The server's transcript, plus everything inside the colluding hospitals."""

    def __init__(self, stage: Stage, colluders: set[int], lost: set[int]) -> None:
        self.stage, self.colluders = stage, colluders
        self.round, self.field = stage.round, stage.round.field
        self.held = {}  # (owner, holder) -> (seed share, key share), from inside colluders
        keep = dict.fromkeys(colluders)

        def spy(phase, one, message):
            if phase == "consistency" and one in keep:
                self.held |= {(o, one): s for o, s in stage.hospitals[one]._held.items()}
            return message

        self.secrets = {i: (h._seed, h._mask_key.secret) for i, h in stage.hospitals.items()}
        self.total = play_losing(stage, lost, spy)
        sent = stage.sent
        self.masked = {i: masked_vector(self.round, m) for i, m in sent["masked"].items()}
        self.public = {
            i: messages.Advertise.from_bytes(bytes(m[56:-64])) for i, m in sent["advertise"].items()
        }
        self.revealed = {}  # owner -> holder -> share of the revealed kind
        for holder, message in sent["unmask"].items():
            for owner, share in messages.Unmask.from_bytes(bytes(message[56:-64])).shares:
                self.revealed.setdefault(owner, {})[holder] = share

    def shares_of(self, owner: int, kind: int) -> dict[int, bytes]:
        """Place -> share of one secret (0: seed, 1: key), from messages and colluders."""
        found = {h: s[kind] for (o, h), s in self.held.items() if o == owner}
        if (owner in self.masked) == (kind == 0):
            found |= self.revealed.get(owner, {})
        return {self.round.place(holder): share for holder, share in found.items()}

    def recover(self, owner: int, kind: int) -> bytes | None:
        if owner in self.colluders:
            return self.secrets[owner][kind]
        shares = self.shares_of(owner, kind)
        if len(shares) < self.round.threshold:
            return None
        return shamir.combine(shares, self.round.threshold)

    def residual(self, one: int) -> tuple[np.ndarray, set[int]]:
        """A masked input less every mask the adversary can make; and who shares the rest."""
        rest, unknown, context = self.masked[one].copy(), set(), self.round.context
        seed = self.recover(one, 0)
        if seed is not None:
            self.field.subtract_into(rest, self.mask(self_mask_key(seed, context, one)))
        for other in sorted(self.round.graph[one]):
            key = self.recover(other, 1)
            if key is None:
                unknown.add(other)
                continue
            agreement, public = AgreementKey(key), self.public[one].mask_key
            pairwise = self.mask(pairwise_mask_key(agreement, public, context, one, other))
            (self.field.subtract_into if one < other else self.field.add_into)(rest, pairwise)
        return rest, unknown

    def mask(self, key: bytes) -> np.ndarray:
        return mask(self.field, key, self.round.dimension)


def play_losing(stage: Stage, lost: set[int], spy) -> np.ndarray:
    """A round in which ``lost`` vanish before their masked input."""
    respond = stage.respond

    def losing(phase, one, message):
        if phase == "masked" and one in lost:
            raise messages.Refused("lost")
        return respond(phase, one, message)

    stage.respond = losing
    return stage.play(tamper=spy)


SETTINGS = [
    # hospitals, threshold, neighbours, colluders, lost
    (5, 3, None, {4}, set()),
    (5, 4, None, {3}, {4}),
    (7, 5, None, {0, 6}, {2}),
    (10, 4, 4, {7}, {1}),
    (12, 5, 6, {2, 9}, {5}),
]


@pytest.mark.parametrize(("hospitals", "threshold", "neighbours", "colluders", "lost"), SETTINGS)
def test_one_secret_at_most_and_masks_left(hospitals, threshold, neighbours, colluders, lost):
    """Of each honest hospital the adversary recovers the seed (it survived) or the key (it did
    not), never both; honest survivors stay tied together by masks it does not know; and with
    those unknown masks the residuals of *any* inputs of the same sum are explained exactly."""
    stage = Stage(hospitals, threshold, neighbours=neighbours, dimension=16)
    adversary = Adversary(stage, colluders, lost)
    honest = set(stage.round.roster) - colluders
    for one in honest:
        seed, key = adversary.recover(one, 0), adversary.recover(one, 1)
        assert (seed is None) == (one in lost)
        assert (key is None) == (one not in lost)
    alive = honest - lost
    residuals, ties = {}, {}
    for one in alive:
        residuals[one], ties[one] = adversary.residual(one)
        assert ties[one] <= alive  # what is unknown is shared with another honest survivor
    assert in_one_piece(ties)
    modulus = stage.round.field.modulus
    # All the adversary has is the residuals; their sum is the honest sum, as it must be …
    total = sum(residuals[one].astype(object) for one in alive) % modulus
    np.testing.assert_array_equal(total, stage.expected(sorted(alive)))
    # … and any other inputs with that sum give the same residuals under other tied masks.
    random = np.random.default_rng(1)
    other = {one: random.integers(0, modulus, 16).astype(object) for one in sorted(alive)}
    last = max(alive)
    rest = sum((v for i, v in other.items() if i != last), start=np.zeros(16, dtype=object))
    other[last] = (total - rest) % modulus
    needed = {one: (residuals[one].astype(object) - other[one]) % modulus for one in alive}
    masks = solve_masks(ties, needed, modulus)
    for one in alive:
        signed = [
            masks[min(one, n), max(one, n)] * (1 if one < n else -1) for n in sorted(ties[one])
        ]
        explained = (other[one] + sum(signed, start=np.zeros(16, dtype=object))) % modulus
        np.testing.assert_array_equal(explained, residuals[one])


def in_one_piece(ties):
    seen, todo = set(), [next(iter(ties))]
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += ties[one]
    return seen == set(ties)


def solve_masks(ties, needed, modulus):
    """Tied masks whose signed sums are ``needed``: zero off a spanning tree, leaves first."""
    root, parent, order = min(ties), {}, []
    todo = [root]
    while todo:
        one = todo.pop()
        order.append(one)
        for other in sorted(ties[one]):
            if other != root and other not in parent:
                parent[other] = one
                todo.append(other)
    masks = {(min(a, b), max(a, b)): np.zeros(16, dtype=object) for a in ties for b in ties[a]}
    for one in reversed(order[1:]):
        have = sum(
            (masks[min(one, n), max(one, n)] * (1 if one < n else -1) for n in ties[one]),
            start=np.zeros(16, dtype=object),
        )
        above = parent[one]
        sign = 1 if one < above else -1
        masks[min(one, above), max(one, above)] = (needed[one] - have) * sign % modulus
    return masks


def test_t_colluding_holders_would_break_it():
    """The bound is tight, and the adversary of these tests is no straw man: with t colluders
    among its holders a hospital's both secrets are recovered, and its input laid bare."""
    stage = Stage(5, 3, dimension=16)
    adversary = Adversary(stage, {1, 2, 3}, set())
    rest, unknown = adversary.residual(0)
    assert unknown == set()
    np.testing.assert_array_equal(rest, stage.vectors[0])


def masked_inputs(vectors, rounds):
    """(rounds, hospitals, dimension) masked inputs of fresh rounds with these inputs."""
    seen = []
    for _ in range(rounds):
        stage = Stage(3, 2, dimension=len(vectors[0]))
        stage.vectors = vectors
        stage.play()
        seen.append([masked_vector(stage.round, stage.sent["masked"][one]) for one in range(3)])
    return np.array(seen)


def test_masked_inputs_of_equal_sums_look_alike():
    """All zeros, against a spike and its negative: each hospital's masked input, the sum of two
    and their difference are uniform in both worlds (χ², 64 cells), and the worlds agree
    (two-sample Kolmogorov–Smirnov). 18 χ² and 9 KS tests at 1e-6 each: false alarm < 3e-5."""
    dimension, modulus = 20_000, 2**31 - 1
    zeros = np.zeros(dimension, dtype=np.uint32)
    spike, negative = zeros + np.uint32(12345), zeros + np.uint32(modulus - 12345)
    worlds = [[zeros, zeros, zeros], [spike, negative, zeros]]
    samples = []
    for vectors in worlds:
        seen = masked_inputs(dict(enumerate(vectors)), rounds=1)[0].astype(np.int64)
        views = list(seen)
        views += [(seen[i] + seen[j]) % modulus for i, j in itertools.combinations(range(3), 2)]
        views += [(seen[i] - seen[j]) % modulus for i, j in itertools.combinations(range(3), 2)]
        for view in views:
            counts = np.bincount(view * 64 // modulus, minlength=64)
            assert stats.chisquare(counts).pvalue > 1e-6
        samples.append(views)
    for one, other in zip(*samples, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-6


def test_the_simulated_view_matches():
    """A simulator that knows only the sum draws uniform vectors that add up to it. Real masked
    inputs less their self masks are such vectors: uniform one by one and in pairs, and their
    sum is the sum (which the server may know). χ² over 8×8 cells at 1e-6, 3 pairs."""
    stage = Stage(3, 2, dimension=20_000)
    adversary = Adversary(stage, set(), set())
    residuals = [adversary.residual(one)[0].astype(np.int64) for one in range(3)]
    modulus = stage.round.field.modulus
    np.testing.assert_array_equal(sum(residuals) % modulus, stage.expected(range(3)))
    for first, second in itertools.combinations(residuals, 2):
        cells = first * 8 // modulus * 8 + second * 8 // modulus
        assert stats.chisquare(np.bincount(cells, minlength=64)).pvalue > 1e-6


def test_fresh_keys_each_round():
    """Two rounds of one party with the same inputs share no message, key or mask."""
    first = Stage(3, 2, dimension=64)
    second = Stage(3, 2, dimension=64, party=first.party, number=2)
    second.vectors = first.vectors
    first.play()
    second.play()
    for phase in set(first.sent) - {"verify"}:  # there it is: no complaints
        for one in first.sent[phase]:
            old = first.sent[phase][one][56:-64]
            assert old != second.sent[phase][one][56:-64]
    old, new = (masked_vector(s.round, s.sent["masked"][0]) for s in (first, second))
    assert np.count_nonzero(old == new) <= 1
