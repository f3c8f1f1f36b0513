"""``repro bench dpsgd``: one DP-SGD step of DPResNet beside plain SGD and Opacus, in one run.

Every contestant takes the same sequence of true Poisson batches, in turns, and does all of a
step: gradients, clipping, noise, optimizer. The baseline is plain SGD of the same precision, in
the memory layout that is faster for it. Memory is the peak of a fresh process above what its
imports take.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.bench import Row, interleave, peak_memory
from repro.bench.harness import device_of, synchronize_on
from repro.federated.memory import keep_freed_memory
from repro.kernels.api import use_on_cuda
from repro.models import DPResNet
from repro.models.mixed_precision import in_precision
from repro.privacy import DPSGDSettings, PoissonSampler
from repro.privacy.dpsgd import DPSGDRun
from repro.privacy.noise_key import new_run
from repro.progress import Progress, progress
from repro.randomness import RootSeed
from repro.runs.provenance import environment

CLIP_NORM, NOISE_MULTIPLIER, LEARNING_RATE = 1.0, 1.0, 0.1
MIXED = ", bf16-mixed"  # ends the names of contestants in that precision
PLAIN = ("plain SGD", "plain SGD, channels last", "plain SGD" + MIXED)
OURS = {
    "ours: book-keeping": ("bookkeeping", torch.contiguous_format),
    "ours: book-keeping, channels last": ("bookkeeping", torch.channels_last),
    "ours: vmap": ("vmap", torch.contiguous_format),
    "ours: book-keeping" + MIXED: ("bookkeeping", torch.contiguous_format),
    "ours: vmap" + MIXED: ("vmap", torch.contiguous_format),
}
OPACUS = ("opacus: hooks", "opacus: functorch", "opacus: ghost")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=64, help="expected batch size (64)")
    parser.add_argument("--records", type=int, default=956, help="records of the hospital (956)")
    parser.add_argument("--width", type=int, default=64, help="width of DPResNet (64)")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each (7)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--only", default="", metavar="TEXT", help="only names containing TEXT")
    parser.add_argument("--no-memory", action="store_true", help="skip the memory runs")


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    device = device_of(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = [*PLAIN, *OURS, *OPACUS]
    names = [n for n in names if n in PLAIN or arguments.only in n]
    setting = {
        "records": arguments.records,
        "batch": arguments.batch,
        "width": arguments.width,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    steps: dict[str, Callable[[], object]] = {}
    notes: dict[str, str] = {}
    for name in names:
        try:
            steps[name] = contestant(name, **setting)
        except ImportError as missing:  # noqa: PERF203
            notes[name] = f"not run: {missing.name} is not installed (pip install '.[bench]')"
    rows = _time_rows(steps, arguments.repeats, device)
    if not arguments.no_memory:
        rows += _memory_rows(list(steps), setting)
    rows += [Row.of(n, "step time", "s", [float("nan")], note=note) for n, note in notes.items()]
    where = environment(("torch", "opacus"))
    where["setting"] = f"DPResNet width {arguments.width}, expected batch {arguments.batch}"
    if device == "cpu":
        where["cuda"] = "not run: no CUDA device was used"
    return rows, where


def contestant(
    name: str, *, records: int, batch: int, width: int, device: str, threads: int
) -> Callable[[], object]:
    """A function that takes the contestant's next step."""
    keep_freed_memory()  # as in `repro run`; for all contestants alike
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.randn(records, 3, 28, 28)
    labels = torch.randint(0, 8, (records,))
    channels_last = "channels last" in name
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model: nn.Module = DPResNet(width=width).to(device, memory_format=layout)
    if name.endswith(MIXED):
        model = in_precision(model, "bf16-mixed", torch.device(device))
    images, labels = images.to(device, memory_format=layout), labels.to(device)
    if name in OURS:
        use_on_cuda()  # the vmap engine, as in `repro run`
        return _ours(model, images, labels, batch, OURS[name][0])
    sampler = PoissonSampler.with_expected_batch(records, batch)
    batches = (
        sampler.sample(RootSeed.from_user(0), party=0, round=0, step=step).to(device)
        for step in itertools.count()
    )
    if name in PLAIN:
        return _plain(model, images, labels, batches)
    return _opacus(name, model, images, labels, batches, batch)


