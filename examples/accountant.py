"""What a schedule of noisy steps spends, what noise a target needs, and what composes.

    python examples/accountant.py

Needs no torch: ``repro.accounting`` is numpy and scipy alone. Every ε is an upper bound.
"""

from repro.accounting import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    calibrate_noise_multiplier,
    gaussian_epsilon,
)


def main() -> None:
    delta = 1e-5

    # 1. DP-SGD: 1,000 steps, each record in a step with probability 1 %, noise 1.1 × clip norm.
    step = PoissonSampledGaussianEvent(noise_multiplier=1.1, sample_rate=0.01)
    accountant = RDPAccountant().compose(step, 1000)
    epsilon, order = accountant.epsilon(delta)
    print(f"1,000 steps: ε = {epsilon:.3f} at δ = {delta:g} (Rényi order {order:.3g})")

    # 2. Going on costs more, but less than twice as much for twice the steps.
    accountant.compose(step, 1000)
    print(f"2,000 steps: ε = {accountant.epsilon(delta)[0]:.3f}")

    # 3. Another release from the same records, e.g. a mean for normalisation, is added.
    accountant.compose(GaussianEvent(noise_multiplier=10.0))
    print(f"and one noisy mean: ε = {accountant.epsilon(delta)[0]:.3f}")

    # 4. The other way round: the noise for a target.
    sigma, spent = calibrate_noise_multiplier(3.0, delta, sample_rate=0.01, steps=2000)
    print(f"for ε = 3 in 2,000 steps: σ = {sigma:.4f} (spends {spent:.4f})")

    # 5. The paper's noise as documented: what its clip norm and σ give a hospital in 50 rounds.
    documented = gaussian_epsilon(0.698873, 7.0, 50, 1.9e-4)
    print(f"the paper's noise as documented, 50 rounds, a hospital: ε = {documented:,.0f}")


if __name__ == "__main__":
    main()
