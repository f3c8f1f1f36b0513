"""Write ``docs/api/*.md``: every public name of every package, where it is defined.

python tools/api_pages.py        # part of `make docs`; tests/test_public_api.py compares
"""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "api"
PACKAGES = {
    "repro.privacy": "DP-SGD, update mechanisms, sampling and noise.",
    "repro.accounting": "Events, accountants, calibration. No torch.",
    "repro.secagg": "Secure aggregation: vectors in, weighted mean out.",
    "repro.models": "Image classifiers, (B, C, 28, 28) float32 in, (B, classes) out.",
    "repro.kernels": "Clip, sum and noise: Triton on CUDA, PyTorch elsewhere.",
}
CONSTANTS = {"PHASES": "repro.secagg.rounds"}  # a value does not know where it was defined
ENTRY = """## The entry: make_private

::: repro.privacy.planning
    options:
      members: []
      show_root_heading: false
"""


def page(package: str, introduction: str) -> str:
    public, elsewhere = (
        importlib.import_module(package),
        importlib.import_module("repro.accounting"),
    )
    parts, again = [f"# {package}\n", f"{introduction}\n"], []
    if package == "repro.privacy":
        parts.append(ENTRY)
    parts.append("## Names\n")
    for name in sorted(public.__all__, key=str.lower):
        value = getattr(public, name)
        if public is not elsewhere and getattr(elsewhere, name, None) is value:
            again.append(f"- [`{name}`](accounting.md)")
            continue
        home = CONSTANTS.get(name) or value.__module__
        parts.append(f"::: {home}.{name}\n")
    if again:
        parts += ["## From repro.accounting\n", "\n".join(again) + "\n"]
    return "\n".join(parts)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package, introduction in PACKAGES.items():
        path = FOLDER / f"{package.rpartition('.')[2]}.md"
        path.write_text(page(package, introduction), encoding="utf-8")


if __name__ == "__main__":
    main()
