"""The confusion matrix counts what it says: rows are true classes, columns predicted ones."""

import math
from collections import Counter

import torch
from torch import nn
from torch.nn import functional as F

from repro.federated.evaluation import BATCH, evaluate
from repro.federated.images import LabelledImages

CLASSES = 3


class Says(nn.Module):
    """Predicts the class that an image's first pixel holds, with logit 2 against 0."""

    def forward(self, x):
        said = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        return 2.0 * F.one_hot(said, CLASSES)


def answered(pairs):
    """Images of the (true, predicted) pairs, in this order."""
    true, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    images = torch.zeros(len(pairs), 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = predicted.to(torch.uint8)
    return LabelledImages(images, true)


def test_every_cell_counts_its_pair():
    """No two cells alike, so that no exchange of rows, columns or both goes unseen; over two
    batches. Loss and accuracy follow from the pairs, by hand."""
    counts = {(t, p): 1 + 10 * t + 40 * p for t in range(CLASSES) for p in range(CLASSES)}
    del counts[2, 0]  # and one that never happens
    pairs = list(Counter(counts).elements())
    assert len(pairs) > BATCH
    result = evaluate(Says(), answered(pairs), CLASSES)
    expected = [[counts.get((t, p), 0) for p in range(CLASSES)] for t in range(CLASSES)]
    assert result.confusion.tolist() == expected
    right = sum(counts[t, t] for t in range(CLASSES))
    assert result.accuracy == right / len(pairs)
    missed = math.log(math.exp(2) + CLASSES - 1)
    loss = missed - 2 * right / len(pairs)
    assert abs(result.loss - loss) < 1e-5


def test_the_models_mode_is_as_it_was():
    for training in (True, False):
        model = Says().train(training)
        evaluate(model, answered([(0, 1), (1, 1)]), CLASSES)
        assert model.training is training
