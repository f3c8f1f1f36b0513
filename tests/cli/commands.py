"""A command as a script meets it: its JSON, or its refusal."""

import json

from repro.cli import main


def ask(capsys, *words, status=0):
    """What ``--json`` prints."""
    assert main([*map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """Exit 2 with nothing on stdout and one line on stderr, which is returned."""
    try:
        status = main([*map(str, words)])
    except SystemExit as stop:  # argparse's own
        status = stop.code
    printed = capsys.readouterr()
    assert (status, printed.out, printed.err.count("\n")) == (2, "", 1), printed
    return printed.err
