"""What a kernel's ops and their command records have in common in every execution.

`gdma_templates` and `bdc_templates` fill in what an op alone decides (opcode, types, constants);
the expansion adds what changes from one execution to the next (extents and addresses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, UnitAttr
from xdsl.ir import Operation, SSAValue

from tilewright.backends.encoding.records import (
    BDC_RECORD,
    GDMA_RECORD,
    BdcFlag,
    BdcOpcode,
    BinaryCode,
    BMode,
    CodeCode,
    GdmaOpcode,
    Records,
    ReduceCode,
    UnaryCode,
)
from tilewright.dialects import bdc, gdma
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import IRError
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.dialects.scopes import where_of

GdmaOp: TypeAlias = gdma.LoadOp | gdma.StoreOp | gdma.GatherOp | gdma.ScatterOp
BdcOp: TypeAlias = (
    bdc.FillOp
    | bdc.MmOp
    | bdc.MmAccumulateOp
    | bdc.DequantOp
    | bdc.UnaryOp
    | bdc.BinaryOp
    | bdc.ScalarOp
    | bdc.ReduceOp
    | bdc.TransposeOp
    | bdc.RotateOp
    | bdc.QuantizeOp
    | bdc.DequantizeOp
    | bdc.RequantOp
)
CommandOp: TypeAlias = GdmaOp | BdcOp

GDMA_OPS = (gdma.LoadOp, gdma.StoreOp, gdma.GatherOp, gdma.ScatterOp)
LOADS = (gdma.LoadOp, gdma.GatherOp)
STORES = (gdma.StoreOp, gdma.ScatterOp)
BDC_OPS = (
    bdc.FillOp,
    bdc.MmOp,
    bdc.MmAccumulateOp,
    bdc.DequantOp,
    bdc.UnaryOp,
    bdc.BinaryOp,
    bdc.ScalarOp,
    bdc.ReduceOp,
    bdc.TransposeOp,
    bdc.RotateOp,
    bdc.QuantizeOp,
    bdc.DequantizeOp,
    bdc.RequantOp,
)
COMMAND_OPS = GDMA_OPS + BDC_OPS


def kernels_of(module: ModuleOp) -> list[func.FuncOp]:
    """The kernels of a module: its functions with the unit attribute `tpu.kernel`."""
    return [
        op
        for op in module.body.ops
        if isinstance(op, func.FuncOp)
        and isinstance(op.attributes.get("tpu.kernel"), UnitAttr)
        and not op.is_declaration
    ]


def lanes_of(kernel: func.FuncOp) -> int:
    """The lanes of the chip for which `allocate-local-memory` has placed the kernel's tiles."""
    lanes = kernel.attributes.get("tpu.lanes")
    if not isinstance(lanes, IntegerAttr):
        raise IRError(
            "the kernel does not say for how many lanes it is",
            where=where_of(kernel),
            hint="run allocate-local-memory",
        )
    return lanes.value.data


def local_type(value: SSAValue) -> LocalType:
    """The type of a tile."""
    assert isinstance(value.type, LocalType)
    return value.type


def global_type(value: SSAValue) -> GlobalType:
    """The type of a view of global memory."""
    assert isinstance(value.type, GlobalType)
    return value.type


def new_tile(op: Operation) -> SSAValue | None:
    """The tile that `op` makes in memory of its own; none where it works in place or stores."""
    if isinstance(op, COMMAND_OPS) and not isinstance(op, bdc.MmAccumulateOp) and op.results:
        return op.results[0]
    return None


def b_mode(op: bdc.BinaryOp) -> BMode:
    """How a binary command reads its right operand."""
    left, right = local_type(op.left), local_type(op.right)
    if (right.rows, right.cols, right.replicated) == (left.rows, left.cols, left.replicated):
        return BMode.FULL
    return BMode.ROW if right.replicated else BMode.COLUMN


