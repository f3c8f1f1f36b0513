"""The directory file: who takes part under which settings, signed by the federation's operator.

Everybody checks the operator's signature with a key they got from the operator, not from the
server. A later directory (a higher serial) replaces an earlier one, never the other way round;
keys that were replaced or revoked are listed for good and never come back.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.context import settings_digest
from repro.secagg.deploy.keystore import parse_public
from repro.secagg.encoding import Encoding
from repro.secagg.field import Field
from repro.secagg.hospital import Contribution
from repro.secagg.keys import Identity, verify
from repro.secagg.rounds import SESSION_BYTES, BaseRound, Directory, Round
from repro.secagg.transport.quiet import Once, Report

FORMAT = "repro secagg directory v2"
_PURPOSE = "directory"
# The public settings of a round: by the directory, its number, and the application's bytes.
RoundOf = Callable[["FederationDirectory", int, bytes], BaseRound]


@dataclass(frozen=True)
class Settings:
    """What every round of the federation is held under; see ``Round`` and ``Encoding``.

    dimension: values in a hospital's vector. minimum_survivors: no sum of fewer is unmasked.
    quorum: signatures that confirm who survived; 0 for the usual number.
    """

    threshold: int
    neighbours: int
    dimension: int
    field_bits: int = 31
    clip_range: float = 8.0
    max_weight: int = 10_000
    minimum_survivors: int = 2
    quorum: int = 0

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InputError("dimension", self.dimension, "at least 1")


@dataclass(frozen=True)
class FederationDirectory:
    """operator, server: public keys; hospitals: id -> public key; revoked: keys, ever.

    serial: counts directories, from 1; session: 32 bytes that the rounds are numbered in.
    """

    operator: bytes
    serial: int
    session: bytes
    server: bytes
    hospitals: Mapping[int, bytes]
    settings: Settings
    revoked: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        listed = sorted({self.server, *self.hospitals.values()} & self.revoked)
        if listed:
            raise InputError("directory", listed[0].hex(), "a key that has not been revoked")
        if self.serial < 1:
            raise InputError("serial", self.serial, "at least 1")
        self.round(1)  # bad settings are found here, not in the first round

    def round(self, number: int, application: bytes = b"") -> Round:
        """The public settings of round ``number``, bound to this directory and to the bytes
        announced: hospitals that were sent different ones do not end up in one sum."""
        settings = self.settings
        return Round(
            directory=Directory(self.server, dict(self.hospitals)),
            session=self.session,
            number=number,
            threshold=settings.threshold,
            neighbours=settings.neighbours,
            encoding=self.encoding,
            length=settings.dimension,
            model=hashlib.sha256(application).digest(),
            training=settings_digest(asdict(settings)),
            application=self.digest,
            minimum_survivors=settings.minimum_survivors,
            quorum=settings.quorum,
        )

    def check(self, contribution: Contribution) -> None:
        """Raise InputError for what no round of this federation takes, see
        ``check_contribution``."""
        check_contribution(self.round(1), contribution)

    @cached_property
    def encoding(self) -> Encoding:
        settings = self.settings
        return Encoding(
            Field(settings.field_bits),
            len(self.hospitals),
            settings.clip_range,
            settings.max_weight,
        )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the content: equal digests are equal directories."""
        return hashlib.sha256(self._content()).digest()

    def id_of(self, public: bytes) -> int:
        """The hospital with this public key; InputError for a key that is not listed (any more)."""
        for one, key in self.hospitals.items():
            if key == public:
                return one
        gone = public in self.revoked
        expected = "a key that has not been revoked" if gone else "a key that the directory lists"
        raise InputError("key", public.hex(), expected)

    def write(self, path: Path, operator: Identity) -> None:
        """Sign and write whole."""
        if operator.public != self.operator:
            raise InputError("operator", operator.public.hex(), f"the key {self.operator.hex()}")
        content = self._fields()
        content["signature"] = operator.sign(_PURPOSE, self._content()).hex()
        write_whole(path, json.dumps(content, indent=1) + "\n")

    def succeeds(self, earlier: FederationDirectory) -> None:
        """Raise InputError unless this directory may replace ``earlier``."""
        if self.digest == earlier.digest:
            return
        if self.serial <= earlier.serial:
            expected = f"one after {earlier.serial}, which has been seen already"
            raise InputError("directory's serial", self.serial, expected)
        forgotten = sorted(earlier.revoked - self.revoked)
        if forgotten:
            raise InputError("directory", "a revocation less", f"{forgotten[0].hex()} still in it")

    def changed(
        self,
        *,
        hospitals: Mapping[int, bytes] | None = None,
        remove: Collection[int] = (),
        server: bytes | None = None,
        new_session: bool = False,
        settings: Settings | None = None,
    ) -> FederationDirectory:
        """The next directory: hospitals added or given a new key, removed, a new server's key.

        Every key that goes out of use is revoked. Where a key comes in, or new_session or
        settings say so, a new series of rounds begins, numbered from 1: who is new has no part in
        the old one, and whose counter is lost does not repeat a round of it.
        """
        strangers = sorted(set(remove) - set(self.hospitals))
        if strangers:
            raise InputError("hospital", strangers[0], f"one of {sorted(self.hospitals)}")
        after = {**self.hospitals, **(hospitals or {})}
        after = {one: key for one, key in after.items() if one not in remove}
        keys = {self.server, *self.hospitals.values()}
        new_server = server or self.server
        fresh = {new_server, *after.values()} - keys
        new_session = new_session or settings is not None or bool(fresh)
        return replace(
            self,
            serial=self.serial + 1,
            server=new_server,
            hospitals=after,
            session=secrets.token_bytes(SESSION_BYTES) if new_session else self.session,
            settings=settings or self.settings,
            revoked=self.revoked | (keys - {new_server, *after.values()}),
        )

    def _fields(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "operator": self.operator.hex(),
            "serial": self.serial,
            "session": self.session.hex(),
            "server": self.server.hex(),
            "hospitals": {str(one): self.hospitals[one].hex() for one in sorted(self.hospitals)},
            "settings": asdict(self.settings),
            "revoked": sorted(key.hex() for key in self.revoked),
        }

    def _content(self) -> bytes:
        return json.dumps(self._fields(), sort_keys=True, separators=(",", ":")).encode()


