"""Choose features and settings of the second-order steps on images a program drew: free of ε.

python tools/settings_from_drawn_images.py       # 37 minutes, beside a training run on 2 cores

Every trial trains on 9,560 drawn images and is scored on 3,200 others, with the noise that 10
hospitals need for ε = 6 (``repro.federated.shared.second_order``; here pooled, continuous noise,
the mean of three draws). First the features, all with one setting, then one setting after the
other, the best kept, then the rate for each ε. The highest accuracy wins, whatever the others.
What it printed when ``DrawnChoiceRings`` and the arms ``drawn-newton-*`` were frozen is
``paper_results/settings_from_drawn_images.json``; tests compare the arms with it.

The *kind* of method (random filters in rings, whitening, second-order steps) is not chosen here:
that came out of the search on validation images that docs/feature-search.md describes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repro.accounting import gaussian_sigma
from repro.data.synthetic import synthetic_split
from repro.federated.features import fixed_features
from repro.federated.whitening import Whitened
from repro.models.random_filters import TurnedFilterRings

CLASSES, DELTA = 8, 1e-5
COALITION = math.sqrt(10 / 8)  # 10 hospitals, one colluding and one lost: noise of eight
TRAINING, SCORING = (101, 1195), (102, 400)  # stream, images of each class; whitening has its own
FAMILIES: tuple[dict[str, Any], ...] = tuple(
    {"banks": banks, "turns": turns, "axes": axes}
    for turns in ((0.0,), (0.0, 30.0, 60.0))
    for banks, most in (
        (((1, 32), (3, 64)), 576),
        (((1, 32), (3, 64), (5, 96)), 768),
        (((1, 32), (3, 128), (5, 96)), 768),
    )
    for axes in (384, 576, 768)
    if axes <= most
)
RATES = tuple(500 * 2 ** (k / 2) for k in range(10))  # 500 … 11,314


@dataclass(frozen=True)
class Setting:
    """Of the steps; shares are of μ², the floor is in norms of the noise matrix."""

    rate: float = 2000.0
    floor: float = 0.5
    moments_share: float = 0.15
    mean_share: float = 0.05
    clip: float = 0.25
    steps: int = 12


OPTIONS: dict[str, tuple[float, ...]] = {
    "floor": (0.125, 0.25, 0.5, 1.0),
    "moments_share": (0.1, 0.15, 0.25, 0.35),
    "mean_share": (0.02, 0.05, 0.1),
    "clip": (0.125, 0.25, 0.5),  # rate × clip is kept
    "steps": (8, 12, 16, 24),  # rate × steps is kept
}


def train(x: Tensor, y: Tensor, setting: Setting, epsilon: float, seed: int) -> Any:
    """(N, F) float32 of length 1, (N,) -> a function (M, F) -> (M,) of predicted classes.

    Mean, second moments, steps, each a sum with Gaussian noise; as the module named above.
    """
    (records, size), stream = x.shape, torch.Generator().manual_seed(seed)
    mu = 1 / gaussian_sigma(epsilon, 1.0, 1, DELTA)
    left = 1 - setting.mean_share - setting.moments_share

    def deviation(share: float) -> float:
        return COALITION / (mu * math.sqrt(share))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream)

    mean = (x.sum(0) + noise(size) * deviation(setting.mean_share)) / records
    centred = F.normalize(x - mean, dim=1)
    upper = noise(size, size).triu(1) / math.sqrt(2)
    scale = deviation(setting.moments_share)
    moments = centred.T @ centred + scale * (upper + upper.T + torch.diag(noise(size)))
    floor = setting.floor * scale * math.sqrt(2 * size)
    values, vectors = torch.linalg.eigh(moments.double())
    transform = ((vectors * (values.clamp_min(floor) / floor).rsqrt()) @ vectors.T).float()

    def whitened(inputs: Tensor) -> Tensor:
        return F.normalize(F.normalize(inputs - mean, dim=1) @ transform, dim=1)

    z, targets, weights = whitened(x), F.one_hot(y, CLASSES).float(), torch.zeros(CLASSES, size)
    for _ in range(setting.steps):
        errors = torch.softmax(z @ weights.T, 1) - targets
        errors *= (setting.clip / errors.norm(dim=1, keepdim=True)).clamp(max=1)  # ‖z‖ = 1
        total = errors.T @ z + noise(CLASSES, size) * deviation(left / setting.steps) * setting.clip
        weights -= setting.rate / records * total
    return lambda inputs: (whitened(inputs) @ weights.T).argmax(1)


class Search:
    """Scores settings, and keeps every score in ``trials``."""

    def __init__(self, training: tuple[int, int], scoring: tuple[int, int], draws: int) -> None:
        splits = [
            synthetic_split([each] * CLASSES, stream=stream) for stream, each in (training, scoring)
        ]
        self._images = [split.images for split in splits]
        self._labels = [
            torch.from_numpy(np.ravel(split.labels).astype(np.int64)) for split in splits
        ]
        self._draws = draws
        self.trials: list[dict[str, Any]] = []

    def use(self, family: dict[str, Any]) -> None:
        """The features that are scored from now on."""
        model = type("Candidate", (TurnedFilterRings,), family)()
        whitened = Whitened(model, 3)
        self._family = family
        self._features = [
            torch.from_numpy(fixed_features(whitened, images)) for images in self._images
        ]

    def score(self, setting: Setting, epsilon: float) -> float:
        """Per cent of the scoring images, the mean over draws of the noise."""
        (x, held), (y, wanted) = self._features, self._labels
        hits = [
            (train(x, y, setting, epsilon, seed)(held) == wanted).float().mean().item() * 100
            for seed in range(self._draws)
        ]
        accuracy = round(float(np.mean(hits)), 3)
        self.trials.append(
            {"accuracy": accuracy, "epsilon": epsilon, **self._family, **asdict(setting)}
        )
        print(json.dumps(self.trials[-1]), flush=True)
        return accuracy

    def best(self, settings: list[Setting], epsilon: float) -> Setting:
        return max(settings, key=lambda setting: self.score(setting, epsilon))


def choose(search: Search, families: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Features, then settings at ε = 6, then the rate at every other ε."""
    start = Setting()
    scores = []
    for family in families:
        search.use(family)
        scores.append(search.score(start, 6.0))
    family = families[scores.index(max(scores))]
    search.use(family)
    setting = start
    for name, values in OPTIONS.items():
        tried = []
        for value in values:
            one = replace(setting, **{name: value})
            kept = setting.clip * setting.steps / (one.clip * one.steps)
            tried.append(replace(one, rate=setting.rate * kept))
        setting = search.best(tried, 6.0)
    rates = {
        epsilon: search.best([replace(setting, rate=rate) for rate in RATES], epsilon).rate
        for epsilon in (6.0, 1.0, 3.0, 8.0)
    }
    return {**family, **asdict(setting), "rate": {f"{e:g}": rate for e, rate in rates.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("paper_results/settings_from_drawn_images.json")
    )
    started = time.perf_counter()
    arguments = parser.parse_args()
    search = Search(TRAINING, SCORING, draws=3)
    chosen = choose(search, FAMILIES)
    content = {"torch": torch.__version__, "chosen": chosen, "trials": search.trials}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.out} after {time.perf_counter() - started:.0f} s: {json.dumps(chosen)}")


if __name__ == "__main__":
    main()
