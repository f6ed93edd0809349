"""Normalizations over the last axis."""

from __future__ import annotations

from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    float_attr,
    optional_shape_of,
    require_one_float,
    shape_of,
)
from tilewright.dialects.shape_rules import require


class RMSNorm(GraphOp):
    """`result = x / sqrt(mean(x^2) + eps) * weight`, mean over the last axis.

    A missing weight is 1.

    `x` and the result are `T[..., C]`, `weight` `T[C]`; `eps` is f32.

    Invariants:

    - `weight is [C], not [...]`
    - `result is [..., C], not [...]`
    - `eps is EPS, not a finite number of at least 0`
    - `one floating-point type is needed, not x ..., weight ..., result ...`
    """

    x = operand_def(TensorType)
    weight = opt_operand_def(TensorType)
    eps = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x (`weight` $weight^)? attr-dict `:` type($x) (`,` type($weight)^)? `->` type($result)"
    )

    def __init__(self, x: Value, weight: Value | None = None, *, eps: float) -> None:
        shape_rules.normalization(shape_of(x), weight=optional_shape_of(weight))
        super().__init__(
            operands=[x, weight], properties={"eps": float_attr(eps)}, result_types=[x.type]
        )

    def check(self) -> None:
        shape = shape_rules.normalization(shape_of(self.x), weight=optional_shape_of(self.weight))
        shape_rules.require_shape("result", shape_of(self.result), shape)
        _require_eps(self.eps.value.data)
        require_one_float(x=self.x, weight=self.weight, result=self.result)


class LayerNorm(GraphOp):
    """`result = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, over the last axis.

    `x` and the result are `T[..., C]`, `weight` and `bias` `T[C]` (missing: 1 and 0); `var` is the
    mean of the squared differences; `eps` is f32.

    Invariants:

    - `weight is [C], not [...]`
    - `bias is [C], not [...]`
    - `result is [..., C], not [...]`
    - `eps is EPS, not a finite number of at least 0`
    - `one floating-point type is needed, not x ..., ..., result ...`
    """

    x = operand_def(TensorType)
    weight = opt_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    eps = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$x (`weight` $weight^ `:` type($weight))? (`bias` $bias^ `:` type($bias))? attr-dict "
        "`:` type($x) `->` type($result)"
    )

    def __init__(
        self, x: Value, weight: Value | None = None, bias: Value | None = None, *, eps: float
    ) -> None:
        shape_rules.normalization(
            shape_of(x), weight=optional_shape_of(weight), bias=optional_shape_of(bias)
        )
        super().__init__(
            operands=[x, weight, bias],
            properties={"eps": float_attr(eps)},
            result_types=[x.type],
        )

    def check(self) -> None:
        shape = shape_rules.normalization(
            shape_of(self.x),
            weight=optional_shape_of(self.weight),
            bias=optional_shape_of(self.bias),
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        _require_eps(self.eps.value.data)
        require_one_float(x=self.x, weight=self.weight, bias=self.bias, result=self.result)


class Softmax(GraphOp):
    """`result = exp(x - max(x)) / sum(exp(x - max(x)))`, over the last axis.

    `x` and the result are `T[..., C]`.

    Invariants:

    - `x has at least one dimension`
    - `result is [..., C], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    """

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value) -> None:
        shape_rules.normalization(shape_of(x))
        super().__init__(operands=[x], result_types=[x.type])

    def check(self) -> None:
        shape = shape_rules.normalization(shape_of(self.x))
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_one_float(x=self.x, result=self.result)


def _require_eps(eps: float) -> None:
    require(0 <= eps < float("inf"), f"eps is {eps}, not a finite number of at least 0")
