"""Functions of tiles. All compute in f32 and make f32 tiles, but for those that name a type."""

from __future__ import annotations

import math

from xdsl.ir import SSAValue

from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.memory_types import LocalType
from tilewright.dialects.quantization import CodeFormat
from tilewright.passes.kernel_language.indexes import Index, index_of
from tilewright.passes.kernel_language.recording import current, kernel_error
from tilewright.passes.kernel_language.tiles import (
    Local,
    Number,
    Operators,
    Tile,
    combine,
    require_fit,
    require_float,
    unary,
    wide,
)
from tilewright.passes.kernels import elementwise
from tilewright.passes.kernels.elementwise import Elements


def exp(x: Operators) -> Tile:
    """Exponential."""
    return unary(UnaryFunction.EXP, x)


def sqrt(x: Operators) -> Tile:
    """Square root."""
    return unary(UnaryFunction.SQRT, x)


def rsqrt(x: Operators) -> Tile:
    """`1 / sqrt(x)`."""
    return unary(UnaryFunction.RSQRT, x)


def reciprocal(x: Operators) -> Tile:
    """`1 / x`."""
    return unary(UnaryFunction.RECIPROCAL, x)


def sigmoid(x: Operators) -> Tile:
    """`1 / (1 + exp(-x))`."""
    return unary(UnaryFunction.SIGMOID, x)


def tanh(x: Operators) -> Tile:
    """Hyperbolic tangent."""
    return unary(UnaryFunction.TANH, x)


def erf(x: Operators) -> Tile:
    """The error function."""
    return unary(UnaryFunction.ERF, x)


def absolute(x: Operators) -> Tile:
    """`|x|`."""
    return unary(UnaryFunction.ABS, x)


def relu(x: Operators) -> Tile:
    """`max(x, 0)`."""
    return maximum(x, 0)


def silu(x: Operators) -> Tile:
    """`x * sigmoid(x)`: two commands."""
    return _element_function(elementwise.silu, x)


def gelu(x: Operators, approximate: str = "none") -> Tile:
    """GELU by erf, or with `approximate="tanh"` by tanh: five commands."""
    if approximate not in ("none", "tanh"):
        raise kernel_error(f"gelu approximated by {approximate!r}", hint="none or tanh")
    emit = elementwise.gelu_tanh if approximate == "tanh" else elementwise.gelu_erf
    return _element_function(emit, x)


def _element_function(emit: elementwise.Emit, x: Operators) -> Tile:
    tile = x.tile
    require_float(tile)
    return Tile(emit(Elements(current(), wide(tile), wide(tile)), tile.value))


def maximum(a: Operators, b: Operators | Number) -> Tile:
    """The larger of each two elements."""
    return combine(BinaryFunction.MAX, a, b)


def minimum(a: Operators, b: Operators | Number) -> Tile:
    """The smaller of each two elements."""
    return combine(BinaryFunction.MIN, a, b)


# Over the columns of each row: [rows, cols] to [rows, 1].


def row_sum(x: Operators) -> Tile:
    """The sum of each row."""
    return _reduce(ReduceFunction.SUM, x)


def row_max(x: Operators) -> Tile:
    """The largest element of each row."""
    return _reduce(ReduceFunction.MAX, x)


def row_min(x: Operators) -> Tile:
    """The smallest element of each row."""
    return _reduce(ReduceFunction.MIN, x)


def row_mean(x: Operators) -> Tile:
    """The mean of each row of a tile that is not cut at the edge of its tensor."""
    return row_sum(x) * (1 / x.tile.cols)


def _reduce(function: ReduceFunction, x: Operators) -> Tile:
    tile = x.tile
    require_float(tile)
    if tile.replicated:
        raise kernel_error("a replicated row is reduced", hint="load it without replicated=True")
    return Tile(current().reduce(function, tile.value, LocalType.of(tile.rows, 1, F32)))


# Matrix products.


def dot(left: Operators, right: Operators, *, transpose_right: bool = False) -> Tile:
    """`left @ right` on the matrix unit, or `left @ right^T`: `[m, k]` and `[k, n]` (or `[n, k]`),
    of one floating-point type. Sums are f32.
    """
    a, b = left.tile, right.tile
    cols = _product_cols(a, b, transpose_right)
    result = LocalType.of(a.rows, cols, F32)
    return Tile(current().mm(a.value, b.value, result, transpose_right=transpose_right))


def accumulate(
    sums: Operators,
    left: Operators,
    right: Operators,
    *,
    transpose_right: bool = False,
    col: Index | int = 0,
) -> Tile:
    """`sums[:, col : col + n] += left @ right` in place; use what it returns, not `sums`.

    A `tk.local` is assigned the new sums by itself.
    """
    total, a, b = sums.tile, left.tile, right.tile
    cols = _product_cols(a, b, transpose_right)
    first = index_of(col)
    outside = first.is_constant and not 0 <= first.constant <= total.cols - cols
    if total.dtype != F32 or total.rows != a.rows or total.replicated or outside:
        raise kernel_error(
            f"products f32[{a.rows}, {cols}] are added to {total.describe()}",
            hint="sums are f32 and have the rows of the left operand",
        )
    recording = current()
    made = recording.mm_accumulate(
        total.value, first.emit(), a.value, b.value, transpose_right=transpose_right
    )
    recording.overwrite(total.value)
    result = Tile(made)
    if isinstance(sums, Local):
        sums.put(result)
    return result


