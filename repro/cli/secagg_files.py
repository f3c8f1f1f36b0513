"""``repro secagg keygen``, ``directory``, ``rotate``, ``recover`` and ``audit-log``: a federation's
files, and a party's new key with the state it has or without."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli.output import Outcome, named_lines
from repro.cli.secagg_parties import operator_key
from repro.errors import InputError

if TYPE_CHECKING:
    from repro.secagg.deploy.directory import FederationDirectory, Settings

_SETTINGS = (
    "threshold",
    "neighbours",
    "dimension",
    "field_bits",
    "clip_range",
    "max_weight",
    "minimum_survivors",
    "quorum",
)


def configure_keygen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="private key to make")
    parser.add_argument(
        "--tls", action="append", default=[], metavar="HOST", help="name or address; repeatable"
    )


def configure_directory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="directory to write, or to write the next of")
    add("--operator-key", type=Path, required=True, metavar="KEY", help="signs it")
    add("--server-key", type=Path, metavar="PUB", help="the server's public key")
    add("--hospital", action="append", default=[], metavar="ID=PUB", help="repeatable")
    add("--remove", action="append", type=int, default=[], metavar="ID", help="repeatable")
    add("--new-session", action="store_true", help="number the rounds from 1 again")
    add("--threshold", type=int, metavar="T", help="shares that reveal a secret")
    add("--neighbours", type=int, metavar="k", help="even, or all others")
    add("--dimension", type=int, metavar="N", help="values in a vector")
    add("--clip-range", type=float, metavar="R", help="values clip at ±R (8)")
    add("--max-weight", type=int, metavar="W", help="weights' bound (10000)")
    add("--minimum-survivors", type=int, metavar="M", help="no sum of fewer (2)")
    add("--quorum", type=int, metavar="Q", help="signatures that confirm who survived (usual)")
    add("--field-bits", type=int, choices=(31, 61), help="field (31)")


def configure_rotate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--state", type=Path, required=True, metavar="DIR", help="the party's state folder")
    add("--old", type=Path, required=True, metavar="KEY", help="the key used so far")
    add("--new", type=Path, required=True, metavar="KEY", help="the key to go on with")


def configure_recover(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--state", type=Path, required=True, metavar="DIR", help="the state folder to begin anew")
    add("--key", type=Path, required=True, metavar="KEY", help="the new key to make")


def configure_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE", help="transcript")


def execute_keygen(arguments: argparse.Namespace) -> Outcome:
    from repro.files import write_whole
    from repro.secagg.deploy.certificates import self_signed
    from repro.secagg.deploy.keystore import create_identity, public_path, write_private

    path: Path = arguments.file
    identity = create_identity(path)
    data = {"key": str(path), "public_file": str(public_path(path))}
    data["public"] = identity.public.hex()
    if arguments.tls:
        certificate, key = self_signed(arguments.tls)
        data["tls_certificate"] = f"{path}.tls.pem"
        data["tls_key"] = f"{path}.tls.key"
        write_whole(Path(data["tls_certificate"]), certificate)
        write_private(Path(data["tls_key"]), key)
    return Outcome(data, named_lines(data, 16))


def execute_directory(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.directory import load_directory
    from repro.secagg.deploy.keystore import load_identity, read_public

    operator = load_identity(arguments.operator_key)
    hospitals = dict(_hospital(text) for text in arguments.hospital)
    server = read_public(arguments.server_key) if arguments.server_key else None
    settings = {
        name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None
    }
    if arguments.file.exists():
        earlier = load_directory(arguments.file, operator.public)
        directory = _next(earlier, arguments, hospitals, server, settings)
    else:
        directory = _first(operator.public, server, hospitals, settings)
    directory.write(arguments.file, operator)
    data = {
        "path": str(arguments.file),
        "serial": directory.serial,
        "session": directory.session.hex(),
        "hospitals": sorted(directory.hospitals),
        "revoked": len(directory.revoked),
        "digest": directory.digest.hex(),
    }
    return Outcome(data, named_lines(data, 10))


def execute_rotate(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.keystore import load_identity
    from repro.secagg.deploy.renewal import rotate

    old, new = load_identity(arguments.old), load_identity(arguments.new)
    data = {"public": new.public.hex(), "old_log": str(rotate(arguments.state, old, new))}
    return Outcome(data, named_lines(data, 12))


def execute_recover(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.keystore import public_path
    from repro.secagg.deploy.renewal import recover

    identity, aside = recover(arguments.state, arguments.key)
    data = {
        "public": identity.public.hex(),
        "public_file": str(public_path(arguments.key)),
        "set_aside": None if aside is None else str(aside),
    }
    return Outcome(data, named_lines(data, 12))


def execute_audit(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.audit import audit
    from repro.secagg.deploy.transcript import read_log

    logs = [read_log(path) for path in arguments.file]
    found = audit(logs)
    data = asdict(found) | {
        "ok": not found.findings,
        "logs": [
            {
                "path": str(path),
                "public": log.public.hex(),
                "entries": len(log.entries),
                "head": log.head,
                "torn_bytes": log.torn_bytes,
            }
            for path, log in zip(arguments.file, logs, strict=True)
        ],
    }
    lines = [
        f"{log['path']}: {log['entries']} entries, head {log['head'][:16]}…" for log in data["logs"]
    ]
    lines.append(
        f"{found.rounds} rounds begun, {found.sums} sums, {found.messages} messages, "
        f"{found.compared} compared end to end, {found.opened} secrets opened"
    )
    lines += [f"WRONG: {line}" for line in found.findings] or ["nothing wrong"]
    return Outcome(data, "\n".join(lines), 1 if found.findings else 0)


def _hospital(text: str) -> tuple[int, bytes]:
    number, _, key = text.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise InputError("hospital", text, "ID=PUB, a whole number and a public key or its file")
    return int(number), operator_key(key)


def first_directory(
    operator: bytes, server: bytes, hospitals: dict[int, bytes], settings: Settings
) -> FederationDirectory:
    """Of a federation that begins: serial 1, and a session that nobody had before."""
    from repro.secagg.deploy.directory import FederationDirectory
    from repro.secagg.rounds import SESSION_BYTES

    session = secrets.token_bytes(SESSION_BYTES)
    return FederationDirectory(operator, 1, session, server, hospitals, settings)


def _first(
    operator: bytes, server: bytes | None, hospitals: dict[int, bytes], settings: dict[str, Any]
) -> FederationDirectory:
    from repro.secagg.deploy.directory import Settings

    missing = [name for name in ("threshold", "neighbours", "dimension") if name not in settings]
    if missing or server is None:
        option = "--" + (missing[0] if missing else "server_key").replace("_", "-")
        raise InputError(option, None, "a value, for the first directory")
    return first_directory(operator, server, hospitals, Settings(**settings))


def _next(
    earlier: FederationDirectory,
    arguments: argparse.Namespace,
    hospitals: dict[int, bytes],
    server: bytes | None,
    settings: dict[str, Any],
) -> FederationDirectory:
    if settings and not arguments.new_session:
        raise InputError("settings", sorted(settings), "--new-session, if settings are to change")
    return earlier.changed(
        hospitals=hospitals,
        remove=arguments.remove,
        server=server,
        new_session=arguments.new_session,
        settings=replace(earlier.settings, **settings) if settings else None,
    )
