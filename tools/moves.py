"""How far a run's numbers move when only the processor's instructions change.

    python tools/moves.py            # a few minutes; a Markdown table on stdout

Each setting below makes PyTorch, oneDNN or the BLAS take the code path of another processor, by
an environment variable, so one machine can stand for several. Every run is ``repro run ARM`` in
the smoke profile on the synthetic stand-in with one seed; what is compared is the test loss
after every round, to the last digit, and the accuracy. A difference of 0 means the same bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

ARMS = ("fedavg", "fedavg-secagg", "dpsgd-eps6", "scattering-dpsgd-eps6")
SETTINGS: dict[str, dict[str, str]] = {
    "again, nothing changed": {},
    "PyTorch kernels without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch kernels for AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN for SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN for AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "BLAS for AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
}
OPTIONS = "--hospitals 4 --seed 0 --profile smoke --data synthetic --device cpu --json --quiet"


def histories(variables: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Every arm's rounds, in one process of its own with these variables."""
    with tempfile.TemporaryDirectory() as out:
        commands = [["run", arm, *OPTIONS.split(), "--out", out] for arm in ARMS]
        code = f"from repro.cli import main\nfor words in {commands!r}: assert main(words) == 0"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **variables},
            capture_output=True,
            check=True,
        )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {record["arm"]: record["history"] for record in records}


def main() -> None:
    print("| setting | " + " | ".join(ARMS) + " |")
    print("|---|" + "---:|" * len(ARMS), flush=True)
    base = histories({})
    for name, variables in SETTINGS.items():
        other, cells = histories(variables), []
        for arm in ARMS:
            rounds = list(zip(base[arm], other[arm], strict=True))
            loss = max(abs(a["loss"] - b["loss"]) for a, b in rounds)
            accuracy = max(abs(a["accuracy"] - b["accuracy"]) for a, b in rounds)
            cells.append("0" if loss == accuracy == 0 else f"{loss:.1e} / {100 * accuracy:.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
