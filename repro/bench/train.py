"""``repro bench train``: one local epoch, ours against the authors' way of feeding it.

*Ours*: images resident as bytes, one gather and scale a batch, channels-last, fused Adam; and the
same in bf16-mixed (``repro.models.mixed_precision``), whose losses are another computation's.
*Authors' way* [code A]: per-image PIL transforms (to tensor, normalise) in a DataLoader without
worker processes, PyTorch's default memory format, plain Adam.
All train DPResNet on the same batches in the same order, so their loss curves must agree; the
largest relative difference is reported beside the speed. ``--profile-operators`` prints where a
bf16-mixed step's time goes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.bench.harness import Row, device_of, interleave, synchronize_on
from repro.data import Split
from repro.federated.images import LabelledImages
from repro.models import DPResNet
from repro.models.mixed_precision import in_precision
from repro.runs.provenance import environment

MIXED = "ours, bf16-mixed"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=320, help="of one epoch (default 320)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    parser.add_argument("--width", type=int, default=64, help="of DPResNet (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs each (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: CUDA if any)")
    parser.add_argument(
        "--profile-operators", action="store_true", help="a row for each of the costliest operators"
    )


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    device = device_of(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    split = _images(arguments.images)
    ours = Ours(split, arguments, device)
    theirs = AuthorsWay(split, arguments, device)
    mixed = Ours(split, arguments, device, "bf16-mixed")
    expected = theirs.epoch()  # all from the same initial weights
    differences = {
        name: max(abs(a - b) / abs(b) for a, b in zip(one.epoch(), expected, strict=True))
        for name, one in (("ours", ours), (MIXED, mixed))
    }
    seconds = interleave(
        {"authors' way": theirs.epoch, "ours": ours.epoch, MIXED: mixed.epoch},
        repeats=arguments.repeats,
        synchronize=synchronize_on(device),
    )
    rates = {name: [arguments.images / s for s in times] for name, times in seconds.items()}
    rows = [Row.of("authors' way", "local epoch", "images/s", rates["authors' way"])]
    for name, difference in differences.items():
        row = Row.of(name, "local epoch", "images/s", rates[name])
        note = f"largest relative difference of the losses {difference:.1e}"
        rows.append(replace(row.over(rows[0].median), note=note))
    if arguments.profile_operators:
        rows += operators(mixed)
    where = environment(("torch", "torchvision", "numpy")) | {
        "device": device,
        "batch": arguments.batch,
        "width": arguments.width,
        "images": arguments.images,
    }
    return rows, where


def _images(count: int) -> Split:
    stream = np.random.default_rng(0)
    return Split(
        stream.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8), stream.integers(0, 8, count)
    )


def _model(arguments: argparse.Namespace) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result: nn.Module = DPResNet(width=arguments.width)
        return result


def operators(contestant: Ours, shown: int = 8) -> list[Row]:
    """The share of an epoch that each of the costliest operators takes by itself, in per cent."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        contestant.epoch()
    spent = {one.key: one.self_cpu_time_total for one in seen.key_averages()}
    total = sum(spent.values())
    costly = sorted(spent, key=lambda key: -spent[key])[:shown]
    return [Row.of(key, f"share of {MIXED}", "%", [100 * spent[key] / total]) for key in costly]


class Ours:
    """The local epoch of ``repro.federated.training.plain``, batches in stored order."""

    def __init__(
        self, split: Split, arguments: argparse.Namespace, device: str, precision: str = "float32"
    ) -> None:
        self.data = LabelledImages.from_arrays(split.images, split.labels, device)
        self.batches = torch.arange(len(split), device=device).split(arguments.batch)
        model = _model(arguments).to(device=device).to(memory_format=torch.channels_last)
        self.model = in_precision(model, precision, torch.device(device))
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True)

    def epoch(self) -> list[float]:
        losses = [
            _step(self.model, self.optimizer, self.data.inputs(batch), self.data.labels[batch])
            for batch in self.batches
        ]
        return torch.stack(losses).tolist()


class AuthorsWay:
    """PIL images through torchvision-like transforms and a DataLoader, as in code A."""

    def __init__(self, split: Split, arguments: argparse.Namespace, device: str) -> None:
        from PIL import Image

        self.device = device
        images = [Image.fromarray(image) for image in split.images]
        labels = split.labels

        class Records(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return len(labels)

            def __getitem__(self, index: int) -> tuple[Tensor, int]:
                return _to_tensor(images[index]), int(labels[index])

        self.loader = torch.utils.data.DataLoader(Records(), batch_size=arguments.batch)
        self.model = _model(arguments).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def epoch(self) -> list[float]:
        losses = [
            _step(self.model, self.optimizer, images.to(self.device), labels.to(self.device))
            for images, labels in self.loader
        ]
        return torch.stack(losses).tolist()


def _to_tensor(image: Any) -> Tensor:
    """torchvision's ToTensor and Normalize(0.5, 0.5), in the same arithmetic."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return tensor.to(torch.float32).div(255).sub_(0.5).div_(0.5)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()
