"""Reductions over the last axis."""

from __future__ import annotations

from enum import auto

from xdsl.dialects.builtin import TensorType
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
from tilewright.dialects.graph.base import GraphOp, Value, like, require_one_float, shape_of


class ReduceMode(StrEnum):
    """What a `Reduce` makes of a row."""

    SUM = auto()
    MEAN = auto()
    MAX = auto()
    MIN = auto()


@irdl_attr_definition
class ReduceModeAttr(EnumAttribute[ReduceMode], SpacedOpaqueSyntaxAttribute):
    """The mode of a `Reduce`."""

    name = "top.reduce_mode"


class Reduce(GraphOp):
    """`result[..., 0] = mode over c of x[..., c]`. `x` is `T[..., C]`, the result `T[..., 1]`.

    Invariants:

    - `x has at least one dimension`
    - `result is [..., 1], not [...]`
    - `one floating-point type is needed, not x ..., result ...`
    """

    x = operand_def(TensorType)
    mode = prop_def(ReduceModeAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$mode $x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: Value, mode: ReduceMode | str) -> None:
        super().__init__(
            operands=[x],
            properties={"mode": ReduceModeAttr(ReduceMode(mode))},
            result_types=[like(x, shape_rules.reduce(shape_of(x)))],
        )

    def check(self) -> None:
        shape = shape_rules.reduce(shape_of(self.x))
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_one_float(x=self.x, result=self.result)
