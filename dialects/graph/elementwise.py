"""Ops that work element by element."""

from __future__ import annotations

from enum import auto

from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_attr_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.str_enum import StrEnum

from tilewright.dialects import shape_rules
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    float_attr,
    require_one_float,
    shape_of,
)


class Approximation(StrEnum):
    """How a `GELU` computes the normal distribution: by erf, or by tanh."""

    NONE = auto()
    TANH = auto()


@irdl_attr_definition
class ApproximationAttr(EnumAttribute[Approximation], SpacedOpaqueSyntaxAttribute):
    """The approximation of a `GELU`."""

    name = "top.approximation"


class UnaryGraphOp(GraphOp):
    """`x` and the result are `T[...]`, of one shape.

    Invariants:

    - `result is [...], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    """

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value) -> None:
        super().__init__(operands=[x], result_types=[x.type])

    def check(self) -> None:
        shape_rules.require_shape("result", shape_of(self.result), shape_of(self.x))
        require_one_float(x=self.x, result=self.result)


class Gelu(UnaryGraphOp):
    """`x * P(X <= x)` for a normal X: `x/2 * (1 + erf(x / sqrt(2)))`.

    With `approximate = tanh` it is `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))`. `x` and
    the result are `T[...]`, of one shape.

    Invariants:

    - `result is [...], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    """

    approximate = prop_def(ApproximationAttr)

    assembly_format = "$x `approximate` $approximate attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, approximate: Approximation | str = Approximation.NONE) -> None:
        GraphOp.__init__(
            self,
            operands=[x],
            properties={"approximate": ApproximationAttr(Approximation(approximate))},
            result_types=[x.type],
        )


class BinaryGraphOp(GraphOp):
    """`b` broadcasts to `a`.

    It has the shape of `a`, or a suffix of it (leading ones of `b` dropped), or the shape of `a`
    with last dimension 1.

    `a`, `b` and the result hold one type T; the result has the shape of `a`.

    Invariants:

    - `b [...] does not broadcast to a [...]`
    - `result is [...], not [...]`
    - `one floating-point type is needed, not a ..., b ..., result ...`
    """

    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$a `,` $b attr-dict `:` type($a) `,` type($b) `->` type($result)"

    def __init__(self, a: Value, b: Value) -> None:
        shape_rules.broadcast(shape_of(a), shape_of(b))
        super().__init__(operands=[a, b], result_types=[a.type])

    def check(self) -> None:
        shape = shape_rules.broadcast(shape_of(self.a), shape_of(self.b))
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_one_float(a=self.a, b=self.b, result=self.result)


class ConstGraphOp(GraphOp):
    """`value` is f32; `x` and the result are `T[...]`, of one shape.

    Invariants:

    - `value is VALUE, not a finite number`
    - `result is [...], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    """

    x = operand_def(TensorType)
    value = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, value: float) -> None:
        super().__init__(
            operands=[x], properties={"value": float_attr(value)}, result_types=[x.type]
        )

    def check(self) -> None:
        value = self.value.value.data
        shape_rules.require(abs(value) < float("inf"), f"value is {value}, not a finite number")
        shape_rules.require_shape("result", shape_of(self.result), shape_of(self.x))
        require_one_float(x=self.x, result=self.result)
