"""Ops that move or convert elements without computing."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import I64, DenseArrayBase, IntegerAttr, TensorType, i64
from xdsl.irdl import (
    ParsePropInAttrDict,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import ElementType, tensor_type
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    int_attr,
    like,
    require_element,
    shape_of,
    storage_of,
)


class Reshape(GraphOp):
    """The same elements in the same row-major order, under another shape.

    Invariants:

    - `x [...] has X elements, the result [...] has Y`
    - `result holds T, not ...`
    """

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, shape: Sequence[int]) -> None:
        shape_rules.reshape(shape_of(x), tuple(shape))
        super().__init__(operands=[x], result_types=[like(x, shape)])

    def check(self) -> None:
        shape_rules.reshape(shape_of(self.x), shape_of(self.result))
        require_element("result", self.result, storage_of(self.x))


class Permute(GraphOp):
    """Axis `i` of the result is axis `order[i]` of `x`.

    Invariants:

    - `order [...] is not a permutation of R axes`
    - `result is [...], not [...]`
    - `result holds T, not ...`
    """

    x = operand_def(TensorType)
    order = prop_def(DenseArrayBase.constr(I64))
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, order: Sequence[int]) -> None:
        super().__init__(
            operands=[x],
            properties={"order": DenseArrayBase.from_list(i64, order)},
            result_types=[like(x, shape_rules.permute(shape_of(x), order))],
        )

    def check(self) -> None:
        shape = shape_rules.permute(shape_of(self.x), self.order.get_values())
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_element("result", self.result, storage_of(self.x))


class Slice(GraphOp):
    """`result[i, ...] = x[offsets[0] + i, ...]`: a box of the result's shape, step 1.

    Invariants:

    - `N offsets for R axes`
    - `the result has N axes, x has R`
    - `N elements from O do not lie within the C of axis A`
    - `result holds T, not ...`
    """

    x = operand_def(TensorType)
    offsets = prop_def(DenseArrayBase.constr(I64))
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        shape_rules.slice_(shape_of(x), offsets, tuple(sizes))
        super().__init__(
            operands=[x],
            properties={"offsets": DenseArrayBase.from_list(i64, offsets)},
            result_types=[like(x, sizes)],
        )

    def check(self) -> None:
        shape_rules.slice_(shape_of(self.x), self.offsets.get_values(), shape_of(self.result))
        require_element("result", self.result, storage_of(self.x))


class Concat(GraphOp):
    """The operands one after the other along `axis`.

    Invariants:

    - `at least one operand is needed`
    - `axis A is not one of R axes`
    - `[...] does not join [...] along axis A`
    - `result is [...], not [...]`
    - `operand holds T, not ...`, `result holds T, not ...`
    """

    xs = var_operand_def(TensorType)
    axis = prop_def(IntegerAttr.constr(i64))
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$xs attr-dict `:` type($xs) `->` type($result)"

    def __init__(self, xs: Sequence[Value], axis: int) -> None:
        shape = shape_rules.concat([shape_of(x) for x in xs], axis)
        super().__init__(
            operands=[xs],
            properties={"axis": int_attr(axis)},
            result_types=[like(xs[0], shape)],
        )

    def check(self) -> None:
        shape = shape_rules.concat([shape_of(x) for x in self.xs], self.axis.value.data)
        shape_rules.require_shape("result", shape_of(self.result), shape)
        element = storage_of(self.xs[0])
        for x in self.xs[1:]:
            require_element("operand", x, element)
        require_element("result", self.result, element)


class Cast(GraphOp):
    """Each element converted to the result's element type, rounded to nearest even.

    Invariants:

    - `result is [...], not [...]`
    """

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, element: ElementType) -> None:
        super().__init__(operands=[x], result_types=[tensor_type(shape_of(x), element)])

    def check(self) -> None:
        shape_rules.require_shape("result", shape_of(self.result), shape_of(self.x))
