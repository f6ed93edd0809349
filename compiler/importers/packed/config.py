"""What a checkpoint says of how its weights were quantized: `quantization_config`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Literal, cast

from tilewright.compiler.models.config import Fields
from tilewright.dialects.errors import ModelReadError, UnsupportedError

QUANTIZATION_FIELD = "quantization_config"
"""The field of `config.json`."""
GPTQ_CONFIG_NAME = "quantize_config.json"
"""Where AutoGPTQ writes the same beside it."""
AWQ_CONFIG_NAME = "quant_config.json"
"""Where AutoAWQ writes the same beside it, with names of its own."""

READ_AS_THEY_ARE = "gptq (4 and 8 bits) and awq (4 bits, version gemm) are read as they are"
_START_DENSE = "or compile the checkpoint that it was made from, with --quant"
_BITS: Mapping[str, tuple[int, ...]] = {"gptq": (4, 8), "awq": (4,)}
_GPTQ_FORMATS = ("gptq", "gptq_v2")
_LEAST_GROUP, _MOST_GROUP, _GROUP_MULTIPLE = 16, 1024, 16
_AWQ_NAMES = {"w_bit": "bits", "q_group_size": "group_size"}

Method = Literal["gptq", "awq"]


class ZeroOffset(Enum):
    """How stored zero points differ from those of the formula."""

    NONE = auto()
    """Not at all (AWQ, and GPTQ's second format)."""
    CODE = auto()
    """One is stored too little; each is read for itself, so that 15 means 16 (GPTQ's first format
    as AutoGPTQ, ExLlama and vLLM read it)."""
    WORD = auto()
    """One is stored too little in each place of a 32-bit word: a zero point of 0 has borrowed from
    the next place (as GPTQModel writes and reads it)."""


@dataclass(frozen=True)
class Packing:
    """How linear layers were quantized. `group` is 0 where a channel is one group."""

    method: Method
    bits: int
    group: int
    symmetric: bool
    """All zero points are in the middle of the codes."""
    act_order: bool
    """Inputs may be in any order of their groups (`desc_act`)."""
    zero_offset: ZeroOffset
    source: str
    """The file, for messages."""
    head: bool = False
    """The head is quantized, too."""
    dense: tuple[str, ...] = ()
    """Parts of the names of layers that are not quantized (`modules_to_not_convert`)."""
    dynamic: tuple[tuple[str, Fields], ...] = ()
    """Patterns of layers and what differs in them (GPTQModel); the first that matches counts."""

    def of_layer(self, layer: str) -> Packing:
        """The packing of one layer; raises as `read_packing` for what `dynamic` says of it."""
        for pattern, fields in self.dynamic:
            if not re.match(pattern.removeprefix("+:"), layer):
                continue
            return replace(
                self,
                bits=_bits(fields, self.method, self.bits),
                group=_group(fields, self.group),
                symmetric=fields.flag("sym", self.symmetric),
                act_order=fields.flag("desc_act", self.act_order),
                dynamic=(),
            )
        return self

    def says_dense(self, layer: str) -> bool:
        """Whether the configuration says that a layer is not quantized."""
        if any(part in layer for part in self.dense):
            return True
        for pattern, _ in self.dynamic:
            if pattern.startswith("-:") and re.match(pattern.removeprefix("-:"), layer):
                return True
        return False


def read_packing(fields: Fields) -> Packing:
    """The packing that a quantization configuration describes.

    Raises `ModelReadError` for fields that are missing or make no sense, `UnsupportedError` for
    methods, formats, bits and groups that are not read.
    """
    values = {_AWQ_NAMES.get(name, name): value for name, value in fields.values.items()}
    fields = Fields(values, fields.source)
    method = _method(fields)
    bits = _bits(fields, method, None)
    group = _group(fields, None)
    if method == "awq":
        _require_gemm(fields)
        return Packing(
            method,
            bits,
            group,
            False,
            False,
            ZeroOffset.NONE,
            fields.source,
            dense=_dense(fields),
        )
    symmetric = fields.flag("sym", False)
    return Packing(
        method,
        bits,
        group,
        symmetric,
        fields.flag("desc_act", False),
        _zero_offset(fields, symmetric),
        fields.source,
        fields.flag("lm_head", False),
        _dense(fields),
        _dynamic(fields),
    )


def _method(fields: Fields) -> Method:
    name = fields.text("quant_method", "").lower()
    if not name:
        name = "awq" if fields.has("zero_point") or fields.has("version") else "gptq"
        fields.require(fields.has("bits"), "field 'quant_method' is missing")
    if name == "gptq" or name == "awq":
        return name
    raise UnsupportedError(
        f"checkpoints quantized by {name!r} are not supported",
        where=fields.source,
        hint=f"{READ_AS_THEY_ARE}; {_START_DENSE}",
    )


def _bits(fields: Fields, method: str, default: int | None) -> int:
    bits = fields.size("bits", default)
    if bits not in _BITS[method]:
        raise UnsupportedError(
            f"{method} checkpoints of {bits} bits are not supported",
            where=fields.source,
            hint=f"{READ_AS_THEY_ARE}; {_START_DENSE}",
        )
    return bits


def _group(fields: Fields, default: int | None) -> int:
    if default is not None and not fields.has("group_size"):
        return default
    if fields.values.get("group_size") == -1:
        return 0
    group = fields.size("group_size")
    if not _LEAST_GROUP <= group <= _MOST_GROUP or group % _GROUP_MULTIPLE:
        raise UnsupportedError(
            f"groups of {group} inputs are not supported",
            where=fields.source,
            hint=f"multiples of {_GROUP_MULTIPLE} up to {_MOST_GROUP} are, and -1: one group",
        )
    return group


def _require_gemm(fields: Fields) -> None:
    version = fields.text("version", fields.text("format", "gemm"))
    backend = fields.text("backend", "auto")
    if backend == "llm-awq":
        version = backend
    if version.lower() != "gemm":
        raise UnsupportedError(
            f"awq checkpoints of version {version!r} are not supported",
            where=fields.source,
            hint=f"only 'gemm' is; {_START_DENSE}",
        )
    fields.require_supported("zero_point", True, True)


def _zero_offset(fields: Fields, symmetric: bool) -> ZeroOffset:
    marlin = fields.flag("is_marlin_format", False)
    layout = fields.text("checkpoint_format", fields.text("format", "gptq")).lower()
    if marlin or layout not in _GPTQ_FORMATS:
        raise UnsupportedError(
            f"gptq checkpoints of format {'marlin' if marlin else layout!r} are not supported",
            where=fields.source,
            hint=f"{' and '.join(_GPTQ_FORMATS)} are; {_START_DENSE}",
        )
    fields.require_supported("pack_dtype", "int32", "int32")
    if layout == "gptq_v2":
        return ZeroOffset.NONE
    made_by = str(fields.child("meta").values.get("quantizer", ""))
    if "gptqmodel" in made_by.lower() and not symmetric:
        return ZeroOffset.WORD
    return ZeroOffset.CODE


def _dense(fields: Fields) -> tuple[str, ...]:
    value: Any = fields.values.get("modules_to_not_convert") or []
    names = cast(list[object], value) if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise ModelReadError(
            f"field 'modules_to_not_convert' is {value!r}, not a list of names",
            where=fields.source,
        )
    return tuple(cast(list[str], names))


def _dynamic(fields: Fields) -> tuple[tuple[str, Fields], ...]:
    rules = fields.child("dynamic")
    for pattern in rules.values:
        try:
            re.compile(pattern.removeprefix("+:").removeprefix("-:"))
        except re.error as error:
            raise ModelReadError(
                f"{pattern!r} is no regular expression", where=rules.source, why=str(error)
            ) from error
    return tuple((pattern, rules.child(pattern)) for pattern in rules.values)
