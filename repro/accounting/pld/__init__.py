"""Privacy loss distributions: the tight accountant of Gaussian steps, Poisson-sampled or not.

- ``profile``: the exact privacy profile of one step, in both directions;
- ``grid``: a dominating distribution of its loss on a grid (connect the dots);
- ``compose``: sums of losses by tilted FFT, tails and rounding bounded and added;
- ``convert``: (ε, δ) from the composed loss;
- ``accountant``: ``PLDAccountant``, which refines the grid until nothing is gained.
"""

from repro.accounting.pld.accountant import PLDAccountant, accounts_for

__all__ = ["PLDAccountant", "accounts_for"]
