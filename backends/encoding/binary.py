"""A kernel's records as bytes, for the artifact.

A header of 64 bytes (magic, version, number of GDMA and of BDC records, little-endian u32, the rest
zero), then the GDMA records, then the BDC records: so records stay aligned to 64 bytes in a file
that is.
"""

from __future__ import annotations

import struct

import numpy as np

from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD, MAX_COMMAND_ID, Records
from tilewright.dialects.errors import ArtifactError

MAGIC = b"TWCG"
"""Tilewright command group."""
VERSION = 1
HEADER_BYTES = 64

_HEADER = struct.Struct("<4sIII48x")
assert _HEADER.size == HEADER_BYTES


def encode(gdma: Records, bdc: Records) -> bytes:
    """The bytes of a command group."""
    header = _HEADER.pack(MAGIC, VERSION, len(gdma), len(bdc))
    return header + gdma.astype(GDMA_RECORD).tobytes() + bdc.astype(BDC_RECORD).tobytes()


def decode(data: bytes | bytearray | memoryview, *, where: str = "") -> tuple[Records, Records]:
    """The GDMA and BDC records in `data`, which they refer to without a copy, read-only.

    Raises `ArtifactError`, naming `where`, if `data` is not exactly one command group of this
    version.
    """
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < HEADER_BYTES:
        raise _damaged(where, f"{len(view)} bytes are less than a header of {HEADER_BYTES}")
    magic, version, gdma_count, bdc_count = _HEADER.unpack(view[:HEADER_BYTES])
    if magic != MAGIC:
        raise _damaged(where, f"it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise _damaged(where, f"it has version {version}, this is version {VERSION}")
    if any(view[_HEADER.size - 48 : HEADER_BYTES]):
        raise _damaged(where, "the unused bytes of its header are not zero")
    if max(gdma_count, bdc_count) > MAX_COMMAND_ID:
        raise _damaged(where, f"it has more than {MAX_COMMAND_ID} commands an engine")
    split = HEADER_BYTES + gdma_count * GDMA_RECORD.itemsize
    end = split + bdc_count * BDC_RECORD.itemsize
    if len(view) != end:
        raise _damaged(where, f"it has {len(view)} bytes, its header says {end}")
    gdma = np.frombuffer(view[HEADER_BYTES:split], GDMA_RECORD)
    bdc = np.frombuffer(view[split:end], BDC_RECORD)
    return gdma, bdc


def _damaged(where: str, why: str) -> ArtifactError:
    return ArtifactError("not a command group", where=where or None, why=why)
