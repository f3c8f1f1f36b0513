"""How far a run's numbers move when only the processor's instructions change.

    python tools/moves.py            # a few minutes; a Markdown table on stdout

Each setting below makes PyTorch or oneDNN take the code path of another processor, by an
environment variable, so one machine can stand for several. Every run is ``repro run ARM`` in
the smoke profile on the synthetic stand-in with one seed; what is compared is the test loss
after every round, printed to 17 digits. A difference of 0 means the same bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

ARMS = ("fedavg", "fedavg-secagg", "documented-secagg", "dpsgd-eps6", "scattering-dpsgd-eps6")
SETTINGS: dict[str, dict[str, str]] = {
    "again, nothing changed": {},
    "PyTorch kernels for AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "PyTorch kernels without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN for AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN for SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "BLAS for AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
}


def run(arm: str, variables: dict[str, str]) -> dict:
    words = [sys.executable, "-m", "repro", "run", arm, "--hospitals", "4", "--seed", "0"]
    words += ["--profile", "smoke", "--data", "synthetic", "--device", "cpu", "--json", "--quiet"]
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [*words, "--out", out], env={**os.environ, **variables}, capture_output=True, check=True
        )
    return json.loads(done.stdout)


def main() -> None:
    print("| setting | " + " | ".join(ARMS) + " |")
    print("|---|" + "---:|" * len(ARMS), flush=True)
    base = {arm: run(arm, {}) for arm in ARMS}
    for name, variables in SETTINGS.items():
        cells = []
        for arm in ARMS:
            other = run(arm, variables)
            rounds = list(zip(base[arm]["history"], other["history"], strict=True))
            loss = max(abs(a["loss"] - b["loss"]) for a, b in rounds)
            accuracy = max(abs(a["accuracy"] - b["accuracy"]) for a, b in rounds)
            cells.append("0" if loss == accuracy == 0 else f"{loss:.1e} / {100 * accuracy:.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
