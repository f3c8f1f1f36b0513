"""``repro epsilon``, ``rdp``, ``noise``, ``gaussian``, ``search-cost``: verify one ε.

Every ε printed is an upper bound, rounded outward; none needs torch.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from repro.cli import OneLineParser, help_text
from repro.cli.output import Outcome
from repro.errors import InputError


def configure(parser: OneLineParser) -> None:
    command = parser.get_default("command")
    for name in _OPTIONS[command]:
        if name in _CHOICES:
            settings, text = _CHOICES[name]
            parser.add_argument(f"--{name}", **settings, help=text)
        else:
            kind, letter, text = _NUMBERS[name]
            parser.add_argument(f"--{name}", type=kind, required=True, metavar=letter, help=text)
    # Of both, so that `noise` and `epsilon` undo each other.
    parser.set_defaults(accountant="best")
    parser.explain(definitions=help_text("definitions"))


def execute(arguments: argparse.Namespace) -> Outcome:
    return _COMMANDS[arguments.command](arguments)


def whole(text: str) -> int | float:
    """``1000``, ``1e9``; anything else is left to the accounting's own one-line refusal."""
    try:
        return int(text)
    except ValueError:
        return float(text)


# What has to be given: type, letter, help.
_NUMBERS: dict[str, tuple[Callable[[str], float], str, str]] = {
    "noise-multiplier": (float, "Z", "σ ÷ clip norm"),
    "sample-rate": (float, "Q", "from 0 to 1"),
    "steps": (whole, "T", "number of steps"),
    "delta": (float, "D", "above 0, below 1"),
    "order": (float, "A", "Rényi order above 1"),
    "epsilon": (float, "E", "target ε"),
    "sigma": (float, "S", "noise standard deviation per coordinate"),
    "sensitivity": (
        float,
        "C",
        "L2 sensitivity, in the unit of sigma (clip norm; twice that to replace one)",
    ),
    "rounds": (whole, "R", "number of releases"),
    "trials": (float, "N", "trials on average, above 1"),
}
# What has a default: the arguments of ``add_argument``, and its help.
_CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "eta": (
        {"type": float, "default": 0.0, "metavar": "H"},
        "shape of their number: 0 logarithmic, 1 geometric (default: %(default)s)",
    ),
    "relation": (
        {"choices": ["add_remove", "replace_one", "zero_out"], "default": "add_remove"},
        "which datasets are neighbours (default: %(default)s)",
    ),
    "accountant": (
        {"choices": ["best", "rdp", "pld"]},
        "whose proof: rdp (Rényi), pld (privacy loss distribution, about a tenth "
        "smaller; Gaussian noise with Poisson sampling only), or the best of all, the exact "
        "formula included where nothing is sampled (default: %(default)s)",
    ),
    "sampling": (
        {"choices": ["poisson", "fixed"], "default": "poisson"},
        "poisson, or fixed-size batches without replacement, which is what replace_one "
        "is proved for (default: %(default)s)",
    ),
}

_KIND = ("relation", "sampling")
_OPTIONS = {
    "epsilon": ("noise-multiplier", "sample-rate", "steps", "delta", *_KIND, "accountant"),
    "rdp": ("noise-multiplier", "sample-rate", "order", *_KIND),
    "noise": ("epsilon", "delta", "sample-rate", "steps", *_KIND, "accountant"),
    "gaussian": ("sigma", "sensitivity", "rounds", "delta"),
    "search-cost": ("noise-multiplier", "sample-rate", "steps", "delta", "trials", "eta", *_KIND),
}


def _event(arguments: argparse.Namespace, noise_multiplier: float) -> Any:
    from repro.accounting import FixedBatchGaussianEvent, PoissonSampledGaussianEvent

    kind = {"poisson": PoissonSampledGaussianEvent, "fixed": FixedBatchGaussianEvent}
    event = kind[arguments.sampling](noise_multiplier, arguments.sample_rate)
    if arguments.relation not in event.proved_for():
        other = "fixed" if arguments.sampling == "poisson" else "poisson"
        remedy = f"one that --sampling {arguments.sampling} is proved for, or --sampling {other}"
        raise InputError("relation", arguments.relation, f"{remedy}: {event.reason}")
    return event


