"""Figures: deterministic, captioned, readable in grey."""

import dataclasses
import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from repro.report import style
from repro.report.clinical import recalls
from repro.report.items import FIGURES, ITEMS, draw, figure_classes, find
from repro.report.sources import Sources
from tests.report import fake


def luminance(color):
    """Relative luminance of sRGB (WCAG 2.1)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def grey(color):
    """CIE lightness L*, 0 to 100: equal steps look equally far apart in grey."""
    y = luminance(color)
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_neighbouring_series_differ_in_grey_and_in_marks():
    """The first four series, which share a panel, are at least 10 L* apart, and marks differ."""
    shades = [grey(color) for color, _, _ in style.MARKS[:4]]
    for a, b in itertools.combinations(shades, 2):
        assert abs(a - b) >= 10
    assert len({marker for _, _, marker in style.MARKS}) == len(style.MARKS)
    assert len({str(line) for _, line, _ in style.MARKS}) == len(style.MARKS)


@pytest.mark.parametrize("item", FIGURES, ids=lambda item: item.name)
def test_every_figure_is_there_as_svg_and_png(drawn, item):
    root = ElementTree.parse(drawn / "figures" / f"{item.name}.svg").getroot()
    assert root.tag.endswith("svg")
    assert (drawn / "figures" / f"{item.name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("item", FIGURES, ids=lambda item: item.name)
def test_every_figure_says_its_data_profile_and_seeds(sources, item):
    with style.applied():
        figure = item.build(sources)
    caption = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    if "ndependent of data" not in caption:
        assert "FAKE RECORDS OF A TEST" in caption
        assert "Profile: quick" in caption or "Independent of profile" in caption
        assert "Seeds: 0, 1, 2" in caption or "with seed 0" in caption
    assert figure.texts[0].get_text().startswith(item.label)


def test_equal_runs_give_equal_bytes(drawn, tmp_path):
    """Both formats of one figure; all figures' SVGs stand in the report, which is compared too."""
    fake.store(tmp_path)
    fake.side_files(tmp_path)
    for path in draw(find("figure", "confusion"), Sources.of(tmp_path)):
        assert path.read_bytes() == (drawn / "figures" / path.name).read_bytes()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_an_empty_store_draws_everything_as_not_run(tmp_path, item):
    assert all(path.exists() for path in draw(item, Sources.of(tmp_path)))


def test_losses_beyond_all_bounds_do_not_break_the_curves(tmp_path):
    store = fake.store(tmp_path, ["fedavg"])
    run = fake.record("documented-secagg", 10, 0)
    losses = ["2.1", "1e30", *itertools.repeat("nan", len(run.history) - 3), "inf"]
    pairs = zip(run.history, losses, strict=True)
    history = [dict(entry, loss=float(loss)) for entry, loss in pairs]
    store.save(dataclasses.replace(run, history=history, final_loss=float("inf")))
    draw(find("figure", "loss"), Sources.of(tmp_path))


def test_recall_and_confusion_are_of_the_true_class():
    """Ten of class 0, all found, and ninety others of which 30 are taken for class 0."""
    run = dataclasses.replace(fake.record("fedavg", 10, 0), confusion=[[10, 0], [30, 60]])
    assert recalls(run.confusion) == [1.0, 60 / 90]  # the precisions are 1/4 and 1
    # The larger class first.
    assert figure_classes.percentages(run) == [[100 * 60 / 90, 100 * 30 / 90], [0.0, 100.0]]