def _product_cols(a: Tile, b: Tile, transpose_right: bool) -> int:
    depth, cols = (b.cols, b.rows) if transpose_right else (b.rows, b.cols)
    product = f"dot of {a.describe()} and {b.describe()}{', transposed' * transpose_right}"
    if a.dtype != b.dtype or not a.dtype.is_float:
        codes = "i8" in (a.dtype.name, b.dtype.name)
        raise kernel_error(
            product,
            why="both are of one floating-point type",
            hint="tk.dequant(codes, scale, dtype) first" if codes else "tk.cast one of them",
        )
    if a.replicated or b.replicated:
        raise kernel_error(product, why="a replicated row does not enter the matrix unit")
    if a.cols != depth:
        raise kernel_error(
            product,
            why=f"depths {a.cols} and {depth} differ",
            hint="transpose_right=True takes the right operand as [n, k]"
            if a.cols == (b.rows if transpose_right else b.cols)
            else None,
        )
    return cols


# Types, layouts, new tiles.


def dequant(
    codes: Operators,
    scale: Operators,
    dtype: ElementType,
    *,
    zero: Operators | None = None,
    code_format: CodeFormat | str = CodeFormat.I8,
    cols: int | None = None,
) -> Tile:
    """`(codes - zero) * scale` rounded once to `dtype`.

    `codes` is int8 `[rows, bytes]`, which hold codes of `code_format`: as many columns, or twice as
    many of 4 bits (`cols` says if it is one less). `scale`, and `zero` in int8, have a column, or
    one for each of equal groups of columns.
    """
    a, b = codes.tile, scale.tile
    c = None if zero is None else zero.tile
    kind = CodeFormat(code_format)
    if a.dtype.name != "i8" or not b.dtype.is_float or not dtype.is_float:
        raise kernel_error(
            f"dequant of {a.describe()} by {b.describe()} to {dtype.name}",
            hint="int8 codes, a floating-point scale, a floating-point result",
        )
    width = a.cols * 8 // kind.bits if cols is None else cols
    if kind.row_bytes(width) != a.cols:
        raise kernel_error(f"{width} columns of {kind} codes in {a.describe()}")
    if b.rows != a.rows or width % b.cols:
        raise kernel_error(
            f"dequant of {a.describe()} by {b.describe()}",
            hint="a scale a row: [rows, 1], or [rows, groups]",
        )
    if c is not None and (
        (c.dtype.name, c.rows, c.cols) != ("i8", b.rows, b.cols) or kind.is_float
    ):
        raise kernel_error(
            f"dequant of {kind} codes with zero points {c.describe()}",
            hint="int8 zero points in the shape of the scales; 8-bit floats have none",
        )
    result = LocalType.of(a.rows, width, dtype)
    point = None if c is None else c.value
    return Tile(current().dequant(a.value, b.value, result, code_format=kind, zero=point))


def cast(x: Operators, dtype: ElementType) -> Tile:
    """One rounding to `dtype`; `x` itself if that is its type."""
    tile = x.tile
    if tile.dtype == dtype:
        return tile
    require_float(tile)
    if not dtype.is_float:
        raise kernel_error(f"cast to {dtype.name}", hint="to f32, f16 or bf16")
    kind = LocalType.of(tile.rows, tile.cols, dtype, replicated=tile.replicated)
    return Tile(current().unary(UnaryFunction.CAST, tile.value, kind))


def transpose(x: Operators) -> Tile:
    """`[rows, cols]` to `[cols, rows]`, of the same type."""
    tile = x.tile
    if tile.replicated:
        raise kernel_error("a replicated row is transposed")
    kind = LocalType.of(tile.cols, tile.rows, tile.dtype)
    return Tile(current().transpose(tile.value, kind))


def rotate(x: Operators, rotary_dim: int, *, interleaved: bool = False) -> Tile:
    """Pairs of the first `rotary_dim` columns `(a, b)` as `(-b, a)`, the other columns 0: RoPE."""
    tile = x.tile
    require_float(tile)
    if rotary_dim % 2 or not 0 < rotary_dim <= tile.cols:
        raise kernel_error(
            f"{rotary_dim} of {tile.cols} columns are rotated", hint="an even number of them"
        )
    kind = wide(tile)
    turned = current().rotate(tile.value, kind, rotary_dim=rotary_dim, interleaved=interleaved)
    return Tile(turned)


def full(rows: int, cols: int, value: float, dtype: ElementType = F32) -> Tile:
    """A tile of one value."""
    return Tile(_fill(value, LocalType.of(rows, cols, dtype)))


def zeros(rows: int, cols: int, dtype: ElementType = F32) -> Local:
    """A local buffer that holds zeros."""
    kind = LocalType.of(rows, cols, dtype)
    return Local(kind, Tile(_fill(0.0, kind)))


def local(rows: int, cols: int, dtype: ElementType = F32) -> Local:
    """A local buffer that holds nothing yet: assign with `buffer[:] = tile`."""
    return Local(LocalType.of(rows, cols, dtype))


def _fill(value: float, kind: LocalType) -> SSAValue:
    if not kind.element.is_float or not math.isfinite(value):
        raise kernel_error(f"a tile of {kind.element.name} filled with {value}")
    require_fit(kind)
    return current().fill(value, kind)
