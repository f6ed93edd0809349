"""The zip around an artifact: stored members, fixed timestamps, data at multiples of 4096 bytes.

Everything in the file that is not a member's data follows from the members' sizes and checksums and
from the comment. So the reader makes it anew and compares: no byte of the structure can change
unnoticed. Source: PKWARE, APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.dialects.errors import ArtifactError

FORMAT_VERSION = 2
"""1: dense weights and w8a16. 2: weights have schemes, and records of three operands."""
ALIGNMENT = 4096
RECOMPILE = "compile the model again"

WEIGHTS = "weights.safetensors"
COMMANDS = "commands.bin"
MANIFEST = "manifest.json"
MODULE = "module.mlir"
MEMBERS = (WEIGHTS, COMMANDS, MODULE, MANIFEST)
"""In the order of the file: the weights are made first, the manifest knows all the others."""

_COMMENT = re.compile(rb"tilewright artifact (\d{1,9}) sha256:([0-9a-f]{64})\Z")
_MOST_COMMENT = 128
_LIMIT32 = 0xFFFFFFFF
_DOS_DATE = 0x21
"""1980-01-01, the first date that a zip can hold."""
_ALIGNMENT_FIELD = 0xD935
"""The extra field in which Android's zipalign pads."""
_ZIP64_FIELD = 0x0001
_MADE_BY_UNIX = 3 << 8
_REGULAR_FILE = 0o100644 << 16

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_LOCAL_ZIP64_BYTES = 20
_PAD_BYTES = 6
"""Head of the padding field: id, length, alignment."""


@dataclass(frozen=True)
class Member:
    """A member whose data lies at `offset` of the file."""

    name: str
    offset: int
    size_bytes: int
    crc32: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


