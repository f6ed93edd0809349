"""What remains of a `tpu` op once it has a kernel: a launch of the kernel."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import FlatSymbolRefAttrConstr, IntegerAttr, SymbolRefAttr, i64
from xdsl.ir import Attribute
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    var_operand_def,
    var_result_def,
)

from tilewright.dialects.graph.base import Value, int_attr
from tilewright.dialects.shape_rules import require
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class LaunchOp(TpuOp):
    """Run a kernel: a function with the attribute `tpu.kernel`, later a `bdc.program`.

    ```mlir
    %y = tpu.Launch @matmul_0(%x, %w) :
      (tensor<512x4096xf16>, tensor<4096x256xf16>) -> tensor<512x256xf16>
    %new = tpu.Launch @cache_update_0(%cache, %rows, %positions) {alias = 0 : i64} :
      (tensor<512x256xf16>, tensor<1x256xf16>, tensor<1xi32>) -> tensor<512x256xf16>
    ```

    The kernel's arguments are views of the operands and then of the results. With `alias`, the
    first result is the memory of that operand, written in place.

    Invariants:

    - `alias A is not one of N operands`
    - `alias needs a result`
    - `alias names an operand of type ..., the result is ...`
    """

    name = "tpu.Launch"

    kernel = prop_def(FlatSymbolRefAttrConstr)
    alias = opt_prop_def(IntegerAttr.constr(i64))
    arguments = var_operand_def()
    outputs = var_result_def()

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$kernel `(` $arguments `)` attr-dict `:` functional-type($arguments, $outputs)"
    )

    def __init__(
        self,
        kernel: str,
        arguments: Sequence[Value],
        result_types: Sequence[Attribute],
        *,
        alias: int | None = None,
    ) -> None:
        super().__init__(
            operands=[arguments],
            properties={
                "kernel": SymbolRefAttr(kernel),
                "alias": None if alias is None else int_attr(alias),
            },
            result_types=[result_types],
        )

    def check(self) -> None:
        if self.alias is None:
            return
        alias, count = self.alias.value.data, len(self.arguments)
        require(0 <= alias < count, f"alias {alias} is not one of {count} operands")
        require(len(self.outputs) > 0, "alias needs a result")
        operand, result = self.arguments[alias].type, self.outputs[0].type
        require(
            operand == result, f"alias names an operand of type {operand}, the result is {result}"
        )
