"""What an artifact says of itself: `manifest.json`, as structs."""

from __future__ import annotations

from typing import Any

import msgspec

from tilewright.backends.program import Access, BufferKind
from tilewright.compiler.weights.layout import Form


class ArgumentRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel's argument (`backends.program.KernelArgument`)."""

    rows: int
    cols: int
    element: str
    pitch_bytes: int
    access: Access


class KernelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel; its records follow those of the kernel before it in `commands.bin`."""

    name: str
    op: str
    arguments: tuple[ArgumentRecord, ...]
    gdma_commands: int
    bdc_commands: int
    local_bytes: int


class PortRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output of a function."""

    name: str
    shape: tuple[int, ...]
    element: str
    address: int


class FunctionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function; its launches follow those of the function before it in `commands.bin`."""

    name: str
    inputs: tuple[PortRecord, ...]
    outputs: tuple[PortRecord, ...]
    launches: int


class BufferRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of global memory."""

    name: str
    address: int
    size_bytes: int
    kind: BufferKind


class ProgramRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program, but for its records and launches."""

    chip: str
    kernels: tuple[KernelRecord, ...]
    functions: tuple[FunctionRecord, ...]
    buffers: tuple[BufferRecord, ...]


class TensorRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of `weights.safetensors`; `offset` counts from that member's first byte.

    The `element` of a scale is f32 where f16 scales would have been subnormal. `scheme` is that of
    a quantized weight whose part the tensor is; the parts are named alike but for the form.
    """

    name: str
    form: Form
    element: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    sha256: str
    scheme: str = ""


class WeightsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights member: its header (everything before the first tensor) and its tensors."""

    size_bytes: int
    header_bytes: int
    header_sha256: str
    tensors: tuple[TensorRecord, ...]


class MemberRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another member of the archive."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that describes an artifact.

    `inputs` are digests of what it was compiled from, by name.
    """

    format_version: int
    tilewright_version: str
    chip: dict[str, Any]
    model: dict[str, Any]
    options: dict[str, Any]
    pipeline: str
    inputs: dict[str, str]
    program: ProgramRecord
    weights: WeightsRecord
    members: dict[str, MemberRecord]


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON, always the same for the same manifest."""
    text = msgspec.json.encode(manifest, order="deterministic")
    return msgspec.json.format(text, indent=1) + b"\n"


def decode_manifest(text: bytes) -> Manifest:
    """The manifest from JSON; raises `msgspec.DecodeError`."""
    return msgspec.json.decode(text, type=Manifest)
