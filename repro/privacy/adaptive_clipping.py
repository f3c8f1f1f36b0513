"""Adaptive clipping: a clip norm that follows a quantile of the gradients' norms, privately.

Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv 1905.03871), for records. A step at clip norm C
releases two sums over its batch, together:

    Σ clip(g_i) + N(0, (z_Δ C)² I)      and      Σ (b_i − ½) + N(0, σ_b²),

b_i = 1 if ‖g_i‖ ≤ C, else 0 (so for a gradient that is not finite). The next step's clip norm is

    C · exp(−η (b̃ − γ)),   b̃ = ½ + (the second sum) ÷ expected batch      (Algorithm 1, line 15).

**Proof that both cost one step at noise multiplier z** with z⁻² = z_Δ⁻² + (2σ_b)⁻² (Theorem 1).
Divide the first sum by z_Δ C and the second by σ_b: both then carry noise of deviation 1, and a
record's part of the two, as one vector, has squared L2 norm at most

    (C ÷ z_Δ C)² + (½ ÷ σ_b)² = z_Δ⁻² + (2σ_b)⁻² = z⁻²,

since |b_i − ½| = ½ whatever the record is. So the two are one Gaussian release at noise multiplier
z, of one Poisson batch: the event that is accounted for, at whatever C, which is public by the
earlier releases alone. The clip norm and all that follows from it is post-processing. As with the
sum, this is of exact arithmetic: a norm within rounding of C may be counted either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from repro.checks import Number, check_above_zero, check_positive, check_zero_or_above
from repro.errors import InputError
from repro.privacy.noise import gaussian_noise
from repro.privacy.noise_key import digest, noise_keys
from repro.privacy.step import NoisySum
from repro.randomness import RootSeed

_RANGE = 1e-15, 1e15  # of a ``Clipping``'s clip norm


@dataclass(frozen=True)
class AdaptiveClipping:
    """What of the gradients' norms the clip norm follows, and how; all of it public.

    quantile: γ in [0, 1], the part of the records that is not to be clipped.
    rate: η, at least 0: how fast. The clip norm changes by a factor of e^±η a step at most, but
        for the noise of the count.
    count_noise: σ_b, deviation of the noise on the count of a batch's records that are not
        clipped; above half the noise multiplier z, or nothing is left for the sum. None: a
        twentieth of the expected batch (as in the paper), or 2z where that is more, so that the
        sum's own noise multiplier z_Δ grows by 3.3 % at most.
    """

    quantile: Number = 0.5
    rate: Number = 0.2
    count_noise: Number | None = None

    def __post_init__(self) -> None:
        check_zero_or_above(self, "quantile", "rate")
        if self.quantile > 1:
            raise InputError("quantile", self.quantile, "a number from 0 to 1")
        if self.count_noise is not None:
            check_above_zero(self, "count_noise")

    def noises(self, noise_multiplier: Number, expected_batch: Number) -> tuple[float, float]:
        """(z_Δ, σ_b) of steps that cost one Gaussian release at ``noise_multiplier`` each.

        Raises InputError for a ``count_noise`` too small for any z_Δ.
        """
        z = check_positive("noise_multiplier", noise_multiplier)
        default = max(check_positive("expected_batch", expected_batch) / 20, 2 * z)
        count = default if self.count_noise is None else float(self.count_noise)
        share = z / (2 * count)
        left = 1 - share**2 if share < 1 else 0.0
        if not left > 0:
            raise InputError("count_noise", count, f"above half the noise multiplier, {z / 2:.6g}")
        return z / math.sqrt(left), count

    def next_clip_norm(
        self,
        clip_norm: float,
        summed: NoisySum,
        *,
        count_noise: float,
        expected_batch: float,
        seed: RootSeed,
        step: int,
    ) -> float:
        """C of the next step; ``summed`` is of flat clipping at ``clip_norm``. Adds the noise."""
        within = summed.records - summed.clipped - summed.non_finite
        centred = within - summed.records / 2  # Σ (b_i − ½), exact in float64
        key = seed.derive("make-private clipped count")
        covered = digest(
            torch.tensor([centred, clip_norm], dtype=torch.float64),
            note=f"deviation {count_noise!r}",
        )
        noise_keys.use_word("clipped count", key, covered, step=step)
        noise = gaussian_noise(1, std=count_noise, seed=key, step=step, dtype=torch.float64)
        fraction = 0.5 + (centred + float(noise)) / expected_batch
        # Algorithm 1, line 15: geometric, so that scales do not matter.
        logarithm = math.log(clip_norm) - float(self.rate) * (fraction - float(self.quantile))
        smallest, largest = _RANGE
        return min(max(math.exp(min(logarithm, 40)), smallest), largest)


class ClipNorm:
    """The clip norm of a training's next step, ``value``: constant, or following a quantile.

    sum_noise: the noise multiplier of the sum: z, or z_Δ.
    """

    def __init__(
        self,
        first: float,
        noise_multiplier: float,
        adaptive: AdaptiveClipping | None,
        *,
        expected_batch: float,
        seed: RootSeed,
    ) -> None:
        self.value = self.first = first
        self.sum_noise, self._count_noise = noise_multiplier, 0.0
        if adaptive is not None:
            self.sum_noise, self._count_noise = adaptive.noises(noise_multiplier, expected_batch)
        self._adaptive, self._expected_batch, self._seed = adaptive, expected_batch, seed

    def after(self, summed: NoisySum, step: int) -> float:
        """What is to be ``value`` once this step is released."""
        if self._adaptive is None:
            return self.value
        return self._adaptive.next_clip_norm(
            self.value,
            summed,
            count_noise=self._count_noise,
            expected_batch=self._expected_batch,
            seed=self._seed,
            step=step,
        )

    def __str__(self) -> str:
        if self._adaptive is None:
            return f"{self.value:g}"
        return (
            f"{self.first:g} at first, then by the noisy count of norms within it, which σ "
            f"covers; now {self.value:.4g}"
        )

    def plan(self) -> dict[str, Any]:
        """What two trainings must share for one to go on from the other's state."""
        adaptive = {} if self._adaptive is None else {"adaptive_clipping": asdict(self._adaptive)}
        return adaptive | {"clip_norm": self.first}

    def state(self) -> dict[str, float]:
        return {} if self._adaptive is None else {"clip_norm": self.value}

    def load(self, state: Mapping[str, Any]) -> None:
        if self._adaptive is not None:
            self.value = float(state["clip_norm"])
