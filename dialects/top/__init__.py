"""The `top` dialect: what the model means.

Ops on ranked tensors with static shapes, apart from any chip. Floats are f32, whatever the
checkpoint stores; weights are references into a container. Activations of language models are
`[positions, features]`; heads are groups of columns.

`structure` connects a function with the outside (weights, states, calls, rows picked by index),
`linear` multiplies matrices, `attention` and `normalization` are the large steps of a transformer,
`elementwise`, `reduction` and `shape` the small ones.

Every op refuses a tensor of another type (`tensor<...> does not hold one of top's types: f32, i32`)
and one without a static size (`tensor<...> is not static and non-empty`). Messages begin with the
name of the op.
"""

from xdsl.ir import Dialect

from tilewright.dialects.graph import ApproximationAttr, ReduceModeAttr
from tilewright.dialects.top.attention import (
    AttentionOp,
    RopeOp,
)
from tilewright.dialects.top.base import TopOp
from tilewright.dialects.top.elementwise import (
    AbsOp,
    AddConstOp,
    AddOp,
    DivOp,
    ErfOp,
    ExpOp,
    GELUOp,
    MaxOp,
    MinOp,
    MulConstOp,
    MulOp,
    NegOp,
    ReciprocalOp,
    ReluOp,
    RsqrtOp,
    SigmoidOp,
    SiLUOp,
    SqrtOp,
    SubOp,
    TanhOp,
)
from tilewright.dialects.top.gated import SwiGLUOp
from tilewright.dialects.top.linear import (
    BatchMatMulOp,
    MatMulOp,
)
from tilewright.dialects.top.normalization import (
    LayerNormOp,
    RMSNormOp,
    SoftmaxOp,
)
from tilewright.dialects.top.reduction import (
    ReduceOp,
)
from tilewright.dialects.top.shape import (
    CastOp,
    ConcatOp,
    PermuteOp,
    ReshapeOp,
    SliceOp,
)
from tilewright.dialects.top.structure import (
    CacheUpdateOp,
    CallOp,
    GatherOp,
    StateOp,
    WeightOp,
)

Top = Dialect(
    "top",
    [
        RopeOp,
        AttentionOp,
        SiLUOp,
        TanhOp,
        SigmoidOp,
        ExpOp,
        SqrtOp,
        RsqrtOp,
        ReciprocalOp,
        NegOp,
        AbsOp,
        ErfOp,
        ReluOp,
        GELUOp,
        SwiGLUOp,
        AddOp,
        SubOp,
        MulOp,
        DivOp,
        MaxOp,
        MinOp,
        AddConstOp,
        MulConstOp,
        MatMulOp,
        BatchMatMulOp,
        RMSNormOp,
        LayerNormOp,
        SoftmaxOp,
        ReduceOp,
        ReshapeOp,
        PermuteOp,
        SliceOp,
        ConcatOp,
        CastOp,
        WeightOp,
        StateOp,
        CallOp,
        GatherOp,
        CacheUpdateOp,
    ],
    [ApproximationAttr, ReduceModeAttr],
)

__all__ = [
    "AbsOp",
    "AddConstOp",
    "AddOp",
    "AttentionOp",
    "BatchMatMulOp",
    "CacheUpdateOp",
    "CallOp",
    "CastOp",
    "ConcatOp",
    "DivOp",
    "ErfOp",
    "ExpOp",
    "GELUOp",
    "GatherOp",
    "LayerNormOp",
    "MatMulOp",
    "MaxOp",
    "MinOp",
    "MulConstOp",
    "MulOp",
    "NegOp",
    "PermuteOp",
    "RMSNormOp",
    "ReciprocalOp",
    "ReduceOp",
    "ReluOp",
    "ReshapeOp",
    "RopeOp",
    "RsqrtOp",
    "SiLUOp",
    "SigmoidOp",
    "SliceOp",
    "SoftmaxOp",
    "SqrtOp",
    "StateOp",
    "SubOp",
    "SwiGLUOp",
    "TanhOp",
    "Top",
    "TopOp",
    "WeightOp",
]
