"""``repro.accounting`` can be lifted out: numpy, scipy and three small modules of ours, no more."""

import ast
import subprocess
import sys
from pathlib import Path

import repro.accounting

ROOT = Path(repro.accounting.__file__).parent
OURS = {"repro.accounting", "repro.checks", "repro.errors", "repro.shapes"}
THEIRS = {"numpy", "scipy"} | set(sys.stdlib_module_names)


def imported():
    """(file, top-level module or our package) of every import, inside functions too."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                parts = name.split(".")
                yield file.name, ".".join(parts[:2]) if parts[0] == "repro" else parts[0]


def test_it_imports_nothing_else():
    found = list(imported())
    assert len(found) > 100
    assert not [(file, name) for file, name in found if name not in OURS | THEIRS]


def test_no_torch_is_loaded_whatever_is_asked():
    """Accountants, ledger and claims, in a process of their own."""
    code = """
import sys
from repro.accounting import PoissonSampledGaussianEvent, compose_epsilon
from repro.accounting.claims import check
from repro.accounting.claims_cases import CASES
from repro.accounting.ledger import FederatedLedger
event = PoissonSampledGaussianEvent(1.0, 0.1)
compose_epsilon({event: 10}, "add_remove", "record", 1e-5)
ledger = FederatedLedger(unit="record", mechanism="dp-sgd", delta=1e-5, hospital_sizes={0: 9})
ledger.spend(0, event, 3)
ledger.as_records()
check(CASES["paper"][1])
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"torch", "matplotlib", "dp_accounting", "mpmath", "opacus", "flwr"}, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
