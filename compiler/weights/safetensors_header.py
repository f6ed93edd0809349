"""The header of a safetensors file: read with every rule of the format checked, and written.

Format: https://github.com/huggingface/safetensors#format. A `u64` length, that many bytes of JSON,
then the tensors' data without gaps.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from tilewright.dialects.errors import ModelReadError

MAX_HEADER_BYTES = 100_000_000
"""Limit of the reference implementation."""

DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}

_LFS_POINTER = b"version https://git-lfs"
_FETCH_AGAIN = "download or copy the file again"


@dataclass(frozen=True)
class HeaderEntry:
    """A tensor of the file: `begin` is its offset from the first byte of data."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size_bytes: int


def parse_header(descriptor: int, file_bytes: int, name: str) -> tuple[int, list[HeaderEntry]]:
    """The offset of the first byte of data, and the tensors in the order of their data.

    `name` stands for the file in errors. Raises `ModelReadError` for anything but a whole,
    well-formed file.
    """
    start = os.pread(descriptor, 64, 0)
    if start.startswith(_LFS_POINTER):
        raise ModelReadError(
            "the file is a Git LFS pointer, not the weights", where=name, hint="run `git lfs pull`"
        )
    if len(start) < 8:
        raise ModelReadError(
            "the safetensors file is truncated",
            where=name,
            why=f"it has {file_bytes} bytes; the length of the header alone takes 8",
            hint=_FETCH_AGAIN,
        )
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_HEADER_BYTES:
        raise ModelReadError(
            "the file is not safetensors",
            where=name,
            why=f"its first 8 bytes give a header of {length:,} bytes; "
            f"at most {MAX_HEADER_BYTES:,} are legal",
            hint=_FETCH_AGAIN,
        )
    if 8 + length > file_bytes:
        raise ModelReadError(
            "the safetensors file is truncated inside its header",
            where=name,
            why=f"the header ends at byte {8 + length:,}; the file has {file_bytes:,} bytes",
            hint=_FETCH_AGAIN,
        )
    table = _parse_json(_pread_all(descriptor, length, 8), name)
    table.pop("__metadata__", None)
    entries = [_entry(key, value, name) for key, value in table.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.size_bytes))
    _check_layout(entries, 8 + length, file_bytes, name)
    return 8 + length, entries


def _pread_all(descriptor: int, size: int, offset: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.pread(descriptor, size - len(parts), offset + len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def _parse_json(text: bytes, name: str) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"key {twice!r} stands there twice")
        return table

    try:
        table = json.loads(text.decode(), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelReadError(
            "the safetensors header is not JSON", where=name, why=str(error), hint=_FETCH_AGAIN
        ) from error
    if not isinstance(table, dict):
        raise ModelReadError("the safetensors header is not a JSON object", where=name)
    return cast(dict[str, Any], table)


def _entry(key: str, value: Any, name: str) -> HeaderEntry:
    def damaged(why: str) -> ModelReadError:
        return ModelReadError(
            "the safetensors header is damaged",
            where=f"tensor {key!r} in {name}",
            why=why,
            hint=_FETCH_AGAIN,
        )

    if not isinstance(value, dict) or set(cast(dict[str, Any], value)) != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        raise damaged("an entry has dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise damaged(f"unknown dtype {dtype!r}")
    if not _is_count_list(shape):
        raise damaged(f"shape {shape!r} is not a list of counts")
    if not _is_count_list(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(f"data_offsets {offsets!r} is not a range")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise damaged(
            f"{dtype} {shape} takes {bits / 8:,.0f} bytes; data_offsets span "
            f"{offsets[1] - offsets[0]:,}"
        )
    return HeaderEntry(key, dtype, tuple(shape), offsets[0], offsets[1] - offsets[0])


def _is_count_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0
        for item in cast(list[Any], value)
    )


def _check_layout(entries: list[HeaderEntry], data: int, file_bytes: int, name: str) -> None:
    whole = data + max((entry.begin + entry.size_bytes for entry in entries), default=0)
    expected = 0
    for entry in entries:
        if entry.begin != expected:
            raise ModelReadError(
                "the safetensors header is damaged",
                where=f"tensor {entry.key!r} in {name}",
                why=f"its data begins at {entry.begin:,}; the data before it ends at {expected:,}",
                hint=_FETCH_AGAIN,
            )
        expected = entry.begin + entry.size_bytes
        if data + expected > file_bytes:
            raise ModelReadError(
                "the safetensors file is truncated",
                where=f"tensor {entry.key!r} in {name}",
                why=f"the tensor ends at byte {data + expected:,} of the {whole:,} that the header "
                f"describes; the file has {file_bytes:,}",
                hint=_FETCH_AGAIN,
            )
    if data + expected != file_bytes:
        raise ModelReadError(
            "the safetensors file is too long",
            where=name,
            why=f"its tensors end at byte {data + expected:,}; the file has {file_bytes:,} bytes",
            hint=_FETCH_AGAIN,
        )


def format_header(entries: Iterable[HeaderEntry], *, total_bytes: int | None = None) -> bytes:
    """The length and JSON of a header, padded with spaces to `total_bytes` (default: a multiple of
    8)."""
    table = {
        entry.key: {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.begin + entry.size_bytes],
        }
        for entry in entries
    }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    total = total_bytes if total_bytes is not None else 8 + -(-len(text) // 8) * 8
    if 8 + len(text) > total:
        raise ValueError(f"a header of {len(text)} bytes does not fit {total}")
    return struct.pack("<Q", total - 8) + text.ljust(total - 8)
