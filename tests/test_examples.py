"""Every example runs as its reader would run it, and says what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
RUNS = {
    "dp_sgd.py": (["--records", "400", "--epochs", "2"], r"ε = [0-9.]+ at δ = 1e-05 for a record"),
    "accountant.py": ([], r"the paper's noise as documented, 50 rounds, a hospital: ε = 2,759"),
    "secure_sum.py": (["--lose", "2"], r"in the sum: 0, 1, 3, 4; weight 120\b"),
    "kernel.py": ([], r"deviation of the noise 1\.[345]\d \(1\.48 expected\)"),
}


def test_none_is_left_out():
    assert {path.name for path in FOLDER.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_it_runs(name):
    words, promised = RUNS[name]
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(promised, done.stdout), done.stdout


def test_the_accountants_example_needs_no_torch():
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(FOLDER / 'accountant.py')!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
