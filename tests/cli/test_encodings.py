"""Output that is not UTF-8: no command, report or file fails on a character, or changes by it."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import repro
from repro.cli import COMMANDS, main
from repro.cli.output import make_legible
from repro.files import write_changed, write_whole
from tests.report import fake

ROOT = Path(repro.__file__).resolve().parent.parent
LACKING = ("ascii", "cp1252", "latin-1")
# Quick ones of every kind: text with ε, δ, σ and powers, and the verdict to quote.
SAYS = [
    "epsilon --noise-multiplier 1.1 --sample-rate 1 --steps 10 --delta 1e-5",
    "gaussian --sigma 0.7 --sensitivity 7 --rounds 50 --delta 1.9e-4",
    "rdp --noise-multiplier 1.1 --sample-rate 0.01 --order 7.5",
    "check-claim --case paper",
    "arms",
]


class Streams:
    """stdout and stderr of one encoding, as a process has them, but in memory."""

    def __init__(self, monkeypatch, encoding, errors="strict"):
        self.encoding = encoding
        self._bytes = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
        for name, raw in self._bytes.items():
            stream = io.TextIOWrapper(raw, encoding=encoding, errors=errors)
            monkeypatch.setattr(sys, name, stream)

    def read(self, name="stdout"):
        getattr(sys, name).flush()
        return self._bytes[name].getvalue().decode(self.encoding)


def said(monkeypatch, encoding, line, status=0):
    """What a command writes to stdout there; stderr has nothing to say."""
    streams = Streams(monkeypatch, encoding)
    try:
        ended = main(line.split())
    except SystemExit as stop:
        ended = stop.code
    assert ended == status
    assert not streams.read("stderr")
    return streams.read()


@pytest.mark.parametrize("encoding", LACKING)
def test_the_help_of_every_command(monkeypatch, encoding):
    for name in COMMANDS:
        assert said(monkeypatch, encoding, f"{name} --help").startswith(f"usage: repro {name}")
    for action in ("keygen", "directory", "serve", "join", "audit-log"):
        assert said(monkeypatch, encoding, f"secagg {action} --help")
    assert said(monkeypatch, encoding, "--help").startswith("usage: repro")


def numbers(text):
    return re.findall(r"\d[\d.,]*", text)


@pytest.mark.parametrize("encoding", LACKING)
@pytest.mark.parametrize("line", SAYS)
def test_what_a_command_says(monkeypatch, encoding, line):
    """Text has the same numbers; JSON means the same to a reader that takes it for UTF-8."""
    whole, there = (said(monkeypatch, one, line) for one in ("utf-8", encoding))
    assert numbers(there) == numbers(whole)
    assert there.count("\n") == whole.count("\n")
    assert "\\" not in there
    whole, there = (said(monkeypatch, one, f"{line} --json") for one in ("utf-8", encoding))
    assert there.isascii()
    assert json.loads(there) == json.loads(whole)


@pytest.mark.parametrize("encoding", LACKING)
def test_mistakes_are_one_line(monkeypatch, encoding):
    streams = Streams(monkeypatch, encoding)
    assert main(["table", "1", "--out", "no-ε-here"]) == 2
    assert streams.read("stderr").count("\n") == 1
    assert "no-epsilon-here" in streams.read("stderr")
    assert streams.read() == ""


def written(monkeypatch, text, encoding="ascii", errors="strict"):
    streams = Streams(monkeypatch, encoding, errors)
    make_legible()
    print(text, end="")
    return streams.read()


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [
        ("ε ≤ 6 at δ = 1.9·10⁻⁴", "epsilon <= 6 at delta = 1.9*10^-4"),
        ("10⁹ and 2⁶⁴ − 1", "10^9 and 2^64 - 1"),
        ("±½σ² of ‖Δ‖, é", "+/-1/2sigma^2 of ||Delta||, e"),
        ("\N{SNOWMAN}", r"\u2603"),
    ],
)
def test_what_an_encoding_lacks_is_spelt(monkeypatch, text, ascii_text):
    assert written(monkeypatch, text) == ascii_text
    assert written(monkeypatch, text, errors="surrogateescape") == ascii_text  # as LC_ALL=C has it
    assert written(monkeypatch, text, "utf-8") == text


def test_the_users_own_choice_of_errors_stands(monkeypatch):
    """As in ``PYTHONIOENCODING=ascii:replace``."""
    assert written(monkeypatch, "ε = 6", errors="replace") == "? = 6"


def test_file_names_that_are_no_text(monkeypatch, tmp_path):
    """A name's bytes reach a terminal as they are, and JSON so that they can be read back."""
    name = os.fsdecode(b"caf\xe9")
    for encoding in ("ascii", "utf-8"):
        streams = Streams(monkeypatch, encoding)
        make_legible()
        print(f"ε: {name}", flush=True)
        assert sys.stdout.buffer.getvalue().endswith(b": caf\xe9\n")
        streams = Streams(monkeypatch, encoding)
        fake.store(tmp_path / name, ["fedavg"])
        assert main(["table", "1", "--json", "--out", str(tmp_path / name)]) == 0
        assert name in json.loads(streams.read())["path"]
    write_whole(tmp_path / "one.json", f'"ε {name}"')
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == f"ε {name}"
    before = (tmp_path / "one.json").stat().st_ino
    write_changed(tmp_path / "one.json", f'"ε {name}"')
    assert (tmp_path / "one.json").stat().st_ino == before


def test_files_are_the_same_in_the_c_locale(tmp_path):
    """A process of its own, since a locale is set once; neither UTF-8 mode nor a rescue by it."""
    for folder in ("here", "there"):
        fake.store(tmp_path / folder, ["fedavg", "dpsgd-eps6"])
    assert main(["table", "1", "--out", str(tmp_path / "here")]) == 0
    words = ["table", "1", "--out", str(tmp_path / "there"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "repro", *words],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    paths = [Path(path) for path in json.loads(done.stdout)["paths"]]
    assert any("ε" in path.read_text(encoding="utf-8") for path in paths)
    for path in paths:
        assert (
            path.read_bytes()
            == (tmp_path / "here" / path.relative_to(tmp_path / "there")).read_bytes()
        )


TEXT = {"open", "fdopen", "read_text", "write_text", "NamedTemporaryFile"}


def opens_text(call: ast.Call) -> bool:
    """Whether a call may read or write text, as far as its own words tell."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    words = [word.value for word in call.args if isinstance(word, ast.Constant)]
    words += [word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)]
    if name in ("run", "Popen", "check_output"):
        return any(word.arg in ("text", "universal_newlines") for word in call.keywords)
    if isinstance(function, ast.Attribute) and ast.unparse(function.value) in ("os", "archive"):
        return False
    binary = any(isinstance(word, str) and word in ("rb", "wb", "ab", "r+b") for word in words)
    return name in TEXT and not binary


def test_no_file_is_opened_in_the_locales_encoding():
    """Every text file and pipe of ours says its encoding, but for zip archives."""
    found, silent = 0, []
    for folder in ("repro", "kernels", "tools", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            source = file.read_text(encoding="utf-8")
            if not any(f"{word}(" in source for word in (*TEXT, "run", "Popen")):
                continue
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and opens_text(node):
                    found += 1
                    if not any(word.arg == "encoding" for word in node.keywords):
                        silent.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert found > 15
    assert not silent
