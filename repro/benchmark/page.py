"""benchmark.md: one page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repro.benchmark.grid import ONE_PLACE, place_name
from repro.benchmark.results import DONE, NOT_RUN
from repro.report.comparison import signed
from repro.report.table import Column, Table, markdown, table_of_rows

FEW = 5  # seeds: cells with fewer are marked

_HEAD = """# Benchmark: private image classification

Test accuracy in per cent, mean ± standard deviation over seeds (number of seeds), after the last
round; δ = {delta:g}. ε holds for one record that is there or not (add/remove, as zero-out), was
computed again from what each run released, and is the largest over its seeds. With several
hospitals it holds against the planned coalition of a hospital with the server. \
{tuned}Where a cell says *{not_run}*, the reason stands below its table.
"""
_TUNED = (
    "¹ Settings chosen on private validation images of BloodMNIST: no ε here covers that search. "
)
_CLAIMED = "² Somebody's own file: ε from the events that it states; nobody here checked its code."


def page(document: Mapping[str, Any]) -> str:
    """The page of ``benchmark.json``'s content."""
    rows = document["cells"]
    tuned = any(row.get("tuned_on_private_images") for row in rows)
    parts = [_HEAD.format(delta=document["delta"], tuned=_TUNED if tuned else "", not_run=NOT_RUN)]
    for data in document["datasets"]:
        own = [row for row in rows if row["fingerprint"] == data["fingerprint"]]
        parts.append(f"## {_title(data)}\n\n{data['caption']}\n")
        for hospitals in dict.fromkeys(row["hospitals"] for row in own):
            here = [row for row in own if row["hospitals"] == hospitals]
            parts.append(markdown(_table(data, hospitals, here, document["epsilons"])))
        pairs = _differences(document["differences"], own, document["epsilons"])
        parts += [markdown(pairs)] if pairs.rows else []
    if document["not_run"]:
        parts.append("## Not run: no file here\n\n" + ", ".join(document["not_run"]) + ".\n")
    parts.append(
        f"Made by `repro benchmark` {document['version']}; the numbers behind it, each seed's, are "
        "in benchmark.json. How to enter a method: docs/benchmark.md.\n"
    )
    return "\n".join(parts)


def _title(data: Mapping[str, Any]) -> str:
    facts = [f"{data['classes']} {'labels' if data['multi_label'] else 'classes'}"]
    if data["side"]:
        facts.append(
            f"{data['side']} px, {data['channels']} channel" + "s" * (data["channels"] > 1)
        )
    facts.append(f"{data['train_images']:,} training and {data['test_images']:,} test images")
    return f"{data['name']} ({', '.join(facts)})"


def _table(
    data: Mapping[str, Any],
    hospitals: int,
    rows: Sequence[Mapping[str, Any]],
    asked: Sequence[float],
) -> Table:
    cells: dict[str, dict[str, str]] = {}
    notes = []
    for row in rows:
        name = str(row["method"])
        mark = "¹" * bool(row.get("tuned_on_private_images"))
        mark += "²" * (row["status"] == DONE and not row["runs"])
        line = cells.setdefault(name, {"method": name})
        line["method"] = name + mark if mark else line["method"]
        line[f"{row['epsilon_asked']:g}"] = _cell(row)
        if row["reason"]:
            notes.append((str(row["reason"]), f"{name} at ε = {row['epsilon_asked']:g}"))
    reasons = dict.fromkeys(reason for reason, _ in notes)
    lines = [f"{reason}: " + ", ".join(w for r, w in notes if r == reason) for reason in reasons]
    if any("²" in line["method"] for line in cells.values()):
        lines.append(_CLAIMED)
    return Table(
        name="benchmark",
        title=place_name(hospitals).capitalize(),
        columns=[
            Column("method", "method"),
            *(Column(f"{epsilon:g}", f"ε = {epsilon:g}", number=True) for epsilon in asked),
        ],
        rows=list(cells.values()),
        caption="AUC where scores are kept; the least recall of a class beside it."
        if hospitals == ONE_PLACE
        else "Noise shared inside a secure sum.",
        notes=lines,
    )


def _cell(row: Mapping[str, Any]) -> str:
    if row["status"] != DONE:
        return NOT_RUN
    accuracy = row["accuracy"]
    spread = "" if accuracy["sd"] is None else f" ± {100 * accuracy['sd']:.2f}"
    lines = [f"{100 * accuracy['mean']:.2f}{spread} ({row['n']})" + " few seeds" * (row["n"] < FEW)]
    if "auc" in row:
        lines.append(f"AUC {100 * row['auc']['mean']:.2f}")
    lines.append(f"worst class {100 * row['worst_recall']['mean']:.1f}")
    lines.append(f"ε {row['epsilon']:.4g}")
    return "\n".join(lines)


def _differences(
    pairs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], asked: Sequence[float]
) -> Table:
    """For each place and ε, what the best method has over every other. rows: one data set's."""
    lines = []
    for hospitals in dict.fromkeys(row["hospitals"] for row in rows):
        for epsilon in asked:
            cell = (hospitals, epsilon)
            done = [r for r in rows if r["status"] == DONE and _of(r) == cell]
            best = max(done, key=lambda row: float(row["accuracy"]["mean"]), default=None)
            mine = [
                p for p in pairs if best is not None and p["fingerprint"] == best["fingerprint"]
            ]
            for pair in (p for p in mine if _of(p) == cell):
                assert best is not None
                if best["method"] not in (pair["method"], pair["over"]):
                    continue
                sign = 1 if pair["method"] == best["method"] else -1
                other = pair["over"] if sign == 1 else pair["method"]
                lines.append(
                    {
                        "place": place_name(hospitals),
                        "ε": epsilon,
                        "best": best["method"],
                        "over": other,
                        "seeds: mean [95 %], p": _points(pair["seeds"], "p_holm", sign),
                        "images: mean [95 %], p": _points(pair["images"], "p", sign),
                    }
                )
    return table_of_rows(
        "differences",
        "What the best method has over each other one, points of accuracy",
        lines,
        caption="Over the same seeds (paired Student test, p adjusted by Holm for all pairs of the "
        "cell) and, where scores are kept, over the same test images. All pairs are in "
        "benchmark.json.",
    )


def _of(one: Mapping[str, Any]) -> tuple[int, float]:
    return one["hospitals"], one["epsilon_asked"]


def _points(found: Mapping[str, Any] | None, p: str, sign: int) -> str:
    if found is None:
        return "–"
    text = signed(sign * found["mean"])
    if found["interval"] is not None:
        low, high = sorted(sign * bound for bound in found["interval"])
        text += f" [{signed(low)}, {signed(high)}]"
    if found[p] is not None:
        text += f", p = {found[p]:.2g}"
    return text
