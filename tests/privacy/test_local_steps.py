"""A record's own steps: the same as a loop over records, and never more than C in all."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repro.errors import InputError
from repro.models.dpresnet import DPResNet
from repro.privacy import Clipping
from repro.privacy.batch import Batch
from repro.privacy.clipping import KINDS
from repro.privacy.engines import ENGINES, Unsupported
from repro.privacy.local_steps import LocalSteps, clipped_displacements
from repro.privacy.per_sample import per_sample_gradients
from repro.privacy.step import clipped_sum
from tests.privacy.models import Conv, Tokens, clipped, cross_entropy, squared_error


def looped_displacements(model, loss_fn, inputs, targets, steps, rate, views=1):
    """Flat (B, P) float64 displacements over the rate: ``torch.optim.SGD`` on a copy a record."""
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        own = copy.deepcopy(model).double()
        start = torch.cat([p.detach().flatten().clone() for p in own.parameters()])
        optimizer = torch.optim.SGD(own.parameters(), lr=rate)
        x = (x if views > 1 else x.unsqueeze(0)).double() if x.is_floating_point() else x[None]
        for _ in range(steps):
            optimizer.zero_grad()
            loss_fn(own(x), y.unsqueeze(0).expand(views, *y.shape)).mean().backward()
            optimizer.step()
        end = torch.cat([p.detach().flatten() for p in own.parameters()])
        rows.append((start - end) / rate)
    return torch.stack(rows)


def example(name, records=5, views=1):
    torch.manual_seed(3)
    shape = (records, views) if views > 1 else (records,)
    if name == "tokens":
        return Tokens(), torch.randint(0, 11, (records, 4)), torch.randint(0, 3, (records,))
    if name == "dpresnet":
        model = DPResNet(3, 4, width=2)
        return model, torch.randn(*shape, 3, 8, 8), torch.randint(0, 4, (records,))
    return Conv(inputs=2), torch.randn(*shape, 2, 6, 6), torch.randint(0, 3, (records,))


@pytest.mark.parametrize(
    ("name", "views"), [("dpresnet", 1), ("dpresnet", 2), ("conv", 3), ("tokens", 1)]
)
def test_three_steps_are_those_of_an_optimizer_on_every_record_alone(name, views):
    model, x, y = example(name, views=views)
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    expected = looped_displacements(model, cross_entropy, x, y, 3, 0.4, views)
    once = looped_displacements(model, cross_entropy, x, y, 1, 0.4, views)
    assert float((expected - 3 * once).norm()) > 0.01 * float(expected.norm())  # the steps matter
    limit = float(expected.norm(dim=1).median())  # some are clipped, some are not
    state = copy.deepcopy(model.state_dict())
    for chunk in (2, 64):
        found, engine = clipped_displacements(
            model, cross_entropy, x, y,
            steps=3, rate=0.4, clipping=Clipping(limit), chunk_size=chunk, views=views,
        )  # fmt: skip
        assert engine == "local-steps"
        assert 0 < found.clipped < found.records == 5
        assert torch.allclose(found.norms, expected.norm(dim=1), rtol=1e-9)
        difference = (found.total - clipped(expected, limit)).norm()
        assert float(difference) < 1e-9 * limit
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("engine", ["auto", "vmap"])
def test_one_step_is_the_gradient_to_the_last_bit(engine):
    model, x, y = example("dpresnet")
    clipping = Clipping(0.7)
    own, name = clipped_displacements(
        model, cross_entropy, x, y, steps=1, rate=5.0, clipping=clipping, engine=engine
    )
    today, same = clipped_sum(model, cross_entropy, x, y, clipping=clipping, engine=engine)
    assert name == same
    assert torch.equal(own.total, today.total)
    # And the loop itself, were it run once.
    batch = Batch(model, cross_entropy, x, y, clipping)
    moved = LocalSteps(1, 5.0).displacements(batch)
    gradients = per_sample_gradients(model, cross_entropy, x, y)
    assert moved.keys() == gradients.keys()
    assert all(torch.equal(moved[key], gradients[key]) for key in moved)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(2, 5),
    rate=st.sampled_from([1e-6, 0.1, 10.0, 1e4, 1e30]),
    level=st.sampled_from([1e-3, 1.0, 1e4]),
    clip_norm=st.sampled_from([1e-4, 1.0, 50.0]),
    kind=st.sampled_from(KINDS),
)
def test_no_record_adds_more_than_the_clip_norm(seed, steps, rate, level, clip_norm, kind):
    """Steps that explode included: those end at NaN or Inf, and then add nothing."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = level * torch.randn(3, 4), torch.randn(3, 3)
    # The engine itself, without the gate: the bound must not hang on what was tried before.
    rule = {"engine": LocalSteps(steps, rate), "clipping": Clipping(clip_norm, kind)}
    totals = []
    for records in (slice(0, 1), slice(0, 2), slice(0, 3)):
        found, _ = clipped_sum(model, squared_error, x[records], y[records], **rule)
        assert torch.isfinite(found.total).all()
        totals.append(found.total.double())
    first, *later = totals
    assert float(first.norm()) <= clip_norm * (1 + 1e-5)
    for before, after in zip(totals, later, strict=False):  # one record more
        assert float((after - before).norm()) <= clip_norm * (1 + 1e-5)


