"""The examples: none is left out, and what they compute. `test_wheel.py` runs them."""

import json
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
from repro.cli import main
from repro.models.random_filters import TurnedFilterRings
from repro.runs.arms import ARMS
from repro.runs.profiles import PROFILES, for_model

FOLDER = Path(__file__).resolve().parents[1] / "examples"
RUNS = {
    "dp_sgd.py": (["--records", "400", "--epochs", "2"], r"ε = [0-9.]+ at δ = 1e-05 for a record"),
    "dp_sgd_from_scratch.py": (
        ["--data", "synthetic", "--steps", "15", "--epsilon", "3"],
        r"(?s)accuracy on 3,421 test images: [3-9]\d\.\d %.*ε = 3\.0 at δ = 1e-05 for an image",
    ),
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
    filters = "repro.models.random_filters.filters"
    with mock.patch(filters, return_value=banks):  # the page draws others
        wanted = model.features(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    torch.testing.assert_close(page["features"](images), wanted, atol=5e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def scratch():
    return runpy.run_path(str(FOLDER / "dp_sgd_from_scratch.py"))


def test_the_one_from_scratch_is_short_and_has_nothing_of_the_library_but_the_data():
    source = (FOLDER / "dp_sgd_from_scratch.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 150
    assert re.findall(r"^\s*(?:from|import) (repro\S*)", source, re.MULTILINE) == ["repro.data"]


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"),
    [(2.58, 0.171, 300), (0.8, 0.01, 2000), (0.4, 0.005, 100), (5.0, 1.0, 50), (2.0, 0.01, 100)],
)
def test_its_epsilon_is_that_of_the_command(scratch, capsys, sigma, rate, steps):
    """``repro epsilon`` takes the best of all orders: the 500 of the example lose 0.2 % at most."""
    words = f"--noise-multiplier {sigma} --sample-rate {rate} --steps {steps} --delta 1e-5"
    assert main(["epsilon", "--accountant", "rdp", "--json", *words.split()]) == 0
    best = json.loads(capsys.readouterr().out)["epsilon"]
    found = scratch["epsilon_of"](sigma, rate, steps, 1e-5)
    assert best * (1 - 1e-9) <= found <= best * 1.002
    assert (
        scratch["epsilon_of"](scratch["noise_for"](2.0, rate, steps, 1e-5), rate, steps, 1e-5) <= 2
    )


def test_its_clipped_sum_is_that_of_records_one_by_one(scratch):
    """Against autograd in float64; a clip norm that some gradients are within; an empty batch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    weights = torch.randn(6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(9) % 8
    rows, norms = [], []
    for record, label in zip(x, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(record @ weights, label)
        rows.append(torch.autograd.grad(loss, weights)[0])
    norms = torch.stack([row.norm() for row in rows])
    limit = float(norms.median())
    expected = sum(
        row * min(1.0, limit / float(norm)) for row, norm in zip(rows, norms, strict=True)
    )
    arrays = weights.detach().numpy(), x.numpy(), labels.numpy()
    np.testing.assert_allclose(scratch["clipped_sum"](*arrays, limit), expected, atol=1e-12)
    nothing = scratch["clipped_sum"](arrays[0], arrays[1][:0], arrays[2][:0], limit)
    np.testing.assert_array_equal(nothing, np.zeros((6, 8)))


def test_the_accountants_example_needs_no_torch():
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(FOLDER / 'accountant.py')!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
