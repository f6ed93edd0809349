"""What `top` and `tpu` share: the base class of each op that both have.

A base holds the operands, attributes, syntax and rules of the op.

`graph.MatMul` is the base of `top.MatMulOp` and `tpu.MatMulOp`. Code that treats both dialects
alike (a reference evaluation, a shape) may ask for the base; IR holds only the two concrete ops.
"""

from tilewright.dialects.graph.attention import Attention, Rope
from tilewright.dialects.graph.base import GraphOp, shape_of, storage_of
from tilewright.dialects.graph.elementwise import (
    Approximation,
    ApproximationAttr,
    BinaryGraphOp,
    ConstGraphOp,
    Gelu,
    UnaryGraphOp,
)
from tilewright.dialects.graph.linear import BatchMatMul, MatMul
from tilewright.dialects.graph.normalization import LayerNorm, RMSNorm, Softmax
from tilewright.dialects.graph.reduction import Reduce, ReduceMode, ReduceModeAttr
from tilewright.dialects.graph.shape import Cast, Concat, Permute, Reshape, Slice
from tilewright.dialects.graph.structure import CacheUpdate, Call, Gather, State, Weight

__all__ = [
    "Approximation",
    "ApproximationAttr",
    "Attention",
    "BatchMatMul",
    "BinaryGraphOp",
    "CacheUpdate",
    "Call",
    "Cast",
    "Concat",
    "ConstGraphOp",
    "Gather",
    "Gelu",
    "GraphOp",
    "LayerNorm",
    "MatMul",
    "Permute",
    "RMSNorm",
    "Reduce",
    "ReduceMode",
    "ReduceModeAttr",
    "Reshape",
    "Rope",
    "Slice",
    "Softmax",
    "State",
    "UnaryGraphOp",
    "Weight",
    "shape_of",
    "storage_of",
]
