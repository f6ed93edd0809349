"""The binary form of commands: one fixed-size little-endian record a command, for each of the two
engines.

A kernel is a *command group*: the commands of each engine are numbered 1, 2, 3, ... in the order of
its queue, and `wait` names the last id of the *other* engine that must have finished before the
command starts (0: none). Both are 20-bit numbers (docs/machine.md), so a group has
fewer than 2**20 commands an engine.

Addresses: local ones are byte offsets in every lane. Global ones are a kernel argument and a byte
offset from its first element: a kernel is launched many times with other argument addresses.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

MAX_COMMAND_ID = 2**20 - 1

Records: TypeAlias = npt.NDArray[np.void]
"""A one-dimensional structured array of `GDMA_RECORD` or `BDC_RECORD`."""


class GdmaOpcode(IntEnum):
    """What a GDMA command does; `rows` x `cols` elements of `element` type each."""

    LOAD = 1
    """Global row `r` (at `global_offset + r * pitch`) to local row `r`: lane `r % lanes`, slot `r
    // lanes`.
    """
    STORE = 2
    """The other way."""
    LOAD_REPLICATED = 3
    """One global row (`rows` is 1) to the same place in every lane."""
    GATHER = 4
    """Local row `r` from the global row that index `r` names: `global_offset + index[r] * pitch`.
    """
    SCATTER = 5
    """The other way."""


class BdcOpcode(IntEnum):
    """What a BDC command does. `function` selects within a family."""

    MM = 1
    """`dst[rows, cols] = a[rows, depth] @ b`; b is [depth, cols], or [cols, depth] with
    `TRANSPOSE_RIGHT`; with `ACCUMULATE` the product is added to `dst` (f32, i32 of i8 operands).
    """
    DEQUANT = 2
    """`dst = round((a - c) * b)`: codes (`CodeCode`), scales, zero points (`ZERO_POINT`). A column
    of b and c is for a group of `depth` columns of `dst`; where depth is 0 there is one, for all.
    """
    UNARY = 3
    """`dst = function(a)`."""
    BINARY = 4
    """`dst = a function b`, b read as its `BMode` says."""
    REDUCE = 5
    """`dst[rows, 0] = function over cols of a`."""
    TRANSPOSE = 6
    """`dst[cols, rows] = a[rows, cols]`."""
    FILL = 7
    """`dst = immediate`."""
    ROTATE = 8
    """Quarter turn of column pairs of the first `depth` columns (`INTERLEAVED` or half split);
    others 0.
    """
    QUANTIZE = 9
    """`dst = clamp(round(a / b[0, 0]), -128, 127)`: i8; b is one replicated f32."""
    DEQUANTIZE = 10
    """`dst = round(a * b[0, 0])`: i8 codes times one replicated f32."""
    REQUANT = 11
    """`dst = clamp(((a + b[:, 0]) * b[:, 1] + 2^(b[:, 2] - 1)) >> b[:, 2], -128, 127)`: i32 to i8.
    """


class BMode(IntEnum):
    """How a binary command reads its right operand."""

    FULL = 0
    ROW = 1
    """One replicated row, read by every row."""
    COLUMN = 2
    """One column, read by every column."""
    IMMEDIATE = 3


class BdcFlag(IntEnum):
    """Bits of a BDC record's `flags`."""

    TRANSPOSE_RIGHT = 1
    ACCUMULATE = 2
    INTERLEAVED = 4
    REPLICATED = 8
    """The tile is one replicated row: every lane computes its copy (UNARY, BINARY and FILL)."""
    ZERO_POINT = 16
    """A DEQUANT has zero points, operand c."""


class CodeCode(IntEnum):
    """`function` of a DEQUANT command: what `quantization.CodeFormat` its codes have."""

    I8 = 0
    I4 = 1
    U4 = 2
    F8E4M3 = 3
    F8E5M2 = 4


class UnaryCode(IntEnum):
    """`function` of a UNARY command."""

    CAST = 0
    NEG = 1
    ABS = 2
    SQRT = 3
    RSQRT = 4
    RECIPROCAL = 5
    EXP = 6
    SIGMOID = 7
    TANH = 8
    ERF = 9


class BinaryCode(IntEnum):
    """`function` of a BINARY command."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5


class ReduceCode(IntEnum):
    """`function` of a REDUCE command."""

    SUM = 0
    MAX = 1
    MIN = 2


GDMA_RECORD: np.dtype[Any] = np.dtype(
    [
        ("opcode", "<u1"),
        ("element", "<u1"),
        ("argument", "<u2"),
        ("id", "<u4"),
        ("wait", "<u4"),
        ("rows", "<u4"),
        ("cols", "<u4"),
        ("local_offset", "<u4"),
        ("local_stride", "<u4"),
        ("table_rows", "<u4"),
        ("global_offset", "<u8"),
        ("pitch", "<u8"),
        ("index_offset", "<u8"),
        ("index_argument", "<u2"),
        ("reserved", "<u2", (3,)),
    ]
)
"""64 bytes. `local_stride` is the bytes of a local slot; `table_rows` bounds the indices of GATHER
and SCATTER.
"""

_OPERAND: np.dtype[Any] = np.dtype([("offset", "<u4"), ("stride", "<u4")])

BDC_RECORD: np.dtype[Any] = np.dtype(
    [
        ("opcode", "<u1"),
        ("function", "<u1"),
        ("flags", "<u1"),
        ("b_mode", "<u1"),
        ("id", "<u4"),
        ("wait", "<u4"),
        ("rows", "<u4"),
        ("cols", "<u4"),
        ("depth", "<u4"),
        ("immediate", "<f4"),
        ("dst", _OPERAND),
        ("a", _OPERAND),
        ("b", _OPERAND),
        ("dst_element", "<u1"),
        ("a_element", "<u1"),
        ("b_element", "<u1"),
        ("reserved", "<u1"),
        ("c", _OPERAND),
    ]
)
"""64 bytes. `rows`, `cols` are those of `a` for TRANSPOSE, else of `dst` (of `a` for REDUCE). `c`
has i8 elements.
"""

assert GDMA_RECORD.itemsize == 64
assert BDC_RECORD.itemsize == 64
