"""Opens artifacts: maps the file and checks everything before anything runs."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.program import Program
from tilewright.compiler.artifact import archive
from tilewright.compiler.artifact.commands import decode_program
from tilewright.compiler.artifact.manifest import Manifest, TensorRecord, decode_manifest
from tilewright.compiler.artifact.validate import program_problems
from tilewright.compiler.artifact.weight_parts import part_problems
from tilewright.dialects.element_types import element_by_name
from tilewright.dialects.errors import ArtifactError, UnsupportedError
from tilewright.dialects.quantization import CodeFormat

_THREADS = 2
_HASH_BYTES = 1 << 24
"""Hashed at a time: an interrupt is noticed between two of these."""


@dataclass(frozen=True)
class Artifact:
    """A compiled model: checked, and mapped.

    Nothing is copied; weights are read from the file when they are used.
    """

    path: str
    manifest: Manifest
    module_text: str
    program: Program
    chip: Chip
    _tensors: MappingProxyType[str, TensorRecord]
    _weights: memoryview

    def weights(self) -> list[str]:
        """The names of the stored weights, in the order of the file."""
        return list(self._tensors)

    def weight(self, name: str) -> npt.NDArray[Any]:
        """A weight, as a read-only view of the file; raises `KeyError` where there is none."""
        tensor = self._tensors[name]
        dtype = element_by_name(tensor.element).dtype
        data = self._weights[tensor.offset : tensor.offset + tensor.size_bytes]
        return np.frombuffer(data, dtype).reshape(tensor.shape)


def open_artifact(path: str | os.PathLike[str], *, verify_weights: bool = True) -> Artifact:
    """The artifact in a file.

    Checks the archive, the manifest, every digest (those of the weights unless `verify_weights` is
    false), and that every index and address of the program is in range. Raises `ArtifactError` that
    says what is wrong, where.
    """
    where = os.fspath(path)
    data = _map(where)
    members, manifest_digest = archive.parse(data, where)
    parts = {member.name: data[member.offset : member.end] for member in members}
    manifest = _manifest(parts[archive.MANIFEST], manifest_digest, where)
    _check_members(manifest, parts, where)
    _check_weights(manifest, parts[archive.WEIGHTS], where, verify_weights)
    try:
        chip = _chip(manifest.chip)
        program = decode_program(manifest.program, parts[archive.COMMANDS])
        module_text = bytes(parts[archive.MODULE]).decode()
    except (ValueError, TypeError, UnsupportedError) as error:
        raise _damaged("the program of the artifact is damaged", where, str(error)) from error
    tensors = {tensor.name: tensor for tensor in manifest.weights.tensors}
    weight_bytes = {name: tensor.size_bytes for name, tensor in tensors.items()}
    for place, why in program_problems(program, chip, weight_bytes):
        raise _damaged("the program of the artifact is out of range", f"{place} in {where}", why)
    return Artifact(
        where,
        manifest,
        module_text,
        program,
        chip,
        MappingProxyType(tensors),
        parts[archive.WEIGHTS],
    )


def _damaged(what: str, where: str, why: str) -> ArtifactError:
    return ArtifactError(what, where=where, why=why, hint=archive.RECOMPILE)


def _map(where: str) -> memoryview:
    try:
        with open(where, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtifactError("the artifact cannot be opened", where=where, why=why) from error


def _manifest(text: memoryview, digest: str, where: str) -> Manifest:
    if hashlib.sha256(text).hexdigest() != digest:
        raise _damaged(
            f"{archive.MANIFEST} is damaged", where, "its SHA-256 is not the one in the archive"
        )
    try:
        return decode_manifest(bytes(text))
    except msgspec.DecodeError as error:
        raise _damaged(f"{archive.MANIFEST} is damaged", where, str(error)) from error


def _check_members(manifest: Manifest, parts: dict[str, memoryview], where: str) -> None:
    if manifest.format_version != archive.FORMAT_VERSION:
        raise _damaged(
            f"{archive.MANIFEST} is damaged", where, f"format version {manifest.format_version}"
        )
    expected = {archive.COMMANDS, archive.MODULE}
    if set(manifest.members) != expected:
        raise _damaged(f"{archive.MANIFEST} is damaged", where, "it describes other members")
    for name, member in manifest.members.items():
        if len(parts[name]) != member.size_bytes or _sha256(parts[name]) != member.sha256:
            raise _damaged(
                f"{name} is damaged", where, "its SHA-256 is not the one in the manifest"
            )


def _check_weights(manifest: Manifest, data: memoryview, where: str, verify_tensors: bool) -> None:
    weights = manifest.weights
    header = data[: weights.header_bytes]
    if len(data) != weights.size_bytes or len(header) != weights.header_bytes:
        raise _damaged(
            f"{archive.WEIGHTS} is damaged",
            where,
            f"it has {len(data):,} bytes; the manifest says {weights.size_bytes:,}",
        )
    if _sha256(header) != weights.header_sha256:
        raise _damaged(
            f"{archive.WEIGHTS} is damaged", where, "the SHA-256 of its header is another"
        )
    for why in _layout_problems(weights.tensors, weights.header_bytes, data):
        raise _damaged(f"{archive.WEIGHTS} is damaged", where, why)
    for why in part_problems(weights.tensors, data):
        raise _damaged("the quantized weights of the artifact do not fit together", where, why)
    if verify_tensors:
        _verify_tensors(weights.tensors, data, where)


def _layout_problems(
    tensors: Sequence[TensorRecord], header_bytes: int, data: memoryview
) -> Iterator[str]:
    """Tensors follow each other; the few bytes between them, if any, are zero."""
    end = header_bytes
    names: set[str] = set()
    for tensor in tensors:
        try:
            size = math.prod(tensor.shape) * element_by_name(tensor.element).size_bytes
        except UnsupportedError as error:
            yield f"tensor {tensor.name!r}: {error}"
            return
        if tensor.name in names:
            yield f"two tensors are called {tensor.name!r}"
        names.add(tensor.name)
        if size != tensor.size_bytes or min(tensor.shape, default=0) < 0:
            yield (
                f"tensor {tensor.name!r} has {tensor.size_bytes:,} bytes; its shape takes {size:,}"
            )
        if tensor.offset < end or any(data[end : tensor.offset]):
            yield f"tensor {tensor.name!r} is not where the one before it ends"
        end = tensor.offset + tensor.size_bytes
    if end != len(data):
        yield f"the tensors end at byte {end:,} of {len(data):,}"


def _verify_tensors(tensors: Sequence[TensorRecord], data: memoryview, where: str) -> None:
    def verify(tensor: TensorRecord) -> bool:
        part = data[tensor.offset : tensor.offset + tensor.size_bytes]
        return _sha256(part) == tensor.sha256

    pool = ThreadPoolExecutor(_THREADS)
    try:
        for tensor, intact in zip(tensors, pool.map(verify, tensors), strict=True):
            if not intact:
                raise _damaged(
                    f"weight {tensor.name!r} is damaged",
                    where,
                    "its SHA-256 is not the one in the manifest",
                )
    finally:
        pool.shutdown(cancel_futures=True)


def _sha256(data: memoryview) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(data), _HASH_BYTES):
        digest.update(data[start : start + _HASH_BYTES])
    return digest.hexdigest()


def _chip(table: dict[str, Any]) -> Chip:
    names = {field.name for field in fields(Chip)}
    if set(table) != names:
        raise ValueError("the description of the chip does not have the right keys")
    frozen: dict[str, Any] = {
        key: MappingProxyType(cast(dict[str, Any], value)) if isinstance(value, dict) else value
        for key, value in table.items()
    }
    frozen["code_formats"] = tuple(CodeFormat(name) for name in table["code_formats"])
    return Chip(**frozen)
