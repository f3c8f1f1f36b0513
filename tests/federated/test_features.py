"""Fixed features: computed once, kept whole, the same bits however many threads compute them."""

import numpy as np
import pytest
import torch

from repro.accounting import PoissonSampledGaussianEvent, RDPAccountant
from repro.data.synthetic import synthetic_split
from repro.errors import InputError
from repro.federated import features as module
from repro.federated import whitening
from repro.federated.features import FixedFeatures, LabelledFeatures, fixed_features
from repro.federated.images import normalise
from repro.federated.whitening import Whitened, Whitening
from repro.models import DPResNet, ScatteringLinear
from repro.models.random_filters import RandomFilterRings, TurnedFilterRings
from tests.federated.small import run, small_dataset, small_settings


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (150, 28, 28, 3), dtype=np.uint8)


def test_what_has_fixed_features():
    assert isinstance(ScatteringLinear(), FixedFeatures)
    assert not isinstance(DPResNet(width=4), FixedFeatures)


def test_kept_features_are_those_computed(images, tmp_path, monkeypatch):
    """And the second time nothing is computed; other images are other features."""
    model = ScatteringLinear()
    computed = fixed_features(model, images)
    first = fixed_features(model, images, tmp_path / "features")
    assert np.array_equal(first, computed)
    monkeypatch.setattr(module, "_compute", None)
    assert np.array_equal(fixed_features(model, images, tmp_path / "features"), computed)
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1
    with pytest.raises(TypeError):
        fixed_features(model, images[:10], tmp_path / "features")


