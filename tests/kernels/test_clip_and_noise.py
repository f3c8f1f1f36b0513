"""Clip and noise: PyTorch against float64 arithmetic, and Triton against PyTorch.

Without a CUDA device the Triton kernels run in Triton's interpreter (``tests/conftest.py``).
"""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import kernels
from repro.errors import InputError
from repro.kernels import api
from repro.kernels.api import clipped_sum
from repro.privacy import Clipping, clipped_noisy_sum
from repro.privacy.engines import functional
from repro.privacy.noise import gaussian_noise
from repro.privacy.noise_key import noise_keys
from repro.privacy.row_sum import ClipReport

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5, torch.float64: 1e-12}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEY = {"seed": 0xFEDCBA9876543210, "step": 0x123456789ABCDEF}


def call(per_sample, backend, **more):
    settings = {"clip_norm": 1.0, "noise_multiplier": 0.5, **KEY, **more}
    return kernels.clip_and_noise(per_sample, backend=backend, return_report=True, **settings)


def written_out(tensors, clip_norm, kind="flat", gamma=0.01):
    """Σ_i factor_i · g_i in float64, one record at a time."""
    parts = [t.double().reshape(len(t), t.shape[1:].numel()) for t in tensors]
    total = torch.zeros(sum(p.shape[1] for p in parts), dtype=torch.float64, device=parts[0].device)
    for i in range(len(parts[0])):
        norm = float(torch.cat([p[i] for p in parts]).norm())
        pieces = []
        for part in parts:
            if kind == "automatic":
                factor = clip_norm / (norm + gamma)
            elif kind == "per_layer":
                own = float(part[i].norm())
                factor = min(1.0, clip_norm / len(parts) ** 0.5 / own) if own else 1.0
            else:
                factor = min(1.0, clip_norm / norm) if norm else 1.0
            pieces.append(part[i] * factor)
        total += torch.cat(pieces)
    return total


def assert_matches(per_sample, backend, kind="flat", clip_norm=1.0):
    tensors = [per_sample] if isinstance(per_sample, torch.Tensor) else per_sample
    total, report = call(per_sample, backend, clipping=kind, clip_norm=clip_norm)
    expected = written_out(tensors, clip_norm, kind)
    noise = gaussian_noise(len(expected), std=0.5 * clip_norm, dtype=torch.float64, **KEY)
    expected = expected + noise.to(expected.device)
    scale = TOLERANCE[tensors[0].dtype] * float(expected.norm() + 1)
    assert float((total.double() - expected).norm()) <= scale
    assert report.non_finite == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
@given(data=st.data())
@settings(max_examples=15)
def test_pytorch_is_the_formula(dtype, kind, data):
    """Any B ≥ 0, any number and shape of tensors, against float64 written out."""
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 99)))
    records = draw(st.integers(0, 9))
    shapes = draw(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=3))
    tensors = [(torch.randn(records, *s) * 0.5).to(dtype).to(DEVICE) for s in shapes]
    assert_matches(tensors, "torch", kind, clip_norm=draw(st.sampled_from([0.1, 1.0, 30.0])))


