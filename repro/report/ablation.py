"""Table and figure of an ablation: ``OUT/ablations/NAME.{md,csv,json,html}`` and ``.{svg,png}``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from repro.ablations.base import Ablation, Cell, Conclusion
from repro.ablations.measures import MEASURES
from repro.report import style
from repro.report.cache import digest_of, is_current, mark_current, noted_paths
from repro.report.evidence import Evidence, data_kind
from repro.report.statistics import Summary, percent, percent_interval
from repro.report.table import Column, Table, as_json, write_table
from repro.report.table import cell as shown
from repro.runs.profiles import Profile
from repro.runs.record import RunRecord

FOLDER = "ablations"
CHARACTERS_PER_INCH = 14  # of tick labels, at the house style's size


def draw_ablation(
    ablation: Ablation,
    profile: Profile,
    cells: Sequence[Cell],
    conclusion: Conclusion | None,
    out: Path,
) -> list[Path]:
    """Write the table and the figure; returns their paths, the table's first.

    Both are left alone where they were drawn from the same: all that the figure shows stands in
    the table's data.
    """
    caption = _caption(ablation, profile, cells)
    table = _table(ablation, cells, conclusion, caption)
    note, shown = f"ablation-{ablation.name}", digest_of(as_json(table))
    if is_current(out, note, shown):
        return in_order(noted_paths(out, note))
    paths = write_table(table, out / FOLDER)
    with style.applied():
        paths += style.write_figure(_figure(ablation, cells, caption), out / FOLDER, ablation.name)
    mark_current(out, note, shown, paths)
    return in_order(paths)


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The Markdown table first, then the rest by name."""
    return sorted(paths, key=lambda path: (path.suffix != ".md", path.name))


def _caption(ablation: Ablation, profile: Profile, cells: Sequence[Cell]) -> str:
    records: list[RunRecord] = [record for cell in cells for record in cell.records]
    evidence = Evidence(profile.name, data_kind(records[0].dataset), tuple(records))
    images = "" if ablation.judged_on == "test" else " Judged on the hospitals' held-out images."
    hospitals = ", ".join(map(str, sorted({cell.settings.hospitals for cell in cells})))
    return f"{evidence.caption()} Hospitals: {hospitals}.{images}"


def _final(cell: Cell) -> Summary:
    summary = Summary.of([record.final_accuracy for record in cell.records])
    assert summary is not None  # every variant has at least one seed
    return summary


def _table(
    ablation: Ablation, cells: Sequence[Cell], conclusion: Conclusion | None, caption: str
) -> Table:
    columns = [
        Column("variant", ablation.axis),
        Column("series", "arm"),
        Column("last", f"{ablation.judged_on} accuracy (%), last round", number=True),
        Column("interval", "95 % interval", number=True),
        Column("best", "best round", number=True),
        Column("n", "seeds", number=True),
    ]
    columns += [Column(name, MEASURES[name].label, number=True) for name in ablation.columns]
    rows, data = [], []
    for cell in cells:
        final = _final(cell)
        best = Summary.of([record.best_accuracy for record in cell.records])
        measured = {name: MEASURES[name].of(cell) for name in ablation.columns}
        series = ablation.series(cell.settings)
        rows.append(
            {
                "variant": cell.label,
                "series": series,
                "last": percent(final),
                "interval": percent_interval(final.interval()) or "–",
                "best": percent(best),
                "n": str(final.n),
                **{name: shown(value) for name, value in measured.items()},
            }
        )
        data.append(_numbers(cell, series, final, measured))
    return Table(
        name=ablation.name,
        title=f"Ablation. {ablation.question}",
        columns=columns,
        rows=rows,
        caption=caption,
        notes=[
            "Mean ± standard deviation over seeds; interval: Student's t for the mean. The best "
            "round is chosen on the images it is measured on, and therefore optimistic.",
            *(conclusion.notes if conclusion else ()),
        ],
        data={"variants": data, "conclusion": conclusion.data if conclusion else None},
    )


def _numbers(cell: Cell, series: str, final: Summary, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "variant": cell.label,
        "series": series,
        "hospitals": cell.settings.hospitals,
        "seeds": [record.seed for record in cell.records],
        "mean": final.mean,
        "deviation": final.deviation,
        "runs": [record.run_id for record in cell.records],
        **measured,
    }


def _figure(ablation: Ablation, cells: Sequence[Cell], caption: str) -> Figure:
    labels = list(dict.fromkeys(cell.label for cell in cells))
    names = list(dict.fromkeys(ablation.series(cell.settings) for cell in cells))
    width = max(6.5, 0.75 * len(labels) + 2.0)
    figure = style.new_figure(
        width,
        4.6,
        f"Ablation: {ablation.axis}",
        f"{ablation.question} Mean over seeds of the last round; small points: each seed. "
        f"{caption}",
    )
    axes = figure.subplots()
    for index, name in enumerate(names):
        mark = style.mark(index)
        chosen = [cell for cell in cells if ablation.series(cell.settings) == name]
        finals = [_final(cell) for cell in chosen]
        shift = 0.12 * (index - (len(names) - 1) / 2)  # side by side, so that no bar hides another
        places = [labels.index(cell.label) + shift for cell in chosen]
        for place, cell in zip(places, chosen, strict=True):
            seeds = [100 * record.final_accuracy for record in cell.records]
            axes.plot([place] * len(seeds), seeds, color=mark.color, marker=".", markersize=5,
                      linestyle="none", alpha=0.6)  # fmt: skip
        axes.plot(
            places,
            [100 * final.mean for final in finals],
            color=mark.color,
            marker=mark.marker,
            linestyle=mark.line if ablation.ordered else "none",
            label=name,
        )
    longest = max(len(line) for label in labels for line in label.split("\n"))
    crowded = longest > CHARACTERS_PER_INCH * (width - 1) / len(labels)
    axes.set_xticks(range(len(labels)), labels, rotation=30 if crowded else 0)
    if crowded:
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("right")
    axes.set_xlabel(ablation.axis)
    axes.set_ylabel(f"{ablation.judged_on} accuracy (%)")
    axes.set_ylim(0, 104)
    style.legend_below(figure, *axes.get_legend_handles_labels(), min(len(names), 3))
    return figure
