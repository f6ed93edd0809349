"""The `bdc` dialect: compute on tiles in local memory, in a kernel.

The BDC engine (also called TIU) is one in-order queue of instructions that all lanes execute
together. It has a matrix unit (`bdc.mm`) and a vector unit (all others). Operands and results are
tiles (`!bdc.local`); a result is a new tile, except where an op says that it works in place.

Vector ops take any mixture of f32, f16 and bf16: they convert operands to f32 (exactly), compute in
f32, and round once to the element type of the result (docs/numerics.md: nearest even). They take
as many cycles as their widest operand needs. Int8 codes are made and read by ops of their own
(`bdc.dequant`, `bdc.quantize`, `bdc.dequantize`, `bdc.requant`).

Two attributes are added by passes. `offsets` (from `allocate-local-memory`) is the ring of local
byte addresses that the result takes in turn, one for each execution. `waits` (from `insert-waits`)
has one entry for each execution of the op: the id of the GDMA command that must have finished
before, 0 for none.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from tilewright.dialects.bdc.functions import (
    BinaryFunction,
    BinaryFunctionAttr,
    CodeFormatAttr,
    ReduceFunction,
    ReduceFunctionAttr,
    UnaryFunction,
    UnaryFunctionAttr,
)
from tilewright.dialects.bdc.int8 import DequantizeOp, QuantizeOp, RequantOp
from tilewright.dialects.bdc.matrix import MmAccumulateOp, MmOp
from tilewright.dialects.bdc.program import AccessModeAttr, ArgumentAttr, ProgramOp, RecordsAttr
from tilewright.dialects.bdc.vector import (
    BinaryOp,
    DequantOp,
    FillOp,
    ReduceOp,
    RotateOp,
    ScalarOp,
    TransposeOp,
    UnaryOp,
    ViewOp,
)
from tilewright.dialects.memory_types import LocalType

__all__ = [
    "Bdc",
    "BinaryFunction",
    "BinaryFunctionAttr",
    "BinaryOp",
    "CodeFormatAttr",
    "DequantOp",
    "DequantizeOp",
    "FillOp",
    "MmAccumulateOp",
    "MmOp",
    "QuantizeOp",
    "ReduceFunction",
    "ReduceFunctionAttr",
    "ReduceOp",
    "RequantOp",
    "RotateOp",
    "ScalarOp",
    "TransposeOp",
    "UnaryFunction",
    "UnaryFunctionAttr",
    "UnaryOp",
    "ViewOp",
]

Bdc = Dialect(
    "bdc",
    [
        FillOp,
        ViewOp,
        MmOp,
        MmAccumulateOp,
        DequantOp,
        UnaryOp,
        BinaryOp,
        ScalarOp,
        ReduceOp,
        TransposeOp,
        RotateOp,
        QuantizeOp,
        DequantizeOp,
        RequantOp,
        ProgramOp,
    ],
    [
        LocalType,
        UnaryFunctionAttr,
        BinaryFunctionAttr,
        ReduceFunctionAttr,
        CodeFormatAttr,
        AccessModeAttr,
        ArgumentAttr,
        RecordsAttr,
    ],
)
