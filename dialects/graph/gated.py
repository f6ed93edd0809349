"""Gates of feed-forward layers, as one op."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.irdl import ParsePropInAttrDict, operand_def, result_def

from tilewright.dialects.graph.base import require_one_float, shape_of
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.dialects.shape_rules import require_shape


class SwiGLU(CompositeOp):
    """`SiLU(gate) * up`, rounded once (Shazeer, arXiv 2002.05202).

    It is defined by what it decomposes into. `gate`, `up` and the result are `T[...]`, of one
    shape.

    Invariants:

    - `up is [...], not [...]`
    - `result is [...], not [...]`
    - `one floating-point type is needed, not gate ..., up ..., result ...`
    """

    gate = operand_def(TensorType)
    up = operand_def(TensorType)
    result = result_def(TensorType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$gate `,` $up attr-dict `:` type($gate) `,` type($up) `->` type($result)"

    def check(self) -> None:
        shape = shape_of(self.gate)
        require_shape("up", shape_of(self.up), shape)
        require_shape("result", shape_of(self.result), shape)
        require_one_float(gate=self.gate, up=self.up, result=self.result)
