"""DPResNet's variants: the defaults are DPResNet itself, each option does what it says."""

from __future__ import annotations

import pytest
import torch

from repro.errors import InputError
from repro.models.dpresnet import DPResNet
from repro.models.registry import build_model
from repro.models.variants import DOWNSAMPLINGS, NORMALISATIONS, SKIPS, DPResNetVariant
from repro.randomness import RootSeed
from repro.runs.settings import ModelSettings


def build(**options):
    settings = ModelSettings(width=8, **options)
    return build_model(settings, in_channels=3, num_classes=8, seed=RootSeed.from_user(3))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def test_at_its_defaults_a_variant_is_dpresnet():
    """Same names, same values from the same seed, same outputs and gradients, bit for bit."""
    torch.manual_seed(0)
    paper = DPResNet(width=8)
    torch.manual_seed(0)
    variant = DPResNetVariant(width=8)
    mine, theirs = variant.state_dict(), paper.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    outputs = [model(images()) for model in (paper, variant)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for a, b in zip(paper.parameters(), variant.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_default_settings_build_the_papers_class():
    assert type(build()) is DPResNet
    assert type(build(skips="all")) is DPResNetVariant


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("normalisation", kind) for kind in NORMALISATIONS if kind != "group"),
        *(("downsampling", kind) for kind in DOWNSAMPLINGS if kind != "stride"),
        *(("skips", kind) for kind in SKIPS if kind != "first"),
    ],
)
def test_each_option_changes_the_function_but_not_the_shared_weights(option, value):
    """Convolutions start from DPResNet's weights, so a variant differs by its option alone."""
    paper, variant = build().eval(), build(**{option: value}).eval()
    theirs = paper.state_dict()
    # Biases, drawn where there is no normalisation, shift the random stream of what follows.
    if value != "none" or option != "normalisation":
        shared = {n: t for n, t in variant.state_dict().items() if n in theirs and t.ndim > 1}
        assert len(shared) == 9  # eight convolutions and the classifier
        assert all(torch.equal(theirs[name], tensor) for name, tensor in shared.items())
    output = variant(images())
    assert output.shape == (4, 8)
    assert not torch.allclose(output, paper(images()), atol=1e-4)


def test_only_batch_normalisation_mixes_records():
    """In training, changing one image changes the others' outputs under BatchNorm only: of the
    paper's own network, the default, too."""
    for kind in NORMALISATIONS:
        model = build(normalisation=kind).train()
        one, other = images(), images()
        other[0] = images(9)[0]
        same = torch.allclose(model(one)[1:], model(other)[1:], atol=1e-6)
        assert same == (kind != "batch"), kind


def test_unknown_options_and_other_models_are_refused():
    with pytest.raises(InputError, match="skips"):
        DPResNetVariant(skips="two")
    with pytest.raises(InputError, match="dpresnet"):
        build_model(ModelSettings("resnet9", skips="all"), in_channels=3, num_classes=8)
