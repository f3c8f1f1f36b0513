"""``repro check-claim``: what a published (ε, δ) claim really guarantees, in words to quote.

Needs no torch. Exit 0 where the claim is proved to hold (or none was made), 1 where it does not
hold or is not proved; ``--json`` says which in ``holds``: true, false, or null where ε is proved
neither to be within the claim nor to be above it. ``--exit-zero`` keeps 0, and so does a case that
ships, as it is: its answer is known, and it is shown, not checked.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from repro.cli import EXIT_BAD_INPUT, OneLineParser, help_text
from repro.cli.accounting import whole
from repro.cli.output import Outcome
from repro.errors import InputError

EXIT_NOT_HELD = 1

if TYPE_CHECKING:
    from repro.accounting.claim import PrivacyClaim
    from repro.accounting.claims import PrivacyVerdict


def configure(parser: OneLineParser) -> None:
    from repro.accounting.claims_cases import CASES

    add = parser.add_argument
    shipped = "a claim that ships with this program; further options change it"
    add("--case", choices=sorted(CASES), help=shipped)
    for name, (kind, text) in _OPTIONS.items():
        add(f"--{name}", type=kind, metavar=name[0].upper(), help=text)
    add("--level", choices=["update", "record"], help="what is clipped and noised")
    how = "record level: how records come into a step (default: poisson)"
    add("--sampling", choices=["poisson", "fixed", "shuffled"], help=how)
    add("--secure-aggregation", action="store_true", default=None, help="only sums are seen")
    add("--noise-discarded", action="store_true", help="the program adds no noise in the end")
    add("--exit-zero", action="store_true", help="exit 0 whatever the verdict (bad input: 2)")
    cases = {name: case[0] for name, case in CASES.items()}
    parser.explain(examples=help_text("check-claim-examples"), cases=cases)


_OPTIONS: dict[str, tuple[Any, str]] = {
    "clip": (float, "clip norm (L2)"),
    "sensitivity": (float, "what the noise was computed from (default: the clip norm)"),
    "sigma": (float, "noise standard deviation per coordinate"),
    "noise-multiplier": (float, "sigma / clip, instead of --sigma"),
    "epsilon": (float, "the claimed epsilon"),
    "delta": (float, "the claimed delta"),
    "rounds": (whole, "rounds, each with a release of every hospital's update (default: 1)"),
    "hospitals": (whole, "hospitals in the federation (default: 1)"),
    "hospital-rate": (float, "share of hospitals in a round (default: 1)"),
    "honest": (float, "share of the hospitals in a sum that are honest (default: 1)"),
    "sample-rate": (float, "record level: probability that a record joins a step (default: 1)"),
    "steps": (whole, "record level: steps in a round (default: 1)"),
}


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting.claims import check

    given = _given(arguments)
    if arguments.case is None and not given and not arguments.json:
        start = help_text("check-claim-start").format(examples=help_text("check-claim-examples"))
        return Outcome({}, start, status=EXIT_BAD_INPUT)
    verdict = check(_claim(arguments.case, given))
    data = {"case": arguments.case, **verdict.as_dict()}
    shown = arguments.case is not None and not given
    passed = verdict.holds or verdict.claim.epsilon is None or shown or arguments.exit_zero
    return Outcome(data, _text(verdict, arguments.case), status=0 if passed else EXIT_NOT_HELD)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The claim's fields that were given as options, defaults not filled in."""
    fields = {name: name.replace("-", "_") for name in _OPTIONS} | {"clip": "clip_norm"}
    given = {
        field: value
        for name, field in fields.items()
        if (value := getattr(arguments, name.replace("-", "_"))) is not None
    }
    for name in ("level", "sampling", "secure_aggregation"):
        if getattr(arguments, name) is not None:
            given[name] = getattr(arguments, name)
    if arguments.noise_discarded:
        given["noise_added"] = False
    return given


def _claim(case: str | None, given: dict[str, Any]) -> PrivacyClaim:
    from repro.accounting.claim import UPDATE, PrivacyClaim, refuse_other_level
    from repro.accounting.claims_cases import CASES

    # Here already, and not by the claim alone, so that a default given in words is refused too.
    refuse_other_level(given.get("level", CASES[case][1].level if case else UPDATE), given)
    if case is None:
        for needed in ("clip_norm", "delta"):
            if needed not in given:
                raise InputError(needed.removesuffix("_norm"), None, "a number (or give --case)")
        return PrivacyClaim(**given)
    base = CASES[case][1]
    if "sigma" in given or "noise_multiplier" in given:  # a noise given replaces the case's
        base = replace(base, sigma=None, noise_multiplier=None, epsilon=base.epsilon or 1.0)
        if CASES[case][1].epsilon is None and "epsilon" not in given:
            given["epsilon"] = None
    return replace(base, **given)


def _text(verdict: PrivacyVerdict, case: str | None) -> str:
    from repro.accounting.claims import shown
    from repro.accounting.claims_cases import CASES

    lines = [] if case is None else [CASES[case][0], ""]
    lines += [verdict.words, ""]
    header = f"{'view':<28}{'unit':<10}{'relation':<13}{'sensitivity':>12}"
    header += f"{'ε, 1 round':>12}{'ε, total':>12}{'at least':>10}{'σ needed':>10}"
    lines.append(header)
    for finding in verdict.findings:
        needed = "–" if finding.sigma_needed is None else f"{finding.sigma_needed:.3g}"
        lines.append(
            f"{finding.view:<28}{finding.unit:<10}{finding.relation.value:<13}"
            f"{finding.sensitivity:>12g}{shown(finding.epsilon_round):>12}"
            f"{shown(finding.epsilon_total):>12}{shown(finding.epsilon_lower):>10}{needed:>10}"
        )
    if verdict.basic is not None and verdict.claim.rounds != 1:
        total, delta = verdict.basic
        lines.append(
            f"\nThe claimed budget added up over the rounds: ε = {total:g}, δ = {delta:g}."
        )
    lines += [f"Note: {note}." for note in verdict.claim.notes]
    return "\n".join(lines)