def check_contribution(round_: BaseRound, contribution: Contribution) -> None:
    """Raise InputError for what the round does not take: a vector of another length or type, a
    value that is not finite, a weight beyond its bound."""
    vector, length = contribution.vector, round_.length
    if not isinstance(vector, np.ndarray) or vector.shape != (length,):
        shape = getattr(vector, "shape", type(vector).__name__)
        raise InputError("vector", f"{shape}", f"({length},)")
    round_.check(vector, contribution.weight)
    if not np.isfinite(vector).all():
        raise InputError("vector", "a value that is not finite", "finite numbers")


def load_directory(path: Path, operator: bytes) -> FederationDirectory:
    """Read and verify. operator: the public key that must have signed it."""
    return _verified(path, _read(path), operator)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        expected = f"a readable directory file ({problem.strerror})"
        raise InputError("directory", str(path), expected) from None


def _verified(path: Path, content: bytes, operator: bytes) -> FederationDirectory:
    try:
        raw = json.loads(content)
    except ValueError as problem:
        raise InputError("directory", str(path), f"a whole directory file ({problem})") from None
    try:
        if raw.pop("format") != FORMAT:
            raise ValueError("another format")
        signature = bytes.fromhex(raw.pop("signature"))
        directory = FederationDirectory(
            operator=parse_public(raw.pop("operator")),
            serial=int(raw.pop("serial")),
            session=bytes.fromhex(raw.pop("session")),
            server=parse_public(raw.pop("server")),
            hospitals={int(one): parse_public(key) for one, key in raw.pop("hospitals").items()},
            settings=Settings(**raw.pop("settings")),
            revoked=frozenset(parse_public(key) for key in raw.pop("revoked")),
        )
        if raw:
            raise ValueError(f"unknown entries {sorted(raw)}")
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError("directory", str(path), f"{FORMAT} ({problem})") from None
    if directory.operator != operator:
        expected = f"the operator {operator.hex()}"
        raise InputError("directory's operator", directory.operator.hex(), expected)
    if not verify(operator, _PURPOSE, directory._content(), signature):
        raise InputError("directory", str(path), "the operator's signature under what it says")
    return directory


class PinnedDirectory:
    """The directory a party goes by: the file's, as long as it only ever moves forward.

    The last one accepted is kept in ``seen`` (whole and signed), so that after a restart an
    older file is not taken either. A file that cannot be taken (half-copied, unreadable, older)
    is said to ``report``; until it can be, the last one accepted stands.
    """

    def __init__(
        self, path: Path, operator: bytes, seen: Path, report: Report = lambda line: None
    ) -> None:
        self._path, self._operator, self._seen = path, operator, seen
        self._warn = Once(report)
        self._last: FederationDirectory | None = None
        if seen.exists():
            self._last = load_directory(seen, operator)

    def current(self) -> FederationDirectory:
        """Read again. Raises InputError for a file that cannot be taken where no earlier one has
        been."""
        last = self._last
        try:
            content = _read(self._path)
            directory = _verified(self._path, content, self._operator)
            if last is not None:
                directory.succeeds(last)
        except InputError as problem:
            if last is None:
                raise
            self._warn(
                f"going by the directory of serial {last.serial}, the last good one: {problem}"
            )
            return last
        if last is None or directory.digest != last.digest:
            write_whole(self._seen, content)
            self._last = directory
        return directory