def _epsilon(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting import checks, compose_epsilon

    event = _event(arguments, arguments.noise_multiplier)
    steps, delta = checks.count("steps", arguments.steps), checks.delta(arguments.delta)
    bound = compose_epsilon(
        {event: steps}, arguments.relation, event.unit, delta, accountant=arguments.accountant
    )
    data = {
        "epsilon": bound.epsilon,
        "order": bound.order,
        "method": bound.method,
        "epsilons": dict(bound.by_method),
        "delta": delta,
        "relation": arguments.relation,
        "sampling": arguments.sampling,
        "unit": "record",
    }
    how = bound.accountant
    if bound.order is not None:
        how += f", best Rényi order {bound.order:.4g}"
    text = (
        f"ε = {bound.epsilon:.6g} at δ = {delta:g}, per record, {arguments.relation}, "
        f"{arguments.sampling} sampling (by {how})"
    )
    return Outcome(data, text)


def _rdp(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting import rdp

    event = _event(arguments, arguments.noise_multiplier)
    value = rdp(event, arguments.order, relation=arguments.relation)
    text = f"RDP = {value:.12g} nats at order {arguments.order:g}, one step, {arguments.relation}"
    return Outcome({"rdp": value, "order": arguments.order, "relation": arguments.relation}, text)


def _noise(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting import calibrate_noise_multiplier

    _event(arguments, 1.0)  # refuses a relation without proof before any search
    multiplier, epsilon = calibrate_noise_multiplier(
        arguments.epsilon,
        arguments.delta,
        arguments.sample_rate,
        arguments.steps,
        relation=arguments.relation,
        accountant=arguments.accountant,
    )
    data = {
        "noise_multiplier": multiplier,
        "epsilon": epsilon,
        "relation": arguments.relation,
        "accountant": arguments.accountant,
    }
    text = (
        f"noise multiplier = {multiplier!r} gives ε = {epsilon:.9g} ≤ {arguments.epsilon:g} "
        f"at δ = {arguments.delta:g}, {arguments.relation} (accountant: {arguments.accountant}; "
        "the arms of local DP-SGD were planned by rdp)"
    )
    return Outcome(data, text)


def _gaussian(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting import gaussian_epsilon

    epsilon = gaussian_epsilon(
        arguments.sigma, arguments.sensitivity, arguments.rounds, arguments.delta
    )
    text = (
        f"ε = {epsilon:.6g} at δ = {arguments.delta:g}, exact, "
        f"{arguments.rounds} Gaussian release(s)"
    )
    return Outcome({"epsilon": epsilon, "delta": arguments.delta}, text)


def _search_cost(arguments: argparse.Namespace) -> Outcome:
    from repro.accounting import checks, compose_epsilon, search_epsilon

    event = _event(arguments, arguments.noise_multiplier)
    steps, delta = checks.count("steps", arguments.steps), checks.delta(arguments.delta)
    charged = search_epsilon(
        {event: steps},
        delta,
        arguments.trials,
        arguments.eta,
        relation=arguments.relation,
        unit=event.unit,
    )
    one = compose_epsilon({event: steps}, arguments.relation, event.unit, delta).epsilon
    everything = {event: steps * math.ceil(arguments.trials)}
    composed = compose_epsilon(everything, arguments.relation, event.unit, delta).epsilon
    data = {
        "epsilon": charged,
        "epsilon_of_one_trial": one,
        "epsilon_of_all_trials": composed,
        "trials": arguments.trials,
        "eta": arguments.eta,
        "delta": delta,
        "relation": arguments.relation,
    }
    text = (
        f"ε = {charged:.6g} at δ = {delta:g} for the best of a random number of trials, "
        f"{arguments.trials:g} on average (η = {arguments.eta:g})\n"
        f"one trial alone: ε = {one:.6g}; all {math.ceil(arguments.trials)} released: "
        f"ε = {composed:.6g}"
    )
    return Outcome(data, text)


_COMMANDS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "epsilon": _epsilon,
    "rdp": _rdp,
    "noise": _noise,
    "gaussian": _gaussian,
    "search-cost": _search_cost,
}
