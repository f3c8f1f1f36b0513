"""JSON files that one key has signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.files import write_whole
from repro.formatting import to_json
from repro.secagg.deploy.keystore import parse_public
from repro.secagg.keys import Identity, verify


def plain_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a file: text keys, lists, "inf" for ∞."""
    result: dict[str, Any] = json.loads(to_json(dict(fields)))
    return result


def canonical(fields: Mapping[str, Any]) -> bytes:
    """What is signed: of equal fields the same bytes."""
    return json.dumps(plain_json(fields), sort_keys=True, separators=(",", ":")).encode()


def write_signed(path: Path, form: str, fields: Mapping[str, Any], identity: Identity) -> None:
    """Whole or not at all. form: the file's format, which is signed too."""
    content = plain_json({"format": form, "signer": identity.public.hex(), **fields})
    signature = identity.sign(form, canonical(content)).hex()
    write_whole(path, json.dumps({**content, "signature": signature}, indent=1) + "\n")


def read_signed(path: Path, field: str, form: str) -> tuple[dict[str, Any], bytes]:
    """The fields, and the public key that has signed them. InputError, naming ``field``, for a
    file that is none of this format or that its signer has not signed as it stands."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        signature = bytes.fromhex(content.pop("signature"))
        signer = parse_public(content["signer"])
        if content["format"] != form:
            raise ValueError(f"its format is {content['format']!r}")
    except OSError as problem:
        raise InputError(field, str(path), f"a readable file ({problem.strerror})") from None
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(field, str(path), f"a whole {form} file ({problem})") from None
    if not verify(signer, form, canonical(content), signature):
        raise InputError(field, str(path), "its signer's signature under what it says")
    return {name: content[name] for name in content if name not in ("format", "signer")}, signer
