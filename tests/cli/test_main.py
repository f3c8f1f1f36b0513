"""The command line's frame: help, unknown commands, one-line errors, strict JSON."""

import json
import subprocess
import sys

import pytest

from repro.cli import main
from repro.formatting import to_json


def test_help_lists_every_command_without_importing_torch():
    code = (
        "import sys; from repro.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch','torchvision','medmnist','triton'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "epsilon" in done.stdout
    assert "secagg" in done.stdout


def test_unknown_command_is_one_line_and_exit_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["frobnicate"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_json_has_no_bare_infinity():
    text = to_json({"epsilon": float("inf"), "rows": [float("nan"), 1.5]})
    assert json.loads(text) == {"epsilon": "inf", "rows": ["nan", 1.5]}
