"""``repro check-claim``: shipped cases, stable keys, help that teaches, one line for mistakes."""

import json

import pytest

from repro.cli import main
from tests.cli.commands import refused

KEYS = {
    *("case", "holds", "verdict", "epsilon_claimed", "delta", "sigma", "noise_added", "clip_norm"),
    *("sensitivity_claimed", "level", "sampling", "rounds", "nominal", "findings", "notes"),
}


def ask(capsys, *words):
    """The answer; the exit status is 1 for a claim that was made and is not proved to hold, and 0
    for a case that ships, as it is."""
    status = main(["check-claim", *words, "--json"])
    got = json.loads(capsys.readouterr().out)
    shown = words[:1] == ("--case",) and len(words) == 2
    assert status == int(
        got["epsilon_claimed"] is not None and got["holds"] is not True and not shown
    )
    return got


@pytest.mark.parametrize("case", ["paper", "flower-localdpmod", "flip"])
def test_cases_have_the_same_keys_and_a_text(capsys, case):
    got = ask(capsys, "--case", case)
    assert set(got) == KEYS
    assert got["case"] == case
    assert main(["check-claim", "--case", case]) == 0
    text = capsys.readouterr().out
    assert got["verdict"] in text
    assert "ε, total" in text


def test_the_paper(capsys):
    got = ask(capsys, "--case", "paper")
    assert got["holds"] is False
    assert round(got["findings"][0]["epsilon_total"]) == 2759
    assert "2,759" in got["verdict"]


def test_a_case_may_be_changed(capsys):
    """Options override the case's numbers, noise included."""
    assert round(ask(capsys, "--case", "paper", "--rounds=1")["findings"][0]["epsilon_total"]) == 85
    assert ask(capsys, "--case", "paper", "--sigma=32.8")["holds"] is True
    assert ask(capsys, "--case", "flip", "--sigma=1")["epsilon_claimed"] is None
    discarded = ask(capsys, "--case", "flower-localdpmod", "--noise-discarded")
    assert discarded["findings"][0]["epsilon_total"] == "inf"


def test_ones_own_claim(capsys):
    words = "--clip=1 --noise-multiplier=1.1 --level=record --sample-rate=0.01 --steps=1000"
    got = ask(capsys, *words.split(), "--epsilon=3", "--delta=1e-5")
    assert got["holds"] is True
    assert [f["unit"] for f in got["findings"]] == ["record"]


def test_neither_proved_nor_refuted(capsys):
    """``holds`` is null, and the text says between what ε is."""
    words = "--clip=1 --noise-multiplier=1 --level=record --sampling=shuffled --sample-rate=0.01"
    words = [*words.split(), "--steps=1000", "--delta=1e-6", "--epsilon=15"]
    got = ask(capsys, *words)
    assert got["holds"] is None
    assert got["sampling"] == "shuffled"
    assert got["findings"][0]["epsilon_lower"] < 15 < got["findings"][0]["epsilon_total"]
    assert main(["check-claim", *words]) == 1
    text = capsys.readouterr().out
    assert "is not proved here" in text
    assert "between" in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "clip"),
        ("--case=paper --steps=100", "steps"),
        ("--clip=1 --delta=1e-5 --epsilon=1 --sampling=poisson", "sampling"),
        ("--clip=1 --delta=1e-5 --epsilon=1 --level=record --hospitals=1", "hospitals"),
        ("--clip=1", "delta"),
        ("--clip=1 --delta=1e-5", "sigma"),
        ("--clip=-1 --delta=1e-5 --epsilon=1", "clip_norm"),
        ("--case=paper --rounds=2.5", "rounds"),
        ("--case=paper --sigma=1 --noise-multiplier=1", "noise_multiplier"),
    ],
)
def test_a_mistake_is_one_line(capsys, words, named):
    assert named in refused(capsys, "check-claim", *words.split(), "--json")


def test_nothing_given_says_how_to_start(capsys):
    assert main(["check-claim"]) == 2
    text = capsys.readouterr().out
    assert "repro check-claim --case paper" in text
    assert len(text.splitlines()) < 15


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check-claim", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("clip norm", "sensitivity", "secure", "examples:", "flower-localdpmod"):
        assert word in text
