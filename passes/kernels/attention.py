"""The kernel of attention: whole rows of scores, a group of keys and values at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction, UnaryFunction
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.softmax import softmax_rows
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rows import rows_that_fit, slot_bytes


@dataclass(frozen=True)
class _Shape:
    """`rows` queries at a time meet `length` keys of `width` features."""

    rows: int
    length: int
    width: int
    scale: float
    element: ElementType


@register(tpu.AttentionOp)
def build_attention(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """One token: the heads of a group are rows. Several: tokens are rows, heads take turns."""
    assert isinstance(op, graph.Attention)
    q, k, v = operands[:3]
    mask = operands[3] if op.mask is not None else None
    heads, groups = op.num_heads.value.data, op.num_kv_heads.value.data
    width, length = q.cols // heads, k.rows
    single = q.rows == 1
    queries = heads // groups if single else q.rows
    rows = _rows(queries, length, width, q.element, mask is not None and not single, chip, op.name)
    shape = _Shape(rows, length, width, op.scale.value.data, q.element)
    y = results[0]
    q_view = q.reshaped(heads, width) if single else q.global_type()
    y_view = y.reshaped(heads, width) if single else y.global_type()
    views: list[GlobalType] = [q_view, k.global_type(), v.global_type()]
    views += [mask.global_type()] if mask is not None else []
    b = KernelBuilder([*[(view, "read") for view in views], (y_view, "write")])
    q_arg, k_arg, v_arg, *masks, y_arg = b.arguments
    mask_arg = masks[0] if masks else None
    shared = _shared_mask(b, mask_arg, length, q.element) if single else None
    keys = LocalType.of(length, width, k.element)
    with over(b, groups, 1) as group:
        col = b.mul(group, width)
        key, value = b.load(k_arg, 0, col, keys), b.load(v_arg, 0, col, keys)
        if single:
            first = b.mul(group, queries)
            limit = b.add(first, queries)
            with over(b, queries, rows) as row:
                place = b.add(first, row)
                query = b.load(q_arg, place, 0, LocalType.of(rows, width, q.element), limit=limit)
                b.store(_attend(b, query, key, value, shared, shape), y_arg, place, 0)
        else:
            first_col = b.mul(group, heads // groups * width)
            with over(b, heads // groups * width, width) as head, over(b, queries, rows) as row:
                place = b.add(first_col, head)
                query = b.load(q_arg, row, place, LocalType.of(rows, width, q.element))
                added = None
                if mask_arg is not None:
                    added = b.load(mask_arg, row, 0, LocalType.of(rows, length, q.element))
                b.store(_attend(b, query, key, value, added, shape), y_arg, row, place)
    return b.finish(op.name)


def _attend(
    b: KernelBuilder,
    query: SSAValue,
    key: SSAValue,
    value: SSAValue,
    mask: SSAValue | None,
    shape: _Shape,
) -> SSAValue:
    """`softmax(scale * query key^T + mask) value`; probabilities are rounded to the storage type."""
    wide = LocalType.of(shape.rows, shape.length, F32)
    scores = b.mm(query, key, wide, transpose_right=True)
    scores = b.scalar(BinaryFunction.MUL, scores, shape.scale, wide)
    if mask is not None:
        scores = b.binary(BinaryFunction.ADD, scores, mask, wide)
    stored = LocalType.of(shape.rows, shape.length, shape.element)
    probabilities = softmax_rows(b, scores, wide)
    if shape.element != F32:
        probabilities = b.unary(UnaryFunction.CAST, probabilities, stored)
    out = LocalType.of(shape.rows, shape.width, shape.element)
    return b.mm(probabilities, value, out, transpose_right=False)


def _shared_mask(
    b: KernelBuilder, mask: SSAValue | None, length: int, element: ElementType
) -> SSAValue | None:
    """The one row of a single token's mask, in every lane."""
    if mask is None:
        return None
    return b.load(mask, 0, 0, LocalType.of(1, length, element, replicated=True))


def _rows(
    queries: int,
    length: int,
    width: int,
    element: ElementType,
    mask_tiles: bool,
    chip: Chip,
    where: str,
) -> int:
    """Queries at a time, so that scores, probabilities, keys and values have room in a lane."""
    slots = -(-length // chip.lanes)
    keys = 2 * 2 * slots * slot_bytes(width, element, chip)
    shared = 0 if mask_tiles else slot_bytes(length, element, chip)
    wide = slot_bytes(length, F32, chip)
    narrow = slot_bytes(length, element, chip)
    per_row = 6 * wide + narrow + (2 * narrow if mask_tiles else 0)
    per_row += 4 * slot_bytes(width, element, chip) + 4 * slot_bytes(1, F32, chip)
    return rows_that_fit(queries, per_row, keys + shared, chip, where=where)