def test_kept_features_are_of_this_code_and_library(images, tmp_path, monkeypatch):
    fixed_features(ScatteringLinear(), images, tmp_path)
    monkeypatch.setattr(module.torch, "__version__", "another")
    fixed_features(ScatteringLinear(), images, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_kept_features_are_of_the_whitening_that_was_given(images, tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "IMAGES", 8)
    own = Whitened(RandomFilterRings(), 3)
    other = Whitening(*(2 * one for one in own.statistics()))
    for given in (None, own.statistics(), other):
        fixed_features(Whitened(RandomFilterRings(), 3, given=given), images[:4], tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    with pytest.raises(InputError, match="whitening"):
        Whitened(RandomFilterRings(), 3, given=Whitening(*(one[:5] for one in other)))


def test_number_of_workers_changes_no_bit(images, monkeypatch):
    model = ScatteringLinear()
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(module.os, "cpu_count", lambda cores=cores: cores)
        results.append(fixed_features(model, images))
    assert np.array_equal(*results)


@pytest.mark.parametrize("model", [ScatteringLinear, RandomFilterRings, TurnedFilterRings])
def test_an_images_features_do_not_depend_on_how_many_others_there_are(model, images, monkeypatch):
    """Libraries add up a handful of images in another order than many."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    made = model()
    made = made if model is ScatteringLinear else Whitened(made, 3)
    everybody = fixed_features(made, images[:66])  # a whole batch and a part of one
    for count in (1, 3, 63, 65):
        assert np.array_equal(fixed_features(made, images[:count]), everybody[:count])


def test_threads_move_no_axis_of_the_whitening(monkeypatch):
    """Also those axes in which drawn images hardly vary, which any last bit would turn: hospitals
    whose machines have other numbers of cores must mean the same by a feature."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(Whitened(RandomFilterRings(), 3).statistics())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_large_images_have_the_features_of_their_averages(monkeypatch):
    """224 px: blocks of eight; 64 px: every pixel's area, as weights say that add up to one."""
    stream = np.random.default_rng(2)
    large = torch.from_numpy(stream.integers(0, 256, (2, 3, 224, 224), dtype=np.uint8))
    blocks = large.double().unflatten(3, (28, 8)).unflatten(2, (28, 8)).mean(dim=(3, 5))
    torch.testing.assert_close(module.reduced(large.double()), blocks)
    flat = torch.full((1, 1, 64, 64), 0.25)
    assert torch.equal(module.reduced(flat), torch.full((1, 1, 28, 28), 0.25))
    assert module.reduced(small := torch.rand(1, 1, 28, 28)) is small
    monkeypatch.setattr(whitening, "IMAGES", 8)
    made = Whitened(RandomFilterRings(1), 1, "discs")
    even = np.full((3, 112, 112, 1), 90, np.uint8)
    assert np.allclose(
        fixed_features(made, even), fixed_features(made, even[:, :28, :28]), atol=1e-5
    )


def test_other_data_are_whitened_by_images_without_cells_or_classes(monkeypatch):
    """Other axes, of drawn discs; kept features of the one are never taken for the other."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    image = torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    cells, discs = (Whitened(RandomFilterRings(), 3, drawn) for drawn in whitening.DRAWN)
    assert not torch.allclose(cells.features(image), discs.features(image))
    pixels = np.zeros((1, 28, 28, 3), np.uint8)
    assert module._digest(cells, pixels) != module._digest(discs, pixels)
    with pytest.raises(InputError, match="drawn"):
        Whitened(RandomFilterRings(), 3, "flowers")


class Scaled:
    """Six raw features of very different scales that go together."""

    head, raw_features, whitened_features = None, 6, 4
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) @ torch.diag(
        torch.logspace(-2, 2, 6)
    )

    def features(self, images):
        halves = torch.cat([images[:, :, :14], images[:, :, 14:]], dim=1)
        return halves.mean(dim=(2, 3)) @ self.mixing


def test_whitened_features_are_those_of_the_definition(monkeypatch):
    """Standardised by the synthetic images, on their leading axes over √(λ + ridge), length 1.

    In float64 and by NumPy; an axis's sign means nothing. One image lies far out: clamped.
    """
    monkeypatch.setattr(whitening, "IMAGES", 40)
    drawn = synthetic_split([40] * 8, stream=whitening.STREAM).images
    raw = Scaled().features(normalise(torch.from_numpy(drawn).permute(0, 3, 1, 2))).double().numpy()
    mean, deviation = raw.mean(0), raw.std(0, ddof=1) + 1e-3
    others = torch.rand(9, 3, 28, 28) * 2 - 1
    others[0] *= 1e4

    def standard(features):
        return np.clip((features - mean) / deviation, -12, 12)

    values, vectors = np.linalg.eigh(np.cov(standard(raw).T))
    axes = vectors[:, 2:] / np.sqrt(values[2:] + 0.01)
    wanted = standard(Scaled().features(others).double().numpy()) @ axes
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = Whitened(Scaled(), 3).features(others).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=2e-3)


def test_labelled_features_pass_through(images):
    values = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    labelled = LabelledFeatures.of(values, np.arange(6), "cpu")
    chosen = labelled.take(np.array([4, 1]))
    assert isinstance(chosen, LabelledFeatures)
    assert chosen.labels.tolist() == [4, 1]
    assert torch.equal(chosen.inputs(), torch.from_numpy(values[[4, 1]]))
    values[4] = 0  # they are copies
    assert chosen.inputs()[0].any()


def test_a_run_on_features_trains_the_head_alone_and_repeats(tmp_path):
    """The private arm: every step sees features, its record counts the linear layer, and a second
    store gives the same bits. Without noise the same pictures become learnable."""
    data = small_dataset()
    settings = small_settings("scattering-dpsgd-eps6-secagg", rounds=2)
    first, second = (run(settings, data, tmp_path / name) for name in ("one", "two"))
    assert first.stable() == second.stable()
    assert first.model["parameters"] == 4 * (3 * 81 * 49 + 1)
    (row,) = [r for r in first.privacy if r["unit"] == "record" and "sum" not in r["view"]][:1]
    # Every image takes part here, so what is stated, and calibrated by, is exact.
    step = PoissonSampledGaussianEvent(row["noise_multiplier"], row["sample_rate"])
    by_rdp = RDPAccountant().compose(step, row["steps"]).epsilon(row["delta"])[0]
    assert row["method"] == "gaussian"
    assert 5.99 < row["epsilon_total"] <= 6.0 < by_rdp
    plain = run(small_settings("scattering-fedavg", rounds=2), data, tmp_path / "one")
    assert plain.final_accuracy > 0.6  # of four classes; the private run stays below
    assert len(list((tmp_path / "one" / "features").glob("*.npy"))) == 2  # train and test
