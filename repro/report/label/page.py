"""A privacy label as one page: Markdown for the terminal and files, HTML that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from repro.formatting import small
from repro.report.privacy import epsilon
from repro.report.rendering import render
from repro.report.table import Column, Table

FAITHFUL = 0.01  # a regret below it: μ alone says nearly all
NOTHING = "–"
_WIDE, _HIGH = 360, 240  # of the drawing in label.html

Label = dict[str, Any]


def as_markdown(label: Label) -> str:
    parts = [f"# {_title(label)}", *(f"**{line}**" for line in label["first"]), _sentence(label)]
    parts += [f"## {table.title}\n\n{table}" for table in _tables(label)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(label: Label) -> str:
    return render(
        "label.html",
        title=_title(label),
        first=label["first"],
        sentence=_sentence(label),
        curve=_curve(label["trade_off"]),
        tables=_tables(label),
    )


def _title(label: Label) -> str:
    return f"Privacy label: {label['basic']['name']}"


def _sentence(label: Label) -> str:
    """ε in a sentence, then what it means for a guess; "" without a guarantee."""
    loss = label["privacy_loss"]
    if loss["view"] is None:
        return ""
    parameters = loss["privacy_parameters"]
    other = loss["epsilon_exchanged"]
    swapped = f"; ε = {epsilon(other)} if it is exchanged for another" if _known(other) else ""
    said = (
        f"ε = {epsilon(parameters['epsilon'])} at δ = {small(parameters['delta'])} for one "
        f"{loss['privacy_unit']} that contributes or not{swapped}. Against: {loss['view']}."
    )
    for point in label["trade_off"]:
        if point["false_positive_rate"] == 0.01:
            said += (
                " Whoever guesses whether a given one took part, and is wrong about at most 1 in "
                "100 that did not, recognises at most "
                f"{_share_found(point)} % of those that did."
            )
    return said


def _tables(label: Label) -> list[Table]:
    made = [_facts("Guarantee", _guarantee(label)), _views(label), _trade_off(label)]
    made.append(_facts("What it rests on", _rests_on(label)))
    return [table for table in made if table.rows]


def _facts(title: str, facts: Iterable[tuple[str, str]]) -> Table:
    columns = (Column("field", "field"), Column("value", "value"))
    rows = [{"field": field, "value": value} for field, value in facts if value]
    return Table(title.lower().replace(" ", "-"), title, columns, rows, caption="")


def _guarantee(label: Label) -> list[tuple[str, str]]:
    loss, gaussian = label["privacy_loss"], label["gaussian_dp"]
    count = loss["number_of_privacy_units"]
    others = "; ".join(
        f"a {unit}: ε = {epsilon(largest)}" for unit, largest in loss["other_units"].items()
    )
    units = f" ({count:,} of them)" if count else ""
    return [
        ("privacy unit", f"one {loss['privacy_unit']}{units}" if loss["privacy_unit"] else "none"),
        ("neighbouring data sets", loss["privacy_unit_details"]),
        ("ε", _epsilon(loss["privacy_parameters"]["epsilon"])),
        ("δ", small(loss["privacy_parameters"]["delta"]) if loss["view"] else NOTHING),
        ("ε, one exchanged for another", _epsilon(loss["epsilon_exchanged"])),
        ("μ of Gaussian DP", _gaussian(gaussian)),
        ("other units (largest ε of any view)", others),
        ("variant", label["dp_variant"]["variant_name"]),
    ]


def _gaussian(gaussian: dict[str, Any] | None) -> str:
    if gaussian is None:
        return ""
    if gaussian["least_rate"] == 0:
        return f"{gaussian['mu']:.4g}, regret 0: exactly Gaussian"
    verdict = (
        "μ says nearly all" if gaussian["regret"] < FAITHFUL else "μ alone misleads: use the curve"
    )
    whose = gaussian["of_hospital"]
    only = "" if whose is None else f"; of hospital {whose}, whose ε is largest, as the curve below"
    return (
        f"{gaussian['mu']:.4g}, regret {gaussian['regret']:.2g} ({verdict}); for error rates from "
        f"{gaussian['least_rate']:g}{only}"
    )


def _views(label: Label) -> Table:
    columns = (
        Column("view", "who sees it"),
        Column("trust", "holds if"),
        Column("epsilon", "ε", number=True),
        Column("exchanged", "ε, exchanged", number=True),
    )
    rows = [
        {
            "view": view["view"],
            "trust": view["trust_assumptions"] or "every hospital follows the protocol",
            "epsilon": _epsilon(view["epsilon"]),
            "exchanged": _epsilon(view["epsilon_exchanged"]),
        }
        for view in label["views"]
    ]
    return Table("views", "Who sees what", columns, rows, caption="")


def _trade_off(label: Label) -> Table:
    columns = (
        Column("positive", "wrong about those not in it, at most", number=True),
        Column("negative", "misses of those in it, at least", number=True),
        Column("found", "recognises of those in it, at most", number=True),
    )
    rows = [
        {
            "positive": f"{100 * point['false_positive_rate']:g} %",
            "negative": f"{100 - float(_share_found(point)):.1f} %",
            "found": f"{_share_found(point)} %",
        }
        for point in label["trade_off"]
    ]
    return Table("trade-off", "What can be found out (trade-off curve)", columns, rows, caption="")


def _share_found(point: dict[str, float]) -> str:
    """The largest true-positive rate, in per cent, rounded up."""
    return f"{math.ceil(1000 * (1 - point['false_negative_rate'])) / 10:.1f}"


def _rests_on(label: Label) -> list[tuple[str, str]]:
    done, account = label["implementation"], label["accountant"]
    threats, deployed = label["threat_model"], label["deployment_model"]
    in_clear = label["dp_variant"]
    utility = done["utility"]
    return [
        ("data", label["basic"]["data"]),
        ("model", label["basic"]["description"]),
        ("deployment", f"{deployed['model_name']}: {deployed['trust_assumptions']}"),
        ("mechanism", _mechanism(done)),
        ("composition", done["composition"] if account else ""),
        ("accountant", _account(account)),
        ("search for settings", _search(label["search"])),
        ("audit (lower bound on ε)", _audit(label)),
        ("adversary", threats["adversary"] if threats else ""),
        ("not covered", "; ".join(threats["excluded"]) if threats else ""),
        ("public, not protected", "; ".join(in_clear["unprotected_quantities"]) if threats else ""),
        ("outside data", in_clear["outside_data"]),
        ("noise keys", _keys(label["seed"]) if account else ""),
        ("secure aggregation", _secagg(label["secure_aggregation"])),
        ("accuracy", f"{100 * utility['accuracy']:.2f} % of {utility['test_images']:,} images"),
        ("warnings", "; ".join(label["warnings"])),
    ]


def _mechanism(done: dict[str, Any]) -> str:
    if done["steps"] is None:
        return done["mechanisms"] if done["mechanisms"] != "none" else "none: no noise is added"
    said = [done["mechanisms"], f"{done['steps']} steps in {done['rounds']} rounds"]
    if done["clip_norm"] is not None:
        said.append(f"clip norm {done['clip_norm']:g}")
    if done["noise_multiplier"] is not None:
        said.append(f"noise multiplier {done['noise_multiplier']:.4g}")
    said.append(f"sample rate {done['sample_rate']:.4g}")
    if done["budget_shares"]:
        shares = done["budget_shares"]
        said.append(
            f"shares of μ²: mean {shares['mean_share']:g}, second moments "
            f"{shares['moments_share']:g}, the steps the rest"
        )
    return "; ".join(said)


def _account(account: dict[str, Any] | None) -> str:
    if account is None:
        return ""
    made = account["version"]
    again = account["epsilon_recomputed"]
    checked = (
        "not computed again: the record does not say what each step spent"
        if again is None
        else f"computed again from the record by version {account['recomputed_by_version']}: "
        f"ε = {again:.6g}"
    )
    commit = f", commit {made['commit']}" if made.get("commit") else ""
    return f"{account['name']}, version {made['version']}{commit}; {checked}"


def _search(search: dict[str, Any] | None) -> str:
    if search is None:
        return ""
    if search["covered"] and search["trials"]:
        return (
            f"inside ε: a private search of {search['trials']:g} trials on average chose settings"
        )
    if search["covered"]:
        return "inside ε: no setting was chosen on a private image"
    if not search["trials"]:
        return "NOT inside ε: settings were chosen on private validation images, trials not counted"
    return (
        f"NOT inside ε: about {search['trials']} trials on private validation images; random "
        f"stopping would charge ε = {search['epsilon_charged']:.1f} in all"
    )


def _audit(label: Label) -> str:
    audit = label["audit"]
    if audit is None:
        return "none on record" if label["accountant"] else ""
    elsewhere = "" if audit["same_hospitals_and_profile"] else f", profile {audit['profile']}"
    return (
        f"ε ≥ {epsilon(audit['epsilon_lower'])} (≥ {epsilon(audit['epsilon_lower_if_gaussian'])} "
        f"if Gaussian) at {100 * audit['confidence']:g} % confidence, from "
        f"{audit['audited_steps']} audited step{'s' * (audit['audited_steps'] != 1)} of which ε = "
        f"{epsilon(audit['epsilon_of_audited_steps'])} is stated; the same arm with "
        f"{audit['hospitals']} hospitals{elsewhere}; "
        + ("REFUTED" if audit["refuted"] else "not refuted")
    )


def _keys(seed: dict[str, Any]) -> str:
    if seed["public"]:
        return f"public seed {seed['seed']}: repeatable, and this model itself not private"
    return f"secret: {seed['source']}; not repeatable"


def _secagg(secagg: dict[str, Any] | None) -> str:
    if secagg is None:
        return "none"
    said = [
        f"{secagg['neighbours']} neighbours, threshold {secagg['threshold']}, "
        f"{secagg['field_bits']}-bit field"
    ]
    if secagg["colluders_planned"] is not None:
        said.append(
            f"noise planned for {secagg['colluders_planned']} colluding and "
            f"{secagg['drop_outs_planned']} lost"
        )
    if secagg["rounds"]:
        said.append(f"{secagg['rounds']} rounds, {secagg['rounds_failed']} failed")
    if secagg["protocol_every"] > 1:
        said.append(f"simulated: the protocol ran at every {secagg['protocol_every']}th step")
    return "; ".join(said)


def _epsilon(value: float | None) -> str:
    return NOTHING if value is None else epsilon(value)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _curve(points: list[dict[str, float]]) -> str:
    """The trade-off curve through its points, in units of the drawing; "" without one."""
    if not points:
        return ""
    curve = [(p["false_positive_rate"], p["false_negative_rate"]) for p in points]
    # It is its own mirror image, and at a rate of 0 nobody finds more than at the smallest.
    curve = [(0.0, 1.0), *sorted({*curve, *((b, a) for a, b in curve)}), (1.0, 0.0)]
    return " ".join(f"{_WIDE * a:.1f},{_HIGH * (1 - b):.1f}" for a, b in curve)
