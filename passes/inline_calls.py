"""The pass `inline-calls`: every layer's ops in the place of the call, under their whole names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    FusedLoc,
    LocationAttr,
    ModuleOp,
    NameLoc,
    StringAttr,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.dialects.graph import Call, State, Weight
from tilewright.dialects.scopes import functions_of
from tilewright.passes import actions

NAME = "InlineCall"
"""What the step is called in traces."""


@dataclass(frozen=True)
class InlineCallsPass(ModulePass):
    """Replace calls by the bodies of their functions, once for each key scope.

    ```mlir
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.Call @layer(%x) {scopes = ["layers.0.", "layers.1."]} :
        (tensor<4x8xf32>) -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    func.func private @layer(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "scale" : tensor<8xf32>
      %y = top.Mul %x, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w0 = top.Weight "layers.0.scale" : tensor<8xf32>
      %h = top.Mul %x, %w0 : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      %w1 = top.Weight "layers.1.scale" : tensor<8xf32>
      %y = top.Mul %h, %w1 : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    For rewrites across layers, and for looking at one layer's numbers. The module grows with the
    depth of the model (docs/decisions/0002), and so does the time of every pass after this one.

    Requires a verified module of `func` and `top` or `tpu` ops without recursion. Guarantees that
    no call is left, nor a private function that was called; keys and names in locations are whole.
    """

    name = "inline-calls"
    same_bits: ClassVar[bool] = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        functions = functions_of(op)
        inlined: set[str] = set()
        for function in functions.values():
            if function.sym_visibility is None:
                _inline_into(function, functions, inlined)
        still_called = {
            each.callee.string_value()
            for function in functions.values()
            if function.sym_name.data not in inlined
            for each in function.walk()
            if isinstance(each, Call)
        }
        for name in inlined - still_called:
            functions[name].detach()
            functions[name].erase()


def _inline_into(function: FuncOp, functions: dict[str, FuncOp], inlined: set[str]) -> None:
    """Inline the calls of `function`, those in the inlined bodies too."""
    work = [op for op in function.walk() if isinstance(op, Call)]
    while work:
        call = work.pop()
        if not actions.begin(NAME, call):
            continue
        callee = functions[call.callee.string_value()]
        inlined.add(callee.sym_name.data)
        new_ops: list[Operation] = []
        operands = list(call.arguments)
        for scope in call.scope_names:
            body, results = _body(callee, operands, scope)
            new_ops += body
            operands = [*results, *operands[len(results) :]]
        work += [op for op in new_ops if isinstance(op, Call)]
        Rewriter.replace_op(call, new_ops, operands[: len(call.outputs)])
        actions.end(new_ops)


def _body(
    callee: FuncOp, arguments: Sequence[SSAValue], scope: str
) -> tuple[list[Operation], list[SSAValue]]:
    """The ops of a function on `arguments`, under `scope`, in no block yet; and its results."""
    values: dict[SSAValue, SSAValue] = dict(zip(callee.body.block.args, arguments, strict=True))
    made: list[Operation] = []
    for op in callee.body.block.ops:
        if isinstance(op, ReturnOp):
            return made, [values[value] for value in op.operands]
        copy = op.clone(value_mapper=values)
        copy.location = _under(scope, op.location)
        if isinstance(copy, Weight | State):
            copy.key = StringAttr(scope + copy.key.data)
        elif isinstance(copy, Call):
            copy.scopes = ArrayAttr([StringAttr(scope + each.data) for each in copy.scopes])
        made.append(copy)
    return made, []


def _under(scope: str, location: LocationAttr) -> LocationAttr:
    """A location whose name is whole: the scope and the name that is relative to it."""
    if isinstance(location, NameLoc):
        return NameLoc(StringAttr(scope + location.desc.data), location.location)
    if isinstance(location, FusedLoc) and isinstance(location.locations, ArrayAttr):
        parts = [
            _under(scope, part) if isinstance(part, LocationAttr) else part
            for part in location.locations
        ]
        return FusedLoc(ArrayAttr(parts), location.metadata)
    return location
