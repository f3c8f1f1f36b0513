"""Noise shared inside the secure sum: a federation as private, and as accurate, as one data set.

- ``NoisePlan``: how much noise each hospital adds, on which grid, and what the sum then costs;
- ``PrivateSum``: per-hospital sums in, a noisy total out;
- ``trainer``: DP-SGD on such totals.
"""

from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.sum import PlainIntegerSum, PrivateSum, ProtocolSum, Release

__all__ = ["NoisePlan", "PlainIntegerSum", "PrivateSum", "ProtocolSum", "Release"]
