"""Clip, sum and noise in one call: the Triton kernel on CUDA, its reference elsewhere.

    python examples/kernel.py

The numbers are a function of (seed, step, flat index), so both backends, any batch split and any
device give the same noise.
"""

import torch

from repro.kernels import clip_and_noise


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    # Per-record gradients of two parameters, as repro.privacy.per_sample_gradients gives them.
    weight = torch.randn(64, 20, 10, generator=generator).to(device)
    bias = torch.randn(64, 20, generator=generator).to(device)

    total, report = clip_and_noise(
        [weight, bias],
        clip_norm=14.8,
        noise_multiplier=0.1,
        seed=2024,
        step=0,  # never use a (seed, step) pair twice
        return_report=True,
    )
    print(f"{report.clipped} of 64 records were clipped; the sum has {total.numel()} numbers")

    silent = {"clip_norm": 14.8, "noise_multiplier": 0.0, "seed": 2024, "step": 0}
    without = clip_and_noise([weight, bias], **silent)
    noise = total - without
    print(f"on {device}: deviation of the noise {noise.std():.2f} (1.48 expected)")


if __name__ == "__main__":
    main()