def two_steps_of_local_sgd(model, x, y, rate, share, clip_norm):
    """What one hospital sums in two ordinary local steps on one batch, its noise share added to
    the first: (first, second), both before the secure sum hides anything."""
    rule = {"clipping": Clipping(clip_norm), "engine": ENGINES["vmap"]}
    first, _ = clipped_sum(model, squared_error, x, y, **rule)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.weight -= rate * (first.total + share).view(moved.weight.shape)
    second, _ = clipped_sum(moved, squared_error, x, y, **rule)
    return float(first.total), float(second.total)


def test_one_record_moves_everybody_elses_second_step_but_not_their_own_steps():
    """Why ordinary local steps do not fit one sum: whatever the hospital's own share of the noise
    was, there are two data sets that differ in one record and whose second sums differ by nearly
    2 C a record. The same data with steps of every record's own differ by C at most."""
    records, clip_norm, rate = 60, 1.0, 0.01
    share_deviation = 2.0 * clip_norm / 10**0.5  # z = 2, of ten hospitals
    stream = torch.Generator().manual_seed(8)
    for share in share_deviation * torch.randn(8, generator=stream, dtype=torch.float64):
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        # A record (a, y) has loss (a w − y)², which pulls w to y/a by at least C. The first step
        # ends on this side of that place without the record more, and beyond it with it.
        place = -rate * (records * clip_norm + float(share) + clip_norm / 2)
        x = torch.full((records, 1), 1e4, dtype=torch.float64)
        y = x * place
        more_x, more_y = torch.cat([x, x[:1]]), torch.cat([y, y[:1] - 1e6])
        without = two_steps_of_local_sgd(model, x, y, rate, share, clip_norm)
        with_it = two_steps_of_local_sgd(model, more_x, more_y, rate, share, clip_norm)
        assert abs(without[0] - with_it[0]) == pytest.approx(clip_norm)
        assert abs(without[1] - with_it[1]) == pytest.approx((2 * records - 1) * clip_norm)
        own = {"engine": LocalSteps(2, rate), "clipping": Clipping(clip_norm)}
        fewer, _ = clipped_sum(model, squared_error, x, y, **own)
        more, _ = clipped_sum(model, squared_error, more_x, more_y, **own)
        assert abs(float(more.total - fewer.total)) <= clip_norm * (1 + 1e-9)


class Mixing(nn.Module):
    """Takes the batch's mean off every record."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        h = self.layer(x)
        return h - h.mean(0, keepdim=True)


def test_what_does_not_fit_is_refused():
    x, y = torch.randn(6, 4), torch.randint(0, 3, (6,))
    rule = {"clipping": Clipping(1.0)}
    with pytest.raises(InputError, match="record"):
        clipped_displacements(Mixing(), cross_entropy, x, y, steps=2, rate=0.1, **rule)
    model = nn.Linear(4, 3)
    for steps, rate, named in ((0, 0.1, "steps"), (2, 0.0, "rate"), (1, float("nan"), "rate")):
        with pytest.raises(InputError) as refused:
            clipped_displacements(model, cross_entropy, x, y, steps=steps, rate=rate, **rule)
        assert refused.value.field == named
    with pytest.raises(Unsupported, match="several steps"):
        clipped_displacements(
            model, cross_entropy, x, y, steps=2, rate=0.1, engine="bookkeeping", **rule
        )


def test_no_records_add_nothing():
    model = nn.Linear(4, 3)
    found, _ = clipped_displacements(
        model, cross_entropy, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long),
        steps=3, rate=0.1, clipping=Clipping(1.0),
    )  # fmt: skip
    assert found.records == 0
    assert not found.total.any()