# Shape classes: one element, odd, around a tile, several tiles, several norm chunks.
SHAPES = [(1, 1), (3, 7), (5, 1023), (2, 1024), (4, 1025), (9, 4099), (2, 40_003)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_is_the_formula(shape, dtype):
    torch.manual_seed(0)
    scale = 2 / shape[1] ** 0.5  # norms around 2: some clipped at 2, some not
    assert_matches((torch.randn(shape) * scale).to(dtype).to(DEVICE), "triton", clip_norm=2.0)


@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
@pytest.mark.parametrize("records", [0, 1, 6])
def test_triton_on_lists_of_tensors(kind, records):
    """Tensors whose flat offsets are not multiples of four, one of them empty."""
    torch.manual_seed(0)
    shapes = [(3,), (2, 5), (0,), (7, 3), (129,), (1,)]
    tensors = [torch.randn(records, *s, device=DEVICE) * 0.1 for s in shapes]
    assert_matches(tensors, "triton", kind)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_non_contiguous_input(backend, dtype):
    """Transposed, strided and broadcast rows."""
    torch.manual_seed(0)
    base = torch.randn(50, 12, device=DEVICE).to(dtype)
    for rows in (base.T, base[::3], base[:, ::5], base[:1].expand(4, 12)):
        assert_matches(rows, backend)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # the interpreter's
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
def test_a_non_finite_record_contributes_exactly_zero(backend, poison, kind):
    """NaN injection: the result is bit for bit that of the batch with a zero row."""
    torch.manual_seed(0)
    tensors = [torch.randn(5, 30, device=DEVICE), torch.randn(5, 2, 6, device=DEVICE)]
    bad = [t.clone() for t in tensors]
    bad[1][2, 1, 3] = poison
    for t in tensors:
        t[2] = 0
    total, report = call(bad, backend, clipping=kind)
    expected, _ = call(tensors, backend, clipping=kind)
    assert report.non_finite == 1
    assert torch.equal(total, expected)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_no_records_give_pure_noise(backend):
    total, report = call(torch.zeros(0, 37, device=DEVICE), backend, clip_norm=3.0)
    noise = gaussian_noise(37, std=1.5, **KEY)
    torch.testing.assert_close(total.cpu(), noise, rtol=0, atol=1e-5)
    assert report == ClipReport(records=0, non_finite=0, clipped=0)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_counts(backend):
    rows = (
        torch.eye(4, 6, device=DEVICE) * torch.tensor([0.5, 2.0, 0.0, 9.0], device=DEVICE)[:, None]
    )
    _, report = call(rows, backend)
    assert report == ClipReport(records=4, non_finite=0, clipped=2)


def test_float64_accumulates_in_float64():
    rows = torch.randn(3, 5, dtype=torch.float64)
    assert call(rows, "auto")[0].dtype == torch.float64
    assert call(rows.bfloat16(), "auto")[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": 0}, "clip_norm: got 0"),
        ({"clip_norm": float("nan")}, "clip_norm: got nan"),
        ({"clip_norm": 1e-30}, "clip_norm: got 1e-30"),
        ({"noise_multiplier": -1}, "noise_multiplier: got -1"),
        ({"noise_multiplier": float("inf")}, "noise_multiplier: got inf"),
        ({"seed": 2**64}, "seed: got"),
        ({"step": -1}, "step: got -1"),
        ({"clipping": "hard"}, "clipping kind: got 'hard'"),
        ({"backend": "cuda"}, "backend: got 'cuda'"),
        ({"per_sample": torch.zeros(3)}, "per_sample: got"),
        ({"per_sample": torch.zeros(3, 2, 2)}, "per_sample: got"),
        ({"per_sample": []}, "at least one tensor"),
        ({"per_sample": torch.zeros(2, 2, dtype=torch.int64)}, "floating-point"),
        ({"per_sample": [torch.zeros(2, 2), torch.zeros(3, 2)]}, "same number of records"),
        ({"per_sample": [torch.zeros(2, 2), torch.zeros(2, 2).double()]}, "one type"),
        ({"per_sample": [torch.zeros(2, 2), torch.zeros(2, 2, device="meta")]}, "one device"),
        (
            {"per_sample": torch.zeros(2, 2).double(), "backend": "triton"},
            "torch for float64",
        ),
    ],
)
def test_bad_input_is_one_line(changes, message):
    call_with = {"per_sample": torch.zeros(2, 3), "clip_norm": 1, "noise_multiplier": 1, **KEY}
    call_with.update(changes)
    with pytest.raises(InputError, match=message) as caught:
        kernels.clip_and_noise(call_with.pop("per_sample"), **call_with)
    assert "\n" not in str(caught.value)


def test_the_vmap_engine_sums_by_the_kernel_that_entered_itself(monkeypatch):
    """Triton's interpreter stands for a device here; what is asked for is the CUDA entry."""
    monkeypatch.setattr(functional, "ROW_SUMS", {})
    monkeypatch.setattr(api, "ROW_SUMS", functional.ROW_SUMS)
    kernels.use_on_cuda()
    assert {"cuda": clipped_sum} == functional.ROW_SUMS
    seen = []

    def fused(rows, rule):
        seen.append([tuple(matrix.shape) for matrix in rows])
        return clipped_sum(rows, rule, backend="triton")

    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(7, 3), torch.randn(5, 7), torch.arange(5) % 3
    loss = partial(torch.nn.functional.cross_entropy, reduction="none")
    more = {"clip_norm": 0.5, "noise_multiplier": 0, "seed": 0, "step": 0, "engine": "vmap"}
    expected = clipped_noisy_sum(model, loss, x, y, **more).flat
    functional.ROW_SUMS["cpu"] = fused
    noise_keys.clear()
    found = clipped_noisy_sum(model, loss, x, y, **more).flat
    assert seen == [[(5, 21), (5, 3)]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_clipping_states_its_sensitivity():
    assert Clipping(2.0).sensitivity() == 2.0
    assert Clipping(2.0, "per_layer").sensitivity("replace_one") == 4.0
    with pytest.raises(InputError, match="relation"):
        Clipping(2.0).sensitivity("zero_out")


@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_without_noise_is_the_same_on_both_backends(kind, dtype):
    """What the vmap engine calls on CUDA, a record that is not finite included."""
    torch.manual_seed(0)
    rows = [torch.randn(5, 7).to(dtype).to(DEVICE), torch.randn(5, 1030).to(dtype).to(DEVICE)]
    rows[1][2, 3] = float("nan")
    rule = Clipping(1.5, kind)
    total, report = clipped_sum(rows, rule, backend="triton")
    expected, right = clipped_sum(rows, rule, backend="torch")
    assert (total - expected).norm() <= 1e-5 * expected.norm()
    assert report == right
    torch.testing.assert_close(report.norms, right.norms, rtol=1e-5, atol=0, equal_nan=True)
