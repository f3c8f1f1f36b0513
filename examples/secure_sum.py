"""A secure sum over TCP: every hospital a process of its own; the server sees only the mean.

    python examples/secure_sum.py --hospitals 5 --lose 2

``--lose 2`` kills hospital 2 (kill -9) before it sends its masked input: the others' mean still
comes out, and nothing of hospital 2 is revealed.
"""

import argparse

import numpy as np

from repro.secagg import Contribution, Encoding, Field, Party, Round
from repro.secagg.transport.loopback import run_on_loopback

LENGTH = 1000
NO_MODEL = bytes(32)  # in a federation: hashes of the global model and of the training settings,
NO_TRAINING = bytes(32)  # so that hospitals which were told different ones never meet in a sum


def values(hospital: int) -> np.ndarray:
    """What this hospital would not show to anybody: a vector, here random."""
    return np.random.default_rng(hospital).normal(0, 0.1, LENGTH).astype(np.float32)


def contribution(hospital: int) -> Contribution:
    """Called in the hospital's process: its vector, and the weight that it counts with."""
    return Contribution(values(hospital), weight=10 * (hospital + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hospitals", type=int, default=5)
    parser.add_argument("--lose", type=int, help="kill this hospital before its masked input")
    options = parser.parse_args()

    party = Party(range(options.hospitals))  # signature keys of everybody, known to everybody
    encoding = Encoding(Field(31), options.hospitals, 1.0, 100)  # values within ±1, weights ≤ 100
    round_ = Round(
        directory=party.directory,
        session=party.session,
        number=1,
        threshold=options.hospitals // 2 + 1,  # shares that are needed to unmask
        neighbours=options.hospitals - 1 - (options.hospitals - 1) % 2,
        encoding=encoding,
        length=LENGTH,
        model=NO_MODEL,
        training=NO_TRAINING,
    )
    drop = {} if options.lose is None else {"masked": {options.lose}}
    done = run_on_loopback(party, round_, contribution, drop=drop)

    decoded = encoding.decode(done.total, len(done.survivors))
    weights = np.array([10 * (one + 1) for one in done.survivors])
    truth = np.average([values(one) for one in done.survivors], axis=0, weights=weights)
    error = np.abs(decoded.mean - truth).max()
    print(f"hospitals in the sum: {', '.join(map(str, done.survivors))}; weight {decoded.weight}")
    print(f"largest error {error:.2e}, bound {decoded.max_error_bound:.2e}")
    assert error <= decoded.max_error_bound


if __name__ == "__main__":
    main()