def _ours(
    model: nn.Module, images: Tensor, labels: Tensor, batch: int, engine: str
) -> Callable[[], object]:
    settings = DPSGDSettings(
        clip_norm=CLIP_NORM,
        noise_multiplier=NOISE_MULTIPLIER,
        expected_batch=batch,
        learning_rate=LEARNING_RATE,
        engine=engine,
    )
    loss_fn = functools.partial(F.cross_entropy, reduction="none")
    seed = RootSeed.from_user(0)
    run = DPSGDRun(settings, model, loss_fn, images, labels, seed=seed, party=0, round=0)

    def step() -> None:
        new_run(seed)  # all take the same batches with the same noise, and round differently
        run.step()

    return step


def _plain(model: nn.Module, images: Tensor, labels: Tensor, batches: Any) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        drawn = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(images[drawn]), labels[drawn]).backward()
        optimizer.step()

    return step


def _opacus(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, batches: Any, batch: int
) -> Callable[[], object]:
    """Opacus' own classes, fed the same batches; its loader would draw others."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    plain = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    common: dict[str, Any] = {
        "noise_multiplier": NOISE_MULTIPLIER,
        "max_grad_norm": CLIP_NORM,
        "expected_batch_size": batch,
        "loss_reduction": "mean",
    }
    criterion: Any = nn.CrossEntropyLoss()
    if name == "opacus: ghost":
        wrapped: Any = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=CLIP_NORM, use_ghost_clipping=True, loss_reduction="mean"
        )
        optimizer: Any = DPOptimizerFastGradientClipping(plain, **common)
        criterion = DPLossFastGradientClipping(wrapped, optimizer, criterion, "mean")
    else:
        wrapped = GradSampleModule(
            model, loss_reduction="mean", force_functorch=name == "opacus: functorch"
        )
        optimizer = DPOptimizer(plain, **common)

    def step() -> None:
        drawn = next(batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own backward hooks, at every step
            optimizer.zero_grad()
            criterion(wrapped(images[drawn]), labels[drawn]).backward()
            optimizer.step()

    return step


def _time_rows(steps: dict[str, Callable[[], object]], repeats: int, device: str) -> list[Row]:
    bar: Progress[None] = progress(total=len(steps) * (repeats + 1), desc="steps", unit="step")

    def counted(step: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            step()
            bar.update()

        return call

    seconds = interleave(
        {name: counted(step) for name, step in steps.items()},
        repeats=repeats,
        synchronize=synchronize_on(device),
    )
    bar.close()
    rows = [Row.of(name, "step time", "s", values) for name, values in seconds.items()]
    return _relative(rows)


def _memory_rows(names: list[str], setting: dict[str, Any]) -> list[Row]:
    rows = []
    for name in progress(names, desc="memory", unit="engine"):
        call = functools.partial(_two_steps, name, setting)
        peak, start = _peak(call, setting["device"])
        rows.append(Row.of(name, "peak memory", "MiB", [peak - start], detail={"total": peak}))
    return _relative(rows)


def _peak(call: Callable[[], object], device: str) -> tuple[float, float]:
    if device == "cpu":
        found = peak_memory(call)
        return found["peak_mib"], found["start_mib"]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() / 2**20, start / 2**20


def _two_steps(name: str, setting: dict[str, Any]) -> None:
    step = contestant(name, **setting)
    step()
    step()


def _relative(rows: list[Row]) -> list[Row]:
    """Over the better plain baseline of the same precision."""

    def baseline(mixed: bool) -> float:
        plain = (row for row in rows if row.name in PLAIN)
        return min(row.median for row in plain if row.name.endswith(MIXED) == mixed)

    return [row.over(baseline(row.name.endswith(MIXED))) for row in rows]