def data_offset(name: str, after: int) -> int:
    """Where the data of a member goes whose header begins at `after`."""
    least = after + _LOCAL.size + len(name) + _LOCAL_ZIP64_BYTES + _PAD_BYTES
    return -(-least // ALIGNMENT) * ALIGNMENT


def comment(version: int, manifest_sha256: str) -> bytes:
    """The comment of the archive: what it is, its version, and the digest of its manifest."""
    return f"tilewright artifact {version} sha256:{manifest_sha256}".encode()


def structure(members: Sequence[Member], archive_comment: bytes) -> Iterator[tuple[int, bytes]]:
    """All that is not data, as `(offset, bytes)`: local headers, then the directory and the end."""
    starts: dict[str, int] = {}
    start = 0
    for member in members:
        starts[member.name] = start
        yield start, _local_header(member, member.offset - start)
        start = member.end
    ordered = sorted(members, key=lambda member: member.name)
    directory = b"".join(_central_entry(member, starts[member.name]) for member in ordered)
    yield start, directory + _end(len(members), start, len(directory), archive_comment)


def _sizes(member: Member) -> tuple[int, bytes]:
    if member.size_bytes < _LIMIT32:
        return member.size_bytes, b""
    return _LIMIT32, struct.pack("<QQ", member.size_bytes, member.size_bytes)


def _local_header(member: Member, total: int) -> bytes:
    name = member.name.encode()
    size, zip64 = _sizes(member)
    extra = struct.pack("<HH", _ZIP64_FIELD, len(zip64)) + zip64 if zip64 else b""
    room = total - _LOCAL.size - len(name) - len(extra)
    extra += struct.pack("<HHH", _ALIGNMENT_FIELD, room - 4, ALIGNMENT).ljust(room, b"\0")
    version = 45 if zip64 else 20
    fields = (0x04034B50, version, 0, 0, 0, _DOS_DATE, member.crc32, size, size)
    return _LOCAL.pack(*fields, len(name), len(extra)) + name + extra


def _central_entry(member: Member, start: int) -> bytes:
    name = member.name.encode()
    size, zip64 = _sizes(member)
    if start >= _LIMIT32:
        zip64 += struct.pack("<Q", start)
    extra = struct.pack("<HH", _ZIP64_FIELD, len(zip64)) + zip64 if zip64 else b""
    version = 45 if zip64 else 20
    head = (0x02014B50, _MADE_BY_UNIX | version, version, 0, 0, 0, _DOS_DATE, member.crc32)
    lengths = (size, size, len(name), len(extra), 0, 0, 0)
    place = (_REGULAR_FILE, min(start, _LIMIT32))
    return _CENTRAL.pack(*head, *lengths, *place) + name + extra


def _end(count: int, start: int, size: int, archive_comment: bytes) -> bytes:
    zip64 = b""
    if start >= _LIMIT32:
        version = _MADE_BY_UNIX | 45
        zip64 = _END64.pack(
            0x06064B50, _END64.size - 12, version, 45, 0, 0, count, count, size, start
        ) + _LOCATOR64.pack(0x07064B50, 0, start + size, 1)
    end = (0x06054B50, 0, 0, count, count, size, min(start, _LIMIT32), len(archive_comment))
    return zip64 + _END.pack(*end) + archive_comment


def parse(data: memoryview, where: str) -> tuple[list[Member], str]:
    """The members in the order of the file, and the digest that the manifest must have.

    Raises `ArtifactError` for anything that `structure` did not make, and for another format
    version.
    """
    tail = bytes(data[-_MOST_COMMENT - _END.size - _LOCATOR64.size - _END64.size :])
    found = tail.rfind(b"PK\x05\x06")
    match = _COMMENT.fullmatch(tail[found + _END.size :]) if found >= 0 else None
    if match is None:
        cut = bytes(data[:4]) == b"PK\x03\x04"
        raise ArtifactError(
            "the artifact is truncated" if cut else "the file is not an artifact of Tilewright",
            where=where,
            why="it is empty" if not data else f"its {len(data):,} bytes do not end as one does",
            hint=RECOMPILE,
        )
    version = int(match[1])
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"the artifact has format version {version}; this Tilewright reads {FORMAT_VERSION}",
            where=where,
            hint=RECOMPILE + ", or use the Tilewright that compiled it",
        )
    try:
        members = _parse_directory(
            data, tail[found:], tail[max(0, found - _LOCATOR64.size) : found]
        )
        same = _is_made_of(data, members, match[0])
    except (struct.error, IndexError, ValueError, OverflowError):
        members, same = [], False
    if not same:
        raise ArtifactError(
            "the structure of the artifact is damaged",
            where=where,
            why="its headers or directory are not those that Tilewright writes",
            hint=RECOMPILE,
        )
    return members, match[2].decode()


def _parse_directory(data: memoryview, end: bytes, locator: bytes) -> list[Member]:
    start = _END.unpack_from(end)[6]
    if start == _LIMIT32:
        (record,) = struct.unpack_from("<8xQ", locator)
        start = _END64.unpack_from(data, record)[9]
    members: list[Member] = []
    position = start
    for _ in MEMBERS:
        fields = _CENTRAL.unpack_from(data, position)
        crc32, size, name_length, extra_length = fields[7], fields[9], fields[10], fields[11]
        position += _CENTRAL.size
        name = bytes(data[position : position + name_length]).decode()
        extra = bytes(data[position + name_length : position + name_length + extra_length])
        position += name_length + extra_length
        if size == _LIMIT32:
            (size,) = struct.unpack_from("<4xQ", extra)
        members.append(Member(name, 0, size, crc32))
    return _placed(members)


def _placed(members: Sequence[Member]) -> list[Member]:
    by_name = {member.name: member for member in members}
    if set(by_name) != set(MEMBERS):
        raise ValueError("other members")
    placed: list[Member] = []
    end = 0
    for name in MEMBERS:
        member = by_name[name]
        offset = data_offset(name, end)
        placed.append(Member(name, offset, member.size_bytes, member.crc32))
        end = placed[-1].end
    return placed


def _is_made_of(data: memoryview, members: Sequence[Member], archive_comment: bytes) -> bool:
    end = 0
    for offset, expected in structure(members, archive_comment):
        end = offset + len(expected)
        if bytes(data[offset:end]) != expected:
            return False
    return end == len(data)
