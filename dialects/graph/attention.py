"""Attention and rotary position embedding. Heads are groups of neighbouring columns."""

from __future__ import annotations

from xdsl.dialects.builtin import BoolAttr, Float32Type, FloatAttr, IntegerAttr, TensorType, i64
from xdsl.irdl import (
    ParsePropInAttrDict,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import F32
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    float_attr,
    int_attr,
    optional_shape_of,
    require_element,
    require_one_float,
    shape_of,
)
from tilewright.dialects.shape_rules import require


class Rope(GraphOp):
    """`result = x * cos + rotate(x) * sin`, head by head.

    `x` and the result are `T[S, H*D]`, `cos` and `sin` `f32[S, D]` in every mode. `rotate` turns
    pairs of the first `rotary_dim` columns of a head: `(a, b)` becomes `(-b, a)`, other columns
    become 0. Pairs are neighbours `(2i, 2i + 1)` if `interleaved` (GPT-J, ChatGLM), else `(i, i +
    rotary_dim / 2)` (GPT-NeoX, Llama). Past `rotary_dim` the tables hold cos 1 and sin 0.

    Invariants:

    - `x has rank 2, not R`
    - `C columns of x do not split into H heads`
    - `x has H heads` (for H below 1)
    - `cos is [S, D], not [...]`, `sin is [S, D], not [...]`
    - `rotary_dim R is not an even number from 2 to D`
    - `result is [S, H*D], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    - `cos holds f32, not ...`, `sin holds f32, not ...`
    """

    x = operand_def(TensorType)
    cos = operand_def(TensorType)
    sin = operand_def(TensorType)
    num_heads = prop_def(IntegerAttr.constr(i64))
    rotary_dim = prop_def(IntegerAttr.constr(i64))
    interleaved = prop_def(BoolAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x `cos` $cos `sin` $sin attr-dict "
        "`:` type($x) `,` type($cos) `,` type($sin) `->` type($result)"
    )

    def __init__(
        self,
        x: Value,
        cos: Value,
        sin: Value,
        *,
        num_heads: int,
        rotary_dim: int,
        interleaved: bool,
    ) -> None:
        shape_rules.rope(
            shape_of(x), shape_of(cos), shape_of(sin), num_heads=num_heads, rotary_dim=rotary_dim
        )
        super().__init__(
            operands=[x, cos, sin],
            properties={
                "num_heads": int_attr(num_heads),
                "rotary_dim": int_attr(rotary_dim),
                "interleaved": BoolAttr.from_bool(interleaved),
            },
            result_types=[x.type],
        )

    def check(self) -> None:
        shape = shape_rules.rope(
            shape_of(self.x),
            shape_of(self.cos),
            shape_of(self.sin),
            num_heads=self.num_heads.value.data,
            rotary_dim=self.rotary_dim.value.data,
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_one_float(x=self.x, result=self.result)
        require_element("cos", self.cos, F32)
        require_element("sin", self.sin, F32)


class Attention(GraphOp):
    """`result = softmax(scale * q k^T + mask) v`, head by head.

    Query head `h` reads group `h // (H / G)` of keys and values.

    `q` and the result are `T[S, H*D]`, `k` and `v` `T[L, G*D]`, `mask` `T[S, L]` (missing: 0),
    `scale` f32. H is `num_heads`, G is `num_kv_heads`.

    Invariants:

    - `q has rank 2, not R`, `k has rank 2, not R`
    - `C columns of q do not split into H heads`
    - `q has H heads` (for H below 1), `k has G heads` (for G below 1)
    - `H heads do not share G key heads evenly`
    - `k is [L, G*D], not [...]`, `v is [L, G*D], not [...]`
    - `mask is [S, L], not [...]`
    - `scale is SCALE, not a finite number`
    - `result is [S, H*D], not [...]`
    - `one floating-point type is needed, not q ..., k ..., v ..., mask ..., result ...`
    """

    q = operand_def(TensorType)
    k = operand_def(TensorType)
    v = operand_def(TensorType)
    mask = opt_operand_def(TensorType)
    num_heads = prop_def(IntegerAttr.constr(i64))
    num_kv_heads = prop_def(IntegerAttr.constr(i64))
    scale = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$q `,` $k `,` $v (`mask` $mask^)? attr-dict "
        "`:` type($q) `,` type($k) `,` type($v) (`,` type($mask)^)? `->` type($result)"
    )

    def __init__(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        *,
        num_heads: int,
        num_kv_heads: int,
        scale: float,
    ) -> None:
        shape_rules.attention(
            shape_of(q),
            shape_of(k),
            shape_of(v),
            optional_shape_of(mask),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
        )
        super().__init__(
            operands=[q, k, v, mask],
            properties={
                "num_heads": int_attr(num_heads),
                "num_kv_heads": int_attr(num_kv_heads),
                "scale": float_attr(scale),
            },
            result_types=[q.type],
        )

    def check(self) -> None:
        shape = shape_rules.attention(
            shape_of(self.q),
            shape_of(self.k),
            shape_of(self.v),
            optional_shape_of(self.mask),
            num_heads=self.num_heads.value.data,
            num_kv_heads=self.num_kv_heads.value.data,
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        scale = self.scale.value.data
        require(abs(scale) < float("inf"), f"scale is {scale}, not a finite number")
        require_one_float(q=self.q, k=self.k, v=self.v, mask=self.mask, result=self.result)
