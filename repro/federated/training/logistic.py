"""Multinomial logistic regression solved to the end: what a linear layer on fixed features can do.

No privacy and no federated steps; on all images in one place it is a bound for the second-order
arms, whose few noisy steps head for the same minimum.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from repro.checks import Number, check_positive
from repro.errors import InputError
from repro.federated.training.plain import HospitalData, LocalReport, LocalTrainer
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.shapes import Float, Int

GRADIENT = 1e-8  # largest entry of the gradient at which the minimum counts as found, in nats
_ITERATIONS = 10_000
_MEMORY = 30  # pairs of L-BFGS (Nocedal & Wright 2006, section 7.2)


class LogisticTrainer(LocalTrainer):
    """Fills a ``WhitenedLinear``: its mean with the records' own, its weights with the minimum of

        mean_i cross-entropy(W u(x_i − m), y_i) + (λ/2)‖W‖²;

    the transform stays as it is. ridge: λ, above 0, so that there is exactly one minimum. Seed,
    round and the weights before are not read.
    """

    def __init__(self, ridge: Number) -> None:
        self.ridge = check_positive("ridge", ridge)

    def train(
        self, model: nn.Module, data: HospitalData, *, seed: RootSeed, round_number: int
    ) -> LocalReport:
        """Loss: mean cross-entropy at the minimum, nats. Raises InputError for another model, and
        where ``ridge`` is so small that the minimum is not found."""
        if not isinstance(model, WhitenedLinear):
            raise InputError("model", type(model).__name__, "one with a WhitenedLinear head")
        records = data.train.inputs().double()
        with torch.no_grad():
            model.mean.copy_(records.mean(dim=0))
            vectors = model.whitened(records)
            weight = solved(vectors, data.train.labels, model.linear.out_features, self.ridge)
            model.linear.weight.copy_(weight)
            loss = F.cross_entropy(vectors @ weight.T, data.train.labels)
        return LocalReport(loss=float(loss))


def solved(
    vectors: Float[Tensor, "n f"], labels: Int[Tensor, " n"], classes: int, ridge: Number
) -> Float[Tensor, "classes f"]:
    """The minimum in W by L-BFGS, float64 like ``vectors``, from W = 0.

    Its loss is above the least by at most ‖gradient‖²/(2λ), as the loss is λ-strongly convex.
    """
    count, features = vectors.shape
    truth = F.one_hot(labels, classes).to(vectors.dtype)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat.reshape(classes, features)).to(vectors.device)
        scores = vectors @ weight.T
        loss = F.cross_entropy(scores, labels) + ridge / 2 * weight.square().sum()
        gradient = (scores.softmax(dim=1) - truth).T @ vectors / count + ridge * weight
        return float(loss), gradient.cpu().numpy().ravel()

    found = minimize(
        loss_and_gradient,
        np.zeros(classes * features),
        jac=True,
        method="L-BFGS-B",
        options={
            "gtol": GRADIENT,
            "ftol": 0.0,  # only the gradient decides
            "maxiter": _ITERATIONS,
            "maxfun": 2 * _ITERATIONS,
            "maxcor": _MEMORY,
        },
    )
    largest = float(np.abs(loss_and_gradient(found.x)[1]).max())
    # A line search that float64 stops has gone as far as it can, and that is far enough here.
    if not largest <= 100 * GRADIENT:
        raise InputError("ridge", ridge, f"larger: the gradient is still {largest:.1g}")
    return torch.from_numpy(found.x.reshape(classes, features)).to(vectors.device)
