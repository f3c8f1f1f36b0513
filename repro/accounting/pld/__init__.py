"""Privacy loss distributions: the tight accountant of Gaussian steps, Poisson-sampled or not.

- ``profile``: the exact privacy profile of one step, in both directions;
- ``grid``: its loss on a grid, from above (connect the dots) and from below (merged outcomes);
- ``plan``: where a sum of losses lies, its tilt, and how fine a grid has to be;
- ``compose``: sums of losses by tilted FFT, tails and rounding bounded and added;
- ``convert``: (ε, δ) from the composed loss, either bound;
- ``accountant``: ``PLDAccountant``.
"""

from repro.accounting.pld.accountant import PLDAccountant, accounts_for

__all__ = ["PLDAccountant", "accounts_for"]
