"""Lists and fixed-size fields as bytes, for the messages of both protocols.

Reading raises ``Refused`` and nothing else, and allocates no more than it was given. All numbers
are little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable

from repro.secagg.errors import Refused

Buffer = bytes | bytearray | memoryview


def exactly(payload: Buffer, size: int) -> bytes:
    if len(payload) != size:
        raise Refused(f"{len(payload)} bytes where {size} belong")
    return bytes(payload)


def split(payload: Buffer, size: int) -> tuple[bytes, memoryview]:
    if len(payload) < size:
        raise Refused(f"{len(payload)} bytes where at least {size} belong")
    return bytes(payload[:size]), memoryview(payload)[size:]


def pair(hospital: int, value: bytes) -> bytes:
    return hospital.to_bytes(8, "little") + value


def counted(parts: Iterable[bytes]) -> bytes:
    listed = list(parts)
    return len(listed).to_bytes(4, "little") + b"".join(listed)


def entries(payload: Buffer, size: int) -> list[bytes]:
    """Entries of ``size`` bytes each behind their count, which has to fit the payload exactly."""
    count_bytes, rest = split(payload, 4)
    if len(rest) != int.from_bytes(count_bytes, "little") * size:
        raise Refused("a list whose length is not what it says")
    return [bytes(rest[start : start + size]) for start in range(0, len(rest), size)]


def pairs(payload: Buffer, size: int) -> list[tuple[int, bytes]]:
    both = entries(payload, 8 + size)
    return [(int.from_bytes(entry[:8], "little"), entry[8:]) for entry in both]


def blobs(parts: Iterable[bytes]) -> bytes:
    """Parts of any length, each behind its own."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def each_blob(payload: Buffer) -> list[bytes]:
    """The parts that ``blobs`` has put together."""
    found, rest = [], memoryview(payload)
    while rest:
        size, rest = split(rest, 4)
        part, rest = split(rest, int.from_bytes(size, "little"))
        found.append(part)
    return found