def gdma_templates(ops: Sequence[GdmaOp], arguments: Mapping[SSAValue, int]) -> Records:
    """A record for each op, without extents and addresses. `arguments` numbers the kernel's."""
    records = np.zeros(len(ops), GDMA_RECORD)
    for record, op in zip(records, ops, strict=True):
        view = op.source if isinstance(op, LOADS) else op.target
        if isinstance(op, gdma.LoadOp):
            replicated = local_type(op.result).replicated
            opcode = GdmaOpcode.LOAD_REPLICATED if replicated else GdmaOpcode.LOAD
        elif isinstance(op, gdma.StoreOp):
            opcode = GdmaOpcode.STORE
        else:
            opcode = GdmaOpcode.GATHER if isinstance(op, gdma.GatherOp) else GdmaOpcode.SCATTER
            record["table_rows"] = global_type(view).rows
            record["index_argument"] = arguments[op.indices]
        record["opcode"] = opcode
        record["element"] = global_type(view).element.code
        record["argument"] = arguments[view]
        record["pitch"] = global_type(view).pitch_bytes
    return records


def bdc_templates(ops: Sequence[BdcOp]) -> Records:
    """A record for each op, without extents and addresses."""
    records = np.zeros(len(ops), BDC_RECORD)
    for record, op in zip(records, ops, strict=True):
        opcode, function, flags = _bdc_opcode(op)
        dst, a, b, _ = tile_operands(op)
        record["opcode"], record["function"] = opcode, function
        if local_type(op.result).replicated:
            flags |= BdcFlag.REPLICATED
        record["flags"] = flags
        for name, tile in (("dst_element", dst), ("a_element", a), ("b_element", b)):
            record[name] = 0 if tile is None else _element(tile).code
        if isinstance(op, bdc.BinaryOp):
            record["b_mode"] = b_mode(op)
        elif isinstance(op, bdc.ScalarOp):
            record["b_mode"] = BMode.IMMEDIATE
        if isinstance(op, bdc.ScalarOp | bdc.FillOp):
            record["immediate"] = op.value.value.data
    return records


def tile_operands(
    op: BdcOp,
) -> tuple[SSAValue, SSAValue | None, SSAValue | None, SSAValue | None]:
    """The tiles that the record calls dst, a, b and c."""
    match op:
        case bdc.FillOp():
            return op.result, None, None, None
        case bdc.MmOp() | bdc.MmAccumulateOp() | bdc.BinaryOp():
            return op.result, op.left, op.right, None
        case bdc.DequantOp():
            return op.result, op.codes, op.scale, op.zero
        case bdc.QuantizeOp() | bdc.DequantizeOp():
            return op.result, op.x, op.scale, None
        case bdc.RequantOp():
            return op.result, op.sums, op.table, None
        case bdc.UnaryOp() | bdc.ScalarOp() | bdc.ReduceOp() | bdc.TransposeOp() | bdc.RotateOp():
            return op.result, op.x, None, None


def _bdc_opcode(op: BdcOp) -> tuple[BdcOpcode, int, int]:
    """Opcode, function and flags."""
    match op:
        case bdc.FillOp():
            return BdcOpcode.FILL, 0, 0
        case bdc.MmOp() | bdc.MmAccumulateOp():
            flags = BdcFlag.TRANSPOSE_RIGHT if op.transpose_right is not None else 0
            if isinstance(op, bdc.MmAccumulateOp):
                flags |= BdcFlag.ACCUMULATE
            return BdcOpcode.MM, 0, flags
        case bdc.DequantOp():
            zero = 0 if op.zero is None else BdcFlag.ZERO_POINT
            return BdcOpcode.DEQUANT, CodeCode[op.format.data.name], zero
        case bdc.UnaryOp():
            return BdcOpcode.UNARY, UnaryCode[op.function.data.name], 0
        case bdc.BinaryOp() | bdc.ScalarOp():
            return BdcOpcode.BINARY, BinaryCode[op.function.data.name], 0
        case bdc.ReduceOp():
            return BdcOpcode.REDUCE, ReduceCode[op.function.data.name], 0
        case bdc.TransposeOp():
            return BdcOpcode.TRANSPOSE, 0, 0
        case bdc.RotateOp():
            turned = BdcFlag.INTERLEAVED if op.interleaved.value.data else 0
            return BdcOpcode.ROTATE, 0, turned
        case bdc.QuantizeOp():
            return BdcOpcode.QUANTIZE, 0, 0
        case bdc.DequantizeOp():
            return BdcOpcode.DEQUANTIZE, 0, 0
        case bdc.RequantOp():
            return BdcOpcode.REQUANT, 0, 0


def _element(tile: SSAValue) -> ElementType:
    return local_type(tile).element


def argument_numbers(kernel: func.FuncOp) -> dict[SSAValue, int]:
    """The kernel's arguments, numbered."""
    return {argument: i for i, argument in enumerate(kernel.body.block.args)}
