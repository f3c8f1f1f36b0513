"""``repro epsilon``, ``rdp``, ``noise``, ``gaussian``: keys, values, and one line for mistakes."""

import math

import numpy as np
import pytest

from repro.accounting import RDPAccountant, gaussian_epsilon
from repro.accounting.events import FixedBatchGaussianEvent, PoissonSampledGaussianEvent
from repro.cli import main
from tests.cli import commands

EPSILON = {"noise-multiplier": 1.1, "sample-rate": 64 / 11959, "steps": 9342, "delta": 1e-5}
RDP = {"noise-multiplier": 1.1, "sample-rate": 0.01, "order": 7.5}
NOISE = {"epsilon": 6, "delta": 1.9e-4, "sample-rate": 32 / 956, "steps": 4481}
GAUSSIAN = {"sigma": 0.698873, "sensitivity": 7, "rounds": 50, "delta": 1.9e-4}
SEARCH = {**EPSILON, "trials": 40}


def words(command, options, **changes):
    merged = {**options, **{key.replace("_", "-"): value for key, value in changes.items()}}
    return [command, *(f"--{key}={value}" for key, value in merged.items())]


def ask(capsys, command, options, **changes):
    return commands.ask(capsys, *words(command, options, **changes))


def test_epsilon_by_rdp(capsys):
    """The anchor: 2.679 at an order of about 7.88."""
    got = ask(capsys, "epsilon", EPSILON, accountant="rdp")
    assert got["epsilon"] == pytest.approx(2.679, abs=5e-4)
    assert got["order"] == pytest.approx(7.88, abs=0.01)
    assert got["method"] == "rdp"


def test_epsilon_is_the_smallest_proved(capsys):
    """The anchor of the tight accountant: 2.455, with the method named and no Rényi order."""
    got = ask(capsys, "epsilon", EPSILON)
    assert got["epsilon"] == pytest.approx(2.455, abs=1e-3)
    assert (got["method"], got["order"]) == ("pld", None)
    assert got["epsilons"]["rdp"] == pytest.approx(2.679, abs=5e-4)
    assert ask(capsys, "epsilon", EPSILON, accountant="pld")["epsilon"] == got["epsilon"]
    assert ask(capsys, "epsilon", EPSILON, relation="zero_out")["epsilon"] == got["epsilon"]


def test_what_pld_does_not_account_for(capsys):
    """Fixed batches: refused by name where it alone is asked for, by RDP where the best is."""
    fixed = {**EPSILON, "relation": "replace_one", "sampling": "fixed"}
    line = commands.refused(capsys, *words("epsilon", fixed, accountant="pld"))
    assert "FixedBatchGaussianEvent" in line
    assert ask(capsys, "epsilon", fixed)["method"] == "rdp"


def test_epsilon_of_fixed_batches_under_replace_one(capsys):
    """--sampling fixed is accounted for under replace_one, at twice the sensitivity."""
    got = ask(capsys, "epsilon", EPSILON, relation="replace_one", sampling="fixed")
    event = FixedBatchGaussianEvent(1.1, 64 / 11959)
    ours = RDPAccountant("replace_one").compose(event, 9342).epsilon(1e-5)
    assert (got["epsilon"], got["order"]) == ours


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": 0}, 0.0),
        ({"noise_multiplier": 0}, "inf"),
        ({"noise_multiplier": 1e-200}, "inf"),
        ({"sample_rate": 0}, 0.0),
    ],
)
def test_epsilon_at_the_edges(capsys, changes, expected):
    """T = 0 and q = 0 → 0, σ → 0 → "inf" (JSON has no ∞)."""
    assert ask(capsys, "epsilon", EPSILON, **changes)["epsilon"] == expected


def test_epsilon_of_a_billion_steps_and_of_rate_one(capsys):
    """T = 10⁹ in any notation; q = 1 is a plain Gaussian, close above the exact value."""
    billion = ask(capsys, "epsilon", EPSILON, steps="1e9")["epsilon"]
    assert billion == ask(capsys, "epsilon", EPSILON, steps=10**9)["epsilon"] > 1e3
    whole = ask(capsys, "epsilon", EPSILON, sample_rate=1, noise_multiplier=100, steps=100)
    exact = gaussian_epsilon(100, 1, 100, 1e-5)
    assert whole["epsilon"] == exact
    assert whole["method"] == "gaussian"


def test_rdp(capsys):
    """One step's divergence, and α/(2σ²) at rate 1 under either relation."""
    step = RDPAccountant().compose(PoissonSampledGaussianEvent(1.1, 0.01))
    assert ask(capsys, "rdp", RDP)["rdp"] == pytest.approx(float(step.rdp(np.array([7.5]))[0]))
    plain = ask(capsys, "rdp", RDP, sample_rate=1)["rdp"]
    assert plain == pytest.approx(7.5 / 2 / 1.1**2)
    replaced = ask(capsys, "rdp", RDP, sample_rate=1, relation="replace_one")["rdp"]
    assert replaced == pytest.approx(4 * plain)


