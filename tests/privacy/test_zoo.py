"""Every model of the zoo: each engine gives the numbers of a plain loop, or refuses by name."""

import copy

import pytest
import torch

from repro.errors import InputError
from repro.privacy import check_engine
from repro.privacy.engines import choose
from tests.privacy.models import clipped, cross_entropy, looped_gradients, noiseless
from tests.privacy.zoo import FAST, NONE, SLOW, ZOO, batch_of


def test_it_is_a_zoo():
    assert len(ZOO) >= 60


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", ZOO)
def test_right_or_refused(name):
    """Float32 engines against ``backward`` on one record at a time in float64, at a clip norm
    that clips about half of the records; random models in evaluation mode, where both agree on
    what is computed, and one record's bound in training mode."""
    one = ZOO[name]
    torch.manual_seed(3)
    model = one.build()
    x, y = batch_of(one)
    if one.engine == NONE:
        for engine in ("auto", "bookkeeping", "vmap"):
            with pytest.raises(
                InputError, match=r"(layer|model|parameter|engine|loss_fn)[^:]*: got"
            ):
                noiseless(model, x, y, engine=engine)
        assert all(p.grad is None for p in model.parameters())
        return
    if one.random:
        result = noiseless(model, x[:1], y[:1], 0.01)
        assert (result.engine, result.clipped) == (one.engine, 1)
        assert float(result.flat.double().norm()) <= 0.01 * (1 + 1e-5)
        model.eval()
    rows = looped_gradients(copy.deepcopy(model), cross_entropy, x, y)
    clip_norm = float(rows.norm(dim=1).median()) * 1.0001
    expected = clipped(rows, clip_norm)
    assert check_engine(model, cross_entropy, x, y).engine.name == one.engine
    # What "auto" takes is not tried again by its name: that is most of the time, for equal sums.
    assert choose(one.engine, model).name == one.engine
    for engine in ("auto", SLOW if one.engine == FAST else FAST):
        try:
            result = noiseless(model, x, y, clip_norm, engine=engine)
        except InputError:
            assert engine != "auto"
            continue
        assert float((result.flat.double() - expected).norm()) <= 2e-5 * float(expected.norm())
    assert all(p.grad is None for p in model.parameters())
