"""``repro secagg rotate`` and ``recover``: a party's new key, with the state it has or without."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro.cli.output import Outcome

ROTATE_EXAMPLE = """
A planned change of key. First `repro secagg keygen NEW.key`, hand NEW.key.pub to the operator
(`repro secagg directory FILE --hospital ID=NEW.key.pub`, or --server-key), get the new directory;
then stop the party, run this, and start it with --key NEW.key and the same --state. The old log
is closed and kept beside the new one; audit both.

example:
  repro secagg rotate --state state --old hospital.key --new new.key
"""
RECOVER_EXAMPLE = """
Where DIR is lost, damaged or came from a backup: nobody can say any more in which rounds the key
was used, so a new key is made, and what is left of DIR is set aside. Hand NEW.key.pub to the
operator, get the new directory (a new session begins with it), and start the party with
--key NEW.key and --state DIR. For hospitals and servers alike.

example:
  repro secagg recover --state state --key new.key
"""


def configure_rotate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--state", type=Path, required=True, metavar="DIR", help="the party's state folder")
    add("--old", type=Path, required=True, metavar="KEY", help="the key used so far")
    add("--new", type=Path, required=True, metavar="KEY", help="the key to go on with")
    parser.epilog = ROTATE_EXAMPLE


def configure_recover(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--state", type=Path, required=True, metavar="DIR", help="the state folder to begin anew")
    add("--key", type=Path, required=True, metavar="KEY", help="the new key to make")
    parser.epilog = RECOVER_EXAMPLE


def execute_rotate(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.keystore import load_identity
    from repro.secagg.deploy.renewal import rotate

    old, new = load_identity(arguments.old), load_identity(arguments.new)
    data = {"public": new.public.hex(), "old_log": str(rotate(arguments.state, old, new))}
    return Outcome(data, _lines(data))


def execute_recover(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.keystore import public_path
    from repro.secagg.deploy.renewal import recover

    identity, aside = recover(arguments.state, arguments.key)
    data = {
        "public": identity.public.hex(),
        "public_file": str(public_path(arguments.key)),
        "set_aside": None if aside is None else str(aside),
    }
    return Outcome(data, _lines(data))


def _lines(data: dict[str, str] | dict[str, str | None]) -> str:
    return "\n".join(f"{name:<12} {value}" for name, value in data.items() if value is not None)
