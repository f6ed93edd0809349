"""The kernel of rotary position embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rows import TileBuffer, row_tile, rows_that_fit, slot_bytes


@dataclass(frozen=True)
class _Head:
    """`x * cos + rotate(x) * sin` of a tile of one head."""

    builder: KernelBuilder
    rows: int
    width: int
    rotary_dim: int
    interleaved: bool
    out: ElementType

    def turned(self, x: SSAValue, cos: SSAValue, sin: SSAValue) -> SSAValue:
        b = self.builder
        wide = LocalType.of(self.rows, self.width, F32)
        straight = b.binary(BinaryFunction.MUL, x, cos, wide)
        quarter = b.rotate(x, wide, rotary_dim=self.rotary_dim, interleaved=self.interleaved)
        across = b.binary(BinaryFunction.MUL, quarter, sin, wide)
        out = LocalType.of(self.rows, self.width, self.out)
        return b.binary(BinaryFunction.ADD, straight, across, out)


@register(tpu.RopeOp)
def build_rope(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """One token: heads are rows. Several: tokens are rows, heads take turns as column ranges."""
    assert isinstance(op, graph.Rope)
    if operands[0].rows == 1:
        return _one_token(op, operands, results[0], chip)
    return _many_tokens(op, operands, results[0], chip)


def _one_token(op: graph.Rope, operands: Sequence[View], y: View, chip: Chip) -> func.FuncOp:
    x, cos, sin = operands
    heads, width = op.num_heads.value.data, cos.cols
    buffers = [
        TileBuffer(x.element, 2),
        TileBuffer(y.element, 2),
        TileBuffer(F32, 3),
        TileBuffer(F32, 2, "row"),
    ]
    tile = row_tile(heads, width, buffers, chip)
    b = KernelBuilder(
        [
            (x.reshaped(heads, width), "read"),
            (cos.global_type(), "read"),
            (sin.global_type(), "read"),
            (y.reshaped(heads, width), "write"),
        ]
    )
    x_arg, cos_arg, sin_arg, y_arg = b.arguments
    head = _Head(b, tile.rows, width, op.rotary_dim.value.data, _interleaved(op), y.element)
    row_type = LocalType.of(1, width, F32, replicated=True)
    cos_row, sin_row = b.load(cos_arg, 0, 0, row_type), b.load(sin_arg, 0, 0, row_type)
    with over(b, heads, tile.rows) as row:
        value = b.load(x_arg, row, 0, LocalType.of(tile.rows, width, x.element))
        b.store(head.turned(value, cos_row, sin_row), y_arg, row, 0)
    return b.finish(op.name)


def _many_tokens(op: graph.Rope, operands: Sequence[View], y: View, chip: Chip) -> func.FuncOp:
    x, cos, sin = operands
    heads, width = op.num_heads.value.data, cos.cols
    head_bytes = 2 * slot_bytes(width, y.element, chip) + 7 * slot_bytes(width, F32, chip)
    row_bytes = 2 * slot_bytes(x.cols, x.element, chip) + head_bytes
    rows = rows_that_fit(x.rows, row_bytes, 0, chip)
    b = KernelBuilder(
        [
            (x.global_type(), "read"),
            (cos.global_type(), "read"),
            (sin.global_type(), "read"),
            (y.global_type(), "write"),
        ]
    )
    x_arg, cos_arg, sin_arg, y_arg = b.arguments
    head = _Head(b, rows, width, op.rotary_dim.value.data, _interleaved(op), y.element)
    with over(b, x.rows, rows) as row:
        value = b.load(x_arg, row, 0, LocalType.of(rows, x.cols, x.element))
        table = LocalType.of(rows, width, F32)
        cos_tile, sin_tile = b.load(cos_arg, row, 0, table), b.load(sin_arg, row, 0, table)
        with over(b, heads * width, width) as col:
            part = b.view(value, col, LocalType.of(rows, width, x.element))
            b.store(head.turned(part, cos_tile, sin_tile), y_arg, row, col)
    return b.finish(op.name)


def _interleaved(op: graph.Rope) -> bool:
    return bool(op.interleaved.value.data)
