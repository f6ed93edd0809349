"""Quantization schemes: how the weight of a linear layer is stored, and what it is multiplied with.

A scheme has a short name, which options, rules, tables and artifacts use:

    w8a16  w8a16-g64  w8a16-g128-zp      int8 codes; a scale a channel, or a group of inputs
    w4a16  w4a16-g32  w4a16-channel      int4 codes, two a byte; groups of 64 unless it says else
    w4a16-absmax  w4a16-channel-absmax   symmetric: no zero point
    f8e4m3  f8e5m2-g128                  8-bit floats with scales
    int8                                 int8 weights and int8 activations (W8A8)

`parse_scheme` reads the name, `Scheme.name` writes it, in one canonical form.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import auto
from functools import cache
from math import ceil

from xdsl.utils.str_enum import StrEnum

from tilewright.dialects.errors import OptionError

DENSE = ("f32", "f16", "bf16")
"""What a weight is stored as if it is not quantized."""

DEFAULT_SCHEME = "w8a16"
INT4_GROUP = 64
"""The group size of `w4a16` where the name gives none."""
GROUP_MULTIPLE = 16
"""A group is a multiple of so many inputs."""


class CodeFormat(StrEnum):
    """What a code is. Four-bit codes lie two in a byte, the first in the low nibble."""

    I8 = auto()
    I4 = auto()
    """Two's complement, -8..7."""
    U4 = auto()
    """0..15, with zero points."""
    F8E4M3 = auto()
    """OCP E4M3 without infinities (E4M3FN): at most 448."""
    F8E5M2 = auto()
    """OCP E5M2: at most 57344."""

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 4 if self in (CodeFormat.I4, CodeFormat.U4) else 8

    @property
    def is_float(self) -> bool:
        """Whether a code is an 8-bit float."""
        return self in (CodeFormat.F8E4M3, CodeFormat.F8E5M2)

    def row_bytes(self, depth: int) -> int:
        """Bytes of `depth` codes; an odd nibble at the end takes a byte."""
        return ceil(depth * self.bits / 8)


@dataclass(frozen=True)
class Scheme:
    """How the weight `[N, K]` of a linear layer is quantized.

    `w[n, k] = (codes[n, k] - zero[n, k // group]) * scale[n, k // group]`; `group` is 0 where one
    group is the whole channel.
    """

    format: CodeFormat
    group: int = 0
    zero_point: bool = False
    int8_activations: bool = False

    @property
    def name(self) -> str:
        """The canonical name."""
        if self.int8_activations:
            return "int8"
        if self.format.is_float:
            return f"{self.format}-g{self.group}" if self.group else str(self.format)
        parts = [f"w{self.format.bits}a16"]
        if self.format.bits == 4:
            if self.group != INT4_GROUP:
                parts.append(f"g{self.group}" if self.group else "channel")
            if not self.zero_point:
                parts.append("absmax")
        else:
            if self.group:
                parts.append(f"g{self.group}")
            if self.zero_point:
                parts.append("zp")
        return "-".join(parts)

    def groups(self, depth: int) -> int:
        """Groups of a channel of `depth` inputs; `depth` is a multiple of the group."""
        return depth // self.group if self.group else 1

    def fits(self, depth: int) -> bool:
        """Whether groups divide a channel of `depth` inputs."""
        return not self.group or depth % self.group == 0

    def bits_per_weight(self, depth: int, scale_bits: int = 16) -> float:
        """Bits a weight with its share of scales and (8-bit) zero points."""
        a_group = scale_bits + (8 if self.zero_point else 0)
        return self.format.bits + a_group * self.groups(depth) / depth


@cache
def parse_scheme(text: str) -> Scheme:
    """The scheme called `text`; raises `OptionError` for anything else."""
    base, *parts = text.split("-")
    group: int | None = None
    symmetric: bool | None = None
    for part in parts:
        if part == "channel" and group is None:
            group = 0
        elif part[:1] == "g" and part[1:].isdigit() and group is None:
            group = int(part[1:])
            if group == 0 or group % GROUP_MULTIPLE:
                raise _unknown(text, f"a group is a multiple of {GROUP_MULTIPLE} inputs")
        elif part in ("absmax", "zp") and symmetric is None:
            symmetric = part == "absmax"
        else:
            raise _unknown(text, f"{part!r} is not understood, or said twice")
    if base == "int8" and not parts:
        return Scheme(CodeFormat.I8, int8_activations=True)
    if base in (CodeFormat.F8E4M3, CodeFormat.F8E5M2) and symmetric is None:
        return Scheme(CodeFormat(base), group or 0)
    if base == "w8a16":
        return Scheme(CodeFormat.I8, group or 0, zero_point=symmetric is False)
    if base == "w4a16":
        size = INT4_GROUP if group is None else group
        code = CodeFormat.I4 if symmetric else CodeFormat.U4
        return Scheme(code, size, zero_point=not symmetric)
    raise _unknown(text, None)


def is_scheme(text: str) -> bool:
    """Whether `text` names a scheme."""
    try:
        parse_scheme(text)
    except OptionError:
        return False
    return True


def check_quant(text: str) -> None:
    """Raises `OptionError` unless `text` is a dense element type or names a scheme."""
    if text not in DENSE:
        parse_scheme(text)


def _unknown(text: str, why: str | None) -> OptionError:
    return OptionError(
        f"unknown quantization {text!r}",
        why=why,
        hint=f"{', '.join(DENSE)}, w8a16, w8a16-g64, w4a16, w4a16-g128, w4a16-channel, "
        "w4a16-absmax, f8e4m3, f8e5m2, int8",
    )
