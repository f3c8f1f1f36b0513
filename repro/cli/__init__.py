"""The command line: ``repro COMMAND …``.

A command is a module with three names:

- ``SUMMARY``: one line for ``repro --help``, read from ``COMMANDS`` below so that listing
  the commands imports none of them;
- ``configure(parser)``: adds the command's arguments;
- ``execute(arguments) -> Outcome``: does the work and returns what to print.

A command of several words has ``COMMANDS`` too: second word -> (module, SUFFIX, summary), whose
functions are ``configure_SUFFIX`` and ``execute_SUFFIX``. Only the chosen command's module is
imported, which keeps ``repro epsilon`` free of torch. What ``--help`` says below the options
stands in ``help/COMMAND.txt``, of several words joined by dashes.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from repro.cli.output import Outcome, emit, make_legible, say
from repro.errors import InputError
from repro.version import __version__

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
GOES_ON = (
    "run",
    "reproduce",
    "ablate",
    "benchmark",
)  # finished work is kept, and the rest taken up again

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("repro.cli.run", "train one arm: ARM × hospitals × seed (resumes if it was killed)"),
    "arms": ("repro.cli.arms", "list the arms of the experiment matrix"),
    "reproduce": (
        "repro.cli.reproduce",
        "every run, table and figure of a profile, and the report",
    ),
    "table": ("repro.cli.results", "draw one table from the run store"),
    "figure": ("repro.cli.results", "draw one figure from the run store"),
    "report": ("repro.cli.results", "write the report (HTML and Markdown) from the run store"),
    "label": ("repro.cli.label", "the privacy label of one run: what its ε says and rests on"),
    "ablate": ("repro.cli.ablate", "run one ablation and draw its figure or table"),
    "epsilon": ("repro.cli.accounting", "ε of Poisson-subsampled Gaussian steps (DP-SGD)"),
    "rdp": ("repro.cli.accounting", "Rényi divergence of one subsampled Gaussian step"),
    "noise": ("repro.cli.accounting", "smallest noise multiplier that meets a target (ε, δ)"),
    "gaussian": ("repro.cli.accounting", "exact ε of Gaussian releases, composed over rounds"),
    "search-cost": ("repro.cli.accounting", "ε of releasing the best of several private trials"),
    "check-claim": (
        "repro.cli.check_claim",
        "what a published (ε, δ) claim really guarantees, in words to quote",
    ),
    "partition": ("repro.cli.partition", "sizes and label counts of the hospitals"),
    "audit": ("repro.cli.audit", "attack an arm and bound its ε from below, controls included"),
    "forensics": (
        "repro.cli.forensics",
        "execute Flower before and after the mended noise, beside our code",
    ),
    "secagg": ("repro.cli.secagg", "one secure aggregation round, with drop-outs where you say"),
    "federation": (
        "repro.cli.federation",
        "train across hospitals: a signed plan, a server, hospitals on their own files",
    ),
    "benchmark": (
        "repro.cli.benchmark",
        "data set × ε × place × method, paired: a benchmark that others can enter",
    ),
    "bench": ("repro.cli.bench", "measure speed and memory beside a peer, in one run"),
}

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose what you may read and write",
    errno.EPERM: "choose what you may read and write",
}


class OneLineParser(argparse.ArgumentParser):
    """argparse, but a mistake costs one line instead of a page of usage.

    words: what will be parsed, for a command whose options depend on one of them.
    """

    words: Sequence[str] = ()

    def explain(self, **parts: str | Mapping[str, str]) -> None:
        """Fill what ``--help`` says below the options with these texts and listings."""
        texts = {name: one if isinstance(one, str) else listing(one) for name, one in parts.items()}
        self.epilog = (self.epilog or "").format(**texts)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def help_text(name: str) -> str:
    """``help/NAME.txt``, or nothing where there is no such file."""
    path = Path(__file__).parent / "help" / f"{name}.txt"
    return path.read_text(encoding="utf-8").rstrip("\n") if path.exists() else ""


def listing(words: Mapping[str, str]) -> str:
    """A line for each: name, and what it is."""
    width = max(map(len, words))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in words.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 success, 2 bad input or a file system that refuses (both one line on stderr), 130 Ctrl-C;
    the commands with further ones say so in their help.
    """
    make_legible()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        return _top_level(words)
    name = words[0]
    try:
        return _command(name, words[1:])
    except InputError as mistake:
        _say(name, str(mistake))
    except KeyboardInterrupt:
        _say(name, "interrupted" + ("; the same command goes on" if name in GOES_ON else ""))
        return EXIT_INTERRUPTED
    except OSError as problem:
        _say(name, _refusal(problem, goes_on=name in GOES_ON))
    return EXIT_BAD_INPUT


def _command(name: str, words: Sequence[str]) -> int:
    module = importlib.import_module(COMMANDS[name][0])
    home, part = module, ""
    parser = OneLineParser(
        prog=f"repro {name}",
        description=COMMANDS[name][1] + ".",
        epilog=help_text(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(command=name)
    parser.words = words
    further: dict[str, tuple[str, str, str]] = getattr(module, "COMMANDS", {})
    if words and words[0] in further:
        where, suffix, summary = further[words[0]]
        home, part = importlib.import_module(where), f"_{suffix}"
        parser.prog += f" {words[0]}"
        parser.description = f"{summary[0].upper()}{summary[1:]}."
        parser.epilog = help_text(f"{name}-{words[0]}")
        parser.add_argument("action", choices=[words[0]], help=argparse.SUPPRESS)
    getattr(home, f"configure{part}")(parser)
    arguments = parser.parse_args(words)
    _check_ranks(name)
    outcome: Outcome = getattr(home, f"execute{part}")(arguments)
    emit(outcome, as_json=arguments.json)
    return outcome.status


def _say(name: str, line: str) -> None:
    """One line on stderr; of several ranks that all met the same, the first says it."""
    if os.environ.get("RANK", "0") == "0" or not line.startswith("interrupted"):
        say(f"repro {name}: {line}")


def _refusal(problem: OSError, *, goes_on: bool) -> str:
    """What the operating system refused, where, and what would help."""
    where = " to ".join(str(name) for name in (problem.filename, problem.filename2) if name)
    what = problem.strerror or str(problem) or type(problem).__name__
    said = f"{where}: {what}" if where else what
    parts = [said, _REMEDIES.get(problem.errno or 0), "then the same command goes on" * goes_on]
    return " ".join("; ".join(part for part in parts if part).split())


def _check_ranks(name: str) -> None:
    """Under ``torchrun`` every rank gets the command; these would all write the same files."""
    ranks = os.environ.get("WORLD_SIZE", "1")
    if name in ("reproduce", "ablate", "benchmark") and ranks != "1":
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(EXIT_BAD_INPUT)
        raise InputError(
            "WORLD_SIZE", ranks, f"1: only `repro run` takes several ranks; `repro {name}` goes on"
            " from the runs it finds"
        )  # fmt: skip


def _top_level(words: list[str]) -> int:
    commands = listing({name: summary for name, (_, summary) in COMMANDS.items()})
    parser = OneLineParser(
        prog="repro",
        description="Reproduce arXiv 2412.00687 and check every ε of it.",
        epilog=f"commands:\n{commands}\n\n`repro COMMAND --help` explains one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"repro {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help="see below")
    parser.parse_args(words or ["--help"])
    return 0
