"""Noise that later steps partly take back: DP-FTRL with a banded Toeplitz matrix (BandMF).

Choquette-Choo et al. 2023 (arXiv 2306.08153), with the Toeplitz strategies of McKenna 2024 (arXiv
2405.15913). C is a T × T lower-triangular Toeplitz matrix with entries c_0 … c_{b−1} down its b
bands, Σ c_k² = 1. Where DP-SGD releases g_t + σζ z_t, the clipped sum of step t and fresh noise (ζ
the clip norm), this releases

    x_t = g_t + w_t,   C w = σζ z,   so   w_t = (σζ ÷ c_0) z_t − Σ_{k=1}^{b−1} r_k w_{t−k},

r_k = c_k ÷ c_0: fresh noise σ ÷ c_0 = σ √(1 + Σ r_k²) times the clip norm, which is what
``clipped_noisy_sum`` adds, less a part of the noise of the b − 1 steps before. The sum of many
steps then carries less noise, and b = 1 is DP-SGD.

Record i belongs to group i mod b, keeping its place in the data whoever else is there; step t draws
from group t mod b alone, each record of it with probability p (``PoissonSampler.bands``).

**Proof that T steps cost ⌈T ÷ b⌉ Poisson-sampled Gaussian steps of rate p and noise multiplier σ**,
for adding or removing (or zeroing out) one record, of group j.

1. Since r, σ and ζ are public, x_0 … x_t are a function of y_0 … y_t and the other way round, with
   y_t = Σ_{k<b} c_k x_{t−k} = Σ_{k<b} c_k g_{t−k} + σζ z_t (multiply by C). So what y costs is what
   x, and all that an optimizer makes of it, costs. In y the noise is fresh and independent.
2. The record can be in g_s only for s = j, j + b, j + 2b, …, and g_s is in the rows s … s + b − 1
   of y alone. So these rows are a block of their own; rows before the first are free of the record.
3. Take the block of s, given all rows before it and the other records' draws (of batches, dropout
   and augmentation: none depends on this record). Whether it is drawn is one coin of bias p. If it
   is, its clipped gradient h at step s, fixed by the rows before and ‖h‖ ≤ ζ, adds c_k h to row
   s + k; if it is not, or the data lacks it, nothing. Everything else in a row but z is a function
   of earlier rows and the other records, the same one in all cases (other records' gradients
   depend on this one through x only). Taking it off, row by row, is invertible: the block is
   N(0, (σζ)² I) without the record, and with it
   (1 − p) N(0, (σζ)² I) + p N((c_0 h, …, c_{b−1} h), (σζ)² I), a shift of length
   ‖h‖ √Σ c_k² ≤ ζ. That is one Gaussian release at noise multiplier σ of a Poisson batch of rate p.
4. The blocks, at most ⌈T ÷ b⌉, compose adaptively: ``repro.accounting.banded_event``. ∎

Two things follow. The last block may be cut short by the end, which only shortens its shift, so the
ε of the steps so far needs no finished block. And the noise may be begun anew at any step u (no w
before u is taken back): rows from u on then hold no g from before u, so each block loses rows and
wins none. As elsewhere, all this is of exact arithmetic.

**The noise of past steps is a secret**: x_t − w_t is the clipped sum itself. Only a training whose
seed the user chose, whose noise hides nothing, writes it to its state; any other begins it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.signal import lfilter
from torch import Tensor

from repro.checks import check_count
from repro.errors import InputError
from repro.privacy.noise import gaussian_noise
from repro.privacy.step import NoisySum, unflatten

Coefficients = tuple[float, ...]
_MOST_STEPS = 10**7


def banded_coefficients(bands: int, steps: int) -> Coefficients:
    """r_1 … r_{b−1} of the matrix with the smallest mean squared error of all T prefix sums.

    Found by L-BFGS-B from the square root of the matrix of ones, (1 − x)^−½, whose coefficients
    are binom(2k, k) 4^−k (Fichtenberger, Henzinger, Upadhyay 2023, arXiv 2202.11205), cut off at
    b. Privacy holds for whatever is found. Raises InputError unless 1 ≤ bands ≤ steps
    (≤ 10⁷ for more than one).
    """
    bands, steps = check_count("bands", bands), check_count("steps", steps)
    if bands > steps:
        raise InputError("bands", bands, f"at most the number of steps, {steps}")
    if bands > 1:
        _check_memory(steps)
    return _coefficients(bands, steps)


def _check_memory(steps: int) -> None:
    if steps > _MOST_STEPS:
        raise InputError("steps", steps, f"at most {_MOST_STEPS:,} with bands: a number each")


@lru_cache(maxsize=64)
def _coefficients(bands: int, steps: int) -> Coefficients:
    if bands == 1:
        return ()
    lags = np.arange(1, bands)
    found = minimize(
        _error_and_slope,
        np.cumprod((2 * lags - 1) / (2 * lags)),
        (steps,),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * (bands - 1),
    )
    return tuple(float(value) for value in found.x)


def prefix_sum_error(bands: int, steps: int) -> float:
    """Root mean squared error of the T prefix sums of g, in units of σζ: ‖A C⁻¹‖_F ÷ √T.

    A is the lower-triangular matrix of ones. √((T + 1) ÷ 2) at ``bands`` 1. To choose ``bands``,
    multiply by the σ that each needs at the wanted ε: more bands take back more noise, but need
    more of it.
    """
    steps = check_count("steps", steps)
    _check_memory(steps)
    error, _ = _error_and_slope(np.array(banded_coefficients(bands, steps)), steps)
    return float(np.exp(error / 2))


def _error_and_slope(r: np.ndarray, steps: int) -> tuple[float, np.ndarray]:
    """log(‖A C⁻¹‖_F² ÷ T) for C of unit columns, and its gradient by r_1 … r_{b−1}.

    A C⁻¹ is Toeplitz too, with first column c_0⁻¹ s, s the series 1 ÷ ((1 − x)(1 + Σ r_k x^k)): s_t
    stands in T − t places, and c_0⁻² = 1 + Σ r_k². (The last columns of C are cut short by the end;
    their norm is below 1.) The gradient is by the adjoint recursion, run backwards.
    """
    series = np.concatenate([[1.0], r])
    s = lfilter([1.0], series, np.ones(steps))
    weights = np.arange(steps, 0, -1) / steps
    squares, size = float(weights @ s**2), float(series @ series)
    adjoint = lfilter([1.0], series, (2 * weights * s)[::-1])[::-1]
    slope = [-float(adjoint[k:] @ s[:-k]) for k in range(1, len(series))]
    return float(np.log(size * squares)), 2 * r / size + np.array(slope) / squares


class BandedNoise:
    """The noise of a training's steps, past and next: w above. Independent draws at ``bands`` 1."""

    def __init__(self, bands: int, steps: int) -> None:
        self.bands = bands
        self._coefficients = banded_coefficients(bands, steps)
        # Step -> w, (P,); by step, so that one that is tried again does not take itself back.
        self._past: dict[int, Tensor] = {}

    @property
    def fresh(self) -> float:
        """1 ÷ c_0, at least 1: a step's own noise multiplier ÷ σ."""
        return float((1 + sum(r * r for r in self._coefficients)) ** 0.5)

    @torch.no_grad()
    def less_the_past(self, noisy: NoisySum, *, std: float, seed: int, step: int) -> NoisySum:
        """x_t of g_t + (σζ ÷ c_0) z_t, in place; ``std``, ``seed`` and ``step`` as that noise's."""
        if self.bands == 1:
            return noisy
        taken = torch.zeros_like(noisy.flat)
        for lag, coefficient in enumerate(self._coefficients, start=1):
            if (past := self._past.get(step - lag)) is not None:
                taken.add_(past.to(taken), alpha=coefficient)
        # Drawn a second time: nobody hands out a sum and its noise apart.
        drawn = gaussian_noise(
            len(taken), std=std, seed=seed, step=step, dtype=taken.dtype, device=taken.device
        )
        self._past = {s: row for s, row in self._past.items() if s > step - self.bands}
        self._past[step] = drawn.sub_(taken)
        flat = noisy.flat.sub_(taken)
        return replace(noisy, flat=flat, gradient=unflatten(flat, noisy.gradient))

    def plan(self) -> dict[str, int]:
        """What two trainings must share for one to go on from the other's state."""
        return {} if self.bands == 1 else {"bands": self.bands}

    def state(self, *, secret: bool) -> dict[str, Any]:
        """secret: the noise hides something, so the state is without it."""
        if self.bands == 1:
            return {}
        past = {} if secret else {step: row.clone() for step, row in self._past.items()}
        return {"band_coefficients": list(self._coefficients), "past_noise": past}

    def load(self, state: Mapping[str, Any]) -> None:
        """One C for all steps: the state's, should another machine have found other digits."""
        if self.bands == 1:
            return
        self._coefficients = tuple(float(value) for value in state["band_coefficients"])
        self._past = {step: row.clone() for step, row in state["past_noise"].items()}
