"""The `tpu` dialect: how each op is computed on the machine.

The ops of `top` on storage types: activations are f32, f16 or bf16 (the compute type), codes i8,
indices i32. Ops compute in f32 from exactly converted operands and round once to the type of the
result. `quantized` adds the ops on int8 codes with a scale a row; `launch` is what remains of an op
once it has a kernel.

Every op refuses a tensor of another type (`tensor<...> does not hold one of tpu's types: f32, f16,
bf16, i8, i32`) and one without a static size (`tensor<...> is not static and non-empty`). Messages
begin with the name of the op.
"""

from xdsl.ir import Dialect

from tilewright.dialects.tpu.attention import (
    AttentionOp,
    RopeOp,
)
from tilewright.dialects.tpu.base import TpuOp
from tilewright.dialects.tpu.elementwise import (
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
from tilewright.dialects.tpu.gated import SwiGLUOp
from tilewright.dialects.tpu.int8 import (
    INT8_MAX_DEPTH,
    DequantizeOp,
    Int8MatMulOp,
    QuantizeOp,
)
from tilewright.dialects.tpu.launch import (
    LaunchOp,
)
from tilewright.dialects.tpu.linear import (
    BatchMatMulOp,
    MatMulOp,
)
from tilewright.dialects.tpu.normalization import (
    LayerNormOp,
    RMSNormOp,
    SoftmaxOp,
)
from tilewright.dialects.tpu.quantized import (
    A16MatMul,
    CodeFormatAttr,
    F8A16MatMulOp,
    W4A16MatMulOp,
    W8A16GatherOp,
    W8A16MatMulOp,
)
from tilewright.dialects.tpu.reduction import (
    ReduceOp,
)
from tilewright.dialects.tpu.shape import (
    CastOp,
    ConcatOp,
    PermuteOp,
    ReshapeOp,
    SliceOp,
)
from tilewright.dialects.tpu.structure import (
    CacheUpdateOp,
    CallOp,
    GatherOp,
    StateOp,
    WeightForm,
    WeightFormAttr,
    WeightOp,
)

Tpu = Dialect(
    "tpu",
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
        LaunchOp,
        MatMulOp,
        BatchMatMulOp,
        RMSNormOp,
        LayerNormOp,
        SoftmaxOp,
        W8A16MatMulOp,
        W4A16MatMulOp,
        F8A16MatMulOp,
        W8A16GatherOp,
        QuantizeOp,
        Int8MatMulOp,
        DequantizeOp,
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
    [WeightFormAttr, CodeFormatAttr],
)

__all__ = [
    "INT8_MAX_DEPTH",
    "A16MatMul",
    "AbsOp",
    "AddConstOp",
    "AddOp",
    "AttentionOp",
    "BatchMatMulOp",
    "CacheUpdateOp",
    "CallOp",
    "CastOp",
    "CodeFormatAttr",
    "ConcatOp",
    "DequantizeOp",
    "DivOp",
    "ErfOp",
    "ExpOp",
    "F8A16MatMulOp",
    "GELUOp",
    "GatherOp",
    "Int8MatMulOp",
    "LaunchOp",
    "LayerNormOp",
    "MatMulOp",
    "MaxOp",
    "MinOp",
    "MulConstOp",
    "MulOp",
    "NegOp",
    "PermuteOp",
    "QuantizeOp",
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
    "Tpu",
    "TpuOp",
    "W4A16MatMulOp",
    "W8A16GatherOp",
    "W8A16MatMulOp",
    "WeightForm",
    "WeightFormAttr",
    "WeightOp",
]
