"""Every example runs as its reader would run it, and says what it promises."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from repro.accounting import gaussian_epsilon
from repro.models.turned_filters import TurnedFilterRings
from repro.runs.arms import ARMS
from repro.runs.profiles import PROFILES, for_model

FOLDER = Path(__file__).resolve().parents[1] / "examples"
RUNS = {
    "dp_sgd.py": (["--records", "400", "--epochs", "2"], r"ε = [0-9.]+ at δ = 1e-05 for a record"),
    "accountant.py": ([], r"the paper's noise as documented, 50 rounds, a hospital: ε = 2,759"),
    "private_second_order.py": (
        ["--data", "synthetic", "--stride", "40"],
        r"ε = 6 at δ = 1e-05 for a record: accuracy (2[5-9]|[3-9]\d)\.",
    ),
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


def test_the_methods_page_is_the_arms_method():
    """Features, whitening, shares, rates and the budget: those of the product, written out."""
    page = runpy.run_path(str(FOLDER / "private_second_order.py"))
    arm = ARMS["turned-newton-eps6-all"]
    model = TurnedFilterRings()
    assert (page["FILTERS"], page["AXES"]) == (model.banks, model.axes)
    assert (page["MEAN"], page["MOMENTS"]) == (
        arm.second_order.mean_share,
        arm.second_order.moments_share,
    )
    for epsilon, rate in page["RATES"].items():
        profile = for_model(PROFILES["quick"], arm.model, trainer=arm.trainer, epsilon=epsilon)
        assert rate == profile.dpsgd_learning_rate
        assert profile.dpsgd_clip_norm == page["CLIP"]
        assert profile.rounds == page["STEPS"] + 2
        mu = page["largest_mu"](epsilon)
        assert gaussian_epsilon(1 / mu, 1.0, 1, page["DELTA"]) == pytest.approx(epsilon, rel=1e-6)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    banks = page["random_filters"](3)
    assert [weight.shape[0] for weight, _ in banks] == [count for _, count in model.banks]
    filters = "repro.models.turned_filters.filters"
    with mock.patch(filters, return_value=banks):  # the page draws others
        wanted = model.features(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    torch.testing.assert_close(page["features"](images), wanted, atol=5e-4, rtol=1e-4)


def test_the_accountants_example_needs_no_torch():
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(FOLDER / 'accountant.py')!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
