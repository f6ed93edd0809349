"""Matrix products."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType, UnitAttr
from xdsl.irdl import (
    ParsePropInAttrDict,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import F32, ElementType, tensor_type
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    optional_shape_of,
    require_element,
    require_one_float,
    shape_of,
    storage_of,
)


class MatMul(GraphOp):
    """`result[..., n] = sum_k x[..., k] * right[k, n] + bias[n]`.

    With `right_transpose` it is `right[n, k]`.

    `x` is `T[..., K]`, `right` `T[K, N]` (or `T[N, K]`), `bias` `T[N]`; the result is `[..., N]`.

    Invariants:

    - `x has depth K, right has depth K'`
    - `right has rank 2, not R`
    - `bias is [N], not [...]`
    - `result is [..., N], not [...]`
    - `one floating-point type is needed, not x ..., right ...` (and bias, if there)
    - `result holds T or f32, not ...`
    """

    x = operand_def(TensorType)
    right = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    right_transpose = opt_prop_def(UnitAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x `,` $right (`bias` $bias^)? attr-dict "
        "`:` type($x) `,` type($right) (`,` type($bias)^)? `->` type($result)"
    )

    def __init__(
        self,
        x: Value,
        right: Value,
        bias: Value | None = None,
        *,
        right_transpose: bool = False,
        element: ElementType | None = None,
    ) -> None:
        """`element` is the result's element type, that of `x` if left out."""
        shape = shape_rules.matmul(
            shape_of(x), shape_of(right), optional_shape_of(bias), right_transpose=right_transpose
        )
        super().__init__(
            operands=[x, right, bias],
            properties={"right_transpose": UnitAttr() if right_transpose else None},
            result_types=[tensor_type(shape, element or storage_of(x))],
        )

    def check(self) -> None:
        shape = shape_rules.matmul(
            shape_of(self.x),
            shape_of(self.right),
            optional_shape_of(self.bias),
            right_transpose=self.right_transpose is not None,
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        compute = require_one_float(x=self.x, right=self.right, bias=self.bias)
        require_element("result", self.result, *dict.fromkeys((compute, F32)))


class BatchMatMul(GraphOp):
    """`result[b, m, n] = sum_k a[b, m, k] * b[b, k, n]`; with `right_transpose`, `b[b, n, k]`.

    `a` is `T[B..., M, K]`, `b` `T[B..., K, N]` (or `T[B..., N, K]`); the result is `T[B..., M, N]`.

    Invariants:

    - `a has rank 3 or more, not R`
    - `a has rank R, b has rank R'`
    - `a has batch [...], b has batch [...]`
    - `a has depth K, b has depth K'`
    - `result is [..., M, N], not [...]`
    - `one floating-point type is needed, not a ..., b ..., result ...`
    """

    a = operand_def(TensorType)
    b = operand_def(TensorType)
    right_transpose = opt_prop_def(UnitAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$a `,` $b attr-dict `:` type($a) `,` type($b) `->` type($result)"

    def __init__(self, a: Value, b: Value, *, right_transpose: bool = False) -> None:
        shape = shape_rules.batch_matmul(shape_of(a), shape_of(b), right_transpose=right_transpose)
        super().__init__(
            operands=[a, b],
            properties={"right_transpose": UnitAttr() if right_transpose else None},
            result_types=[tensor_type(shape, storage_of(a))],
        )

    def check(self) -> None:
        shape = shape_rules.batch_matmul(
            shape_of(self.a), shape_of(self.b), right_transpose=self.right_transpose is not None
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_one_float(a=self.a, b=self.b, result=self.result)
