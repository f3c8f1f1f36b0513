"""Claims that ship with ``repro check-claim --case NAME``, each number with its source."""

from __future__ import annotations

from repro.accounting.claim import PrivacyClaim

_NOISE_DISCARDED = (
    "Up to Flower 1.13.1 LocalDpMod computed a noised copy and discarded it: no noise was added, "
    "ε = ∞ (`--noise-discarded`); fixed in 1.14.0"
)

CASES: dict[str, tuple[str, PrivacyClaim]] = {
    "paper": (
        "arXiv 2412.00687: LocalDpMod(clipping_norm=7, sensitivity=1, epsilon=6, delta=1.9e-4), "
        "50 rounds, 10 hospitals, SecAgg+ (the authors' public code)",
        PrivacyClaim(
            clip_norm=7.0,
            sensitivity=1.0,
            epsilon=6.0,
            delta=1.9e-4,
            rounds=50,
            hospitals=10,
            secure_aggregation=True,
            notes=(
                "σ = √(2 ln(1.25/δ))·sensitivity/ε = 0.698873, a formula proved for ε < 1 only",
                "as most likely run (Flower 1.11.1) the noise was discarded: ε = ∞",
            ),
        ),
    ),
    "flower-localdpmod": (
        "Flower's LocalDpMod: its sensitivity is a parameter of its own, whatever the clip norm "
        "(shown at clipping_norm=10, sensitivity=1, epsilon=1, delta=1e-5, 10 rounds: pass yours)",
        PrivacyClaim(
            clip_norm=10.0,
            sensitivity=1.0,
            epsilon=1.0,
            delta=1e-5,
            rounds=10,
            hospitals=10,
            notes=(
                "σ = √(2 ln(1.25/δ))·sensitivity/ε: one release, nothing is composed over rounds; "
                "true sensitivities are clipping_norm (add or remove an update) and twice that",
                _NOISE_DISCARDED,
            ),
        ),
    ),
    "flip": (
        "FLIP's defaults: σ = 4.8e-5 on updates clipped at 1, δ = 1e-5, one round",
        PrivacyClaim(
            clip_norm=1.0,
            sigma=4.8448e-5,
            delta=1e-5,
            rounds=1,
            notes=(
                "as reported, not read from its source here: σ = √(2 ln(1.25/δ))·10⁻⁵ = 4.8e-5, "
                "the classical formula for a sensitivity of 10⁻⁵·ε; clip norm 1 is what its "
                "ε = 2.1e8 implies",
            ),
        ),
    ),
}
