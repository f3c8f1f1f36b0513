"""README is one page, and what it shows is what the commands print."""

import re
from pathlib import Path

import torch
from torch import nn

from repro.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 600


def block(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_it_is_one_page():
    assert len(README.split()) <= WORDS


def test_the_claim_it_shows_is_what_the_command_prints(capsys):
    (shown,) = (text for text in block("") if text.startswith("$ repro check-claim"))
    command, *lines = shown.splitlines()
    main(command.split()[2:])
    printed = " ".join(capsys.readouterr().out.split())
    passages = [part.strip() for part in " ".join(lines).split("…") if part.strip()]
    assert passages
    for passage in passages:
        assert passage in printed


def test_its_private_training_trains():
    model, inputs = nn.Linear(4, 3), torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    around = {
        "nn": nn,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "dataset": torch.utils.data.TensorDataset(inputs, torch.arange(32) % 3),
    }
    before = model.weight.detach().clone()
    (code,) = block("python")
    exec(code.replace("batch_size=64", "batch_size=8"), around)
    assert around["training"].finished
    assert not torch.equal(model.weight, before)
    assert "ε" in around["training"].statement()