def test_noise(capsys):
    """The smallest multiplier whose ε does not exceed the target."""
    got = ask(capsys, "noise", NOISE, accountant="rdp")
    assert got["noise_multiplier"] == pytest.approx(1.76, abs=0.01)
    assert 6 - 1e-6 < got["epsilon"] <= 6


def test_noise_and_epsilon_undo_each_other(capsys):
    """As they are called, and not only with the same accountant named twice."""
    got = ask(capsys, "noise", NOISE)
    back = {key: value for key, value in NOISE.items() if key != "epsilon"}
    again = ask(capsys, "epsilon", back, noise_multiplier=got["noise_multiplier"])
    assert again["epsilon"] == pytest.approx(got["epsilon"], rel=1e-9)
    assert 6 * (1 - 2e-3) < again["epsilon"] <= 6


def test_noise_by_the_tight_accountant(capsys):
    """Less noise for the same ε, and that ε holds; it is what is given without asking."""
    loose, tight = (ask(capsys, "noise", NOISE, accountant=a) for a in ("rdp", "pld"))
    unasked = ask(capsys, "noise", NOISE)["noise_multiplier"]
    assert unasked == pytest.approx(tight["noise_multiplier"], rel=1e-3)
    assert 0.9 * loose["noise_multiplier"] < tight["noise_multiplier"]
    assert tight["noise_multiplier"] < 0.96 * loose["noise_multiplier"]
    assert 6 * (1 - 2e-3) < tight["epsilon"] <= 6


def test_gaussian(capsys):
    """The paper's setting over 50 rounds: 2,759."""
    assert ask(capsys, "gaussian", GAUSSIAN)["epsilon"] == pytest.approx(2759, abs=0.5)
    assert ask(capsys, "gaussian", GAUSSIAN, sigma=0)["epsilon"] == "inf"
    assert ask(capsys, "gaussian", GAUSSIAN, rounds=0)["epsilon"] == 0


def test_search_cost(capsys):
    """Random stopping lies between one trial and the composition of all."""
    got = ask(capsys, "search-cost", SEARCH)
    assert got["epsilon_of_one_trial"] == ask(capsys, "epsilon", EPSILON)["epsilon"]
    all_trials = ask(capsys, "epsilon", EPSILON, steps=40 * EPSILON["steps"])["epsilon"]
    assert got["epsilon_of_all_trials"] == all_trials
    assert 2 * got["epsilon_of_one_trial"] < got["epsilon"] < all_trials / 4
    assert got["epsilon"] < ask(capsys, "search-cost", SEARCH, eta=1)["epsilon"]
    assert main(words("search-cost", SEARCH)) == 0
    assert "best of a random number of trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options"),
    [("epsilon", EPSILON), ("rdp", RDP), ("noise", NOISE), ("gaussian", GAUSSIAN)],
)
def test_text_for_people(capsys, command, options):
    """Without --json: one line that says what the number is."""
    assert main(words(command, options)) == 0
    assert capsys.readouterr().out.count("\n") == 1


OPTIONS = {"epsilon": EPSILON, "rdp": RDP, "noise": NOISE, "gaussian": GAUSSIAN}
OPTIONS |= {"search-cost": SEARCH}
BAD = {
    ("epsilon", "noise-multiplier"): (-1, "nan", "inf"),
    ("epsilon", "sample-rate"): (1.1, "nan"),
    ("epsilon", "steps"): (-1, 2.5, "nan"),
    ("epsilon", "delta"): (0, 1, "nan"),
    ("epsilon", "relation"): ("replace_one",),
    ("rdp", "order"): (1, "inf"),
    ("noise", "epsilon"): (0, "nan"),
    ("noise", "delta"): (2,),
    ("noise", "relation"): ("replace_one",),
    ("gaussian", "sigma"): (-1,),
    ("gaussian", "rounds"): (0.5,),
    ("gaussian", "delta"): (1,),
    ("search-cost", "trials"): (1,),
    ("search-cost", "eta"): (-1,),
    ("search-cost", "delta"): (0,),
    ("search-cost", "relation"): ("replace_one",),
}


@pytest.mark.parametrize(
    ("command", "field", "value"), [(*key, value) for key, its in BAD.items() for value in its]
)
def test_a_mistake_is_one_line_that_names_it(capsys, command, field, value):
    bad = words(command, OPTIONS[command], **{field: value})
    line = commands.refused(capsys, *bad, "--json")
    assert field.replace("-", "_") in line


@pytest.mark.parametrize("text", ["abc", "1e", ""])
def test_what_is_no_number_is_one_line(capsys, text):
    """argparse's own refusals are one line and exit 2 as well."""
    for field in ("steps", "delta"):
        commands.refused(capsys, *words("epsilon", EPSILON, **{field: text}))


def test_epsilon_is_never_finite_below_the_truth_for_tiny_noise(capsys):
    """σ = 1e-3 at rate 0.5: at least the loss of seeing the record outright in its step."""
    got = ask(capsys, "epsilon", EPSILON, noise_multiplier=1e-3, sample_rate=0.5, steps=1)
    assert 1e4 < got["epsilon"] < math.inf
