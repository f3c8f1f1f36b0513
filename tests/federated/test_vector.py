"""A model's state as a vector: written and read back; noise in running statistics is survived."""

import pytest
import torch
from torch import nn

from repro.federated.vector import load_vector, to_vector


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def test_what_is_written_is_read_back():
    one, other = model(), model()
    one(torch.randn(8, 3, 4, 4))  # running statistics of its own
    load_vector(other, to_vector(one))
    assert torch.equal(to_vector(other), to_vector(one))
    with pytest.raises(ValueError, match="values do not fill"):
        load_vector(other, to_vector(one)[:-1])


def test_a_variance_below_zero_is_no_end_of_the_evaluation():
    """Noise of deviation 3 on every coordinate, as an update mechanism adds it: two of the four
    running variances come out negative. Evaluation stays finite; all else is as released."""
    net = model().eval()
    noisy = to_vector(net) + 3 * torch.randn(
        to_vector(net).shape, generator=torch.Generator().manual_seed(1)
    )
    released = noisy[-4:]  # the variances come last
    assert 0 < int((released < 0).sum()) < 4
    load_vector(net, noisy)
    assert torch.equal(net[1].running_var, released.clamp_min(0))
    assert torch.equal(to_vector(net)[:-4], noisy[:-4])
    assert bool(net(torch.randn(5, 3, 4, 4)).isfinite().all())
