"""The command line's frame: help, unknown commands, one-line errors, strict JSON."""

import json
import subprocess
import sys

import pytest

from repro.formatting import to_json
from repro.report.claims import PAPER_RESULTS
from tests.cli.commands import refused
from tests.report import fake

HEAVY = {"torch", "torchvision", "medmnist", "triton"}
ORACLES = {"opacus", "dp_accounting", "mpmath"}
EPSILON = "epsilon --noise-multiplier 1.1 --sample-rate 0.00535 --steps 9342 --delta 1e-5"
GAUSSIAN = "gaussian --sigma 0.698873 --sensitivity 7 --rounds 50 --delta 1.9e-4"
# What is done: what it must not import.
LIGHT = {
    "--help": HEAVY,
    EPSILON: HEAVY | ORACLES | {"matplotlib"},
    GAUSSIAN: HEAVY | ORACLES | {"matplotlib"},
    f"label turned-newton-eps6-all --runs {PAPER_RESULTS}": HEAVY | {"matplotlib"},
    "table 1 --out OUT": HEAVY,  # not Table 5, which counts on the models themselves
    "figure accuracy --out OUT": HEAVY,
}


def without(banned, code):
    """What ``code`` prints in a process of its own, in the end of which nothing banned is there."""
    code += f"; import sys; assert not {banned!r} & set(sys.modules), {banned!r} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line", LIGHT)
def test_a_command_imports_no_more_than_it_needs(tmp_path, line):
    if "OUT" in line:
        fake.store(tmp_path, ["fedavg"])
    words = line.replace("OUT", str(tmp_path)).split()
    said = without(LIGHT[line], f"from repro.cli import main; assert main({words!r}) == 0")
    assert line != "--help" or ("epsilon" in said and "secagg" in said)


def test_the_accountant_loads_numpy_alone():
    """Neither scipy nor torch: 0.1 s instead of seconds."""
    code = "import repro.accounting, repro.privacy; repro.privacy.RDPAccountant"
    without({"torch", "scipy"}, code)


def test_unknown_command_is_one_line_and_exit_2(capsys):
    refused(capsys, "frobnicate")


def test_json_has_no_bare_infinity():
    text = to_json({"epsilon": float("inf"), "rows": [float("nan"), 1.5]})
    assert json.loads(text) == {"epsilon": "inf", "rows": ["nan", 1.5]}
