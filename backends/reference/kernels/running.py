"""Runs a kernel function: its loops, its index arithmetic, and its ops one after the other.

The order in which a kernel's ops stand is a correct sequential program, and that is what runs here.
(Whether the two engines keep to it is the business of waits.) A kernel is compiled to closures
once, `Kernel`, and may run many times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, StringAttr
from xdsl.ir import Block, Operation, SSAValue

from tilewright.backends.reference.balls import Arithmetic, Ball
from tilewright.backends.reference.kernels import computes, moves
from tilewright.backends.reference.kernels.state import GlobalView, State, Step
from tilewright.backends.reference.kernels.tiles import LocalMemory
from tilewright.dialects import bdc, gdma
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.memory_types import GlobalType
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]

_ARITHMETIC: Mapping[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: lambda left, right: left + right,
    arith.SubiOp: lambda left, right: left - right,
    arith.MuliOp: lambda left, right: left * right,
    arith.DivUIOp: lambda left, right: left // right,
    arith.RemUIOp: lambda left, right: left % right,
}

_OPS: Mapping[type[Operation], Callable[[Any], Step]] = {
    gdma.LoadOp: moves.load,
    gdma.StoreOp: moves.store,
    gdma.GatherOp: moves.gather,
    gdma.ScatterOp: moves.scatter,
    bdc.ViewOp: computes.view,
    bdc.FillOp: computes.fill,
    bdc.MmOp: computes.mm,
    bdc.MmAccumulateOp: computes.mm_accumulate,
    bdc.DequantOp: computes.dequant,
    bdc.QuantizeOp: computes.quantize,
    bdc.DequantizeOp: computes.dequantize,
    bdc.RequantOp: computes.requant,
    bdc.BinaryOp: computes.binary,
    bdc.UnaryOp: computes.unary,
    bdc.ScalarOp: computes.scalar,
    bdc.ReduceOp: computes.reduce,
    bdc.TransposeOp: computes.transpose,
    bdc.RotateOp: computes.rotate,
}


def run_kernel(
    kernel: func.FuncOp, arguments: Sequence[Ball | Array], *, arithmetic: Arithmetic
) -> list[Ball]:
    """The arguments of a kernel (a `func.func` with `tpu.kernel`) after it ran on `arguments`.

    There is an array, or a ball, for each argument, of any shape with the elements of its view in
    order; results have the same shapes. What was given stays as it is. An argument that is only
    written (`tpu.access = "write"`) is undefined (NaN) where nothing was stored.

    Where the kernel says for how many lanes its tiles have been placed (`tpu.lanes`), tiles lie in
    local memory at their ops' `offsets`, and what is written over a tile destroys it; else each
    tile is a value of its own.

    Raises `OptionError` for arguments that do not fit, `IRError` where a kernel breaks a rule:
    an empty tile, extents that do not meet, an op that has no place in a kernel.
    """
    balls = [x if isinstance(x, Ball) else Ball.exact(x) for x in arguments]
    return Kernel(kernel).run(balls, arithmetic)


class Kernel:
    """A kernel, compiled."""

    def __init__(self, function: func.FuncOp) -> None:
        self.name = function.sym_name.data
        block = function.body.block
        self.views = [_view_type(argument) for argument in block.args]
        self.access = _access(function)
        lanes = function.attributes.get("tpu.lanes")
        self._lanes = lanes.value.data if isinstance(lanes, IntegerAttr) else None
        self._arguments = list(block.args)
        self._constants: dict[SSAValue, int] = {}
        self._steps = self._block(block)

    def run(self, balls: Sequence[Ball], arithmetic: Arithmetic) -> list[Ball]:
        """The arguments after a run: see `run_kernel`."""
        if len(balls) != len(self.views):
            raise OptionError(f"@{self.name} takes {len(self.views)} arguments, not {len(balls)}")
        memory = None if self._lanes is None else LocalMemory(self._lanes)
        state = State(arithmetic, memory)
        state.values.update(self._constants)
        arrays: list[GlobalView] = []
        for index, ball in enumerate(balls):
            arrays.append(self._argument(index, ball))
        state.values.update(zip(self._arguments, arrays, strict=True))
        with np.errstate(all="ignore"):
            for step in self._steps:
                step(state)
        return [
            ball if access == "read" else array.ball(ball.value.shape)
            for ball, array, access in zip(balls, arrays, self.access, strict=True)
        ]

    def _argument(self, index: int, ball: Ball) -> GlobalView:
        view, access = self.views[index], self.access[index]
        if ball.value.size != view.rows * view.cols:
            raise OptionError(
                f"argument {index} of @{self.name} is {list(ball.value.shape)}, "
                f"its view {view.rows}x{view.cols}"
            )
        array = GlobalView(ball, view.rows, view.cols)
        if access != "read":
            array.own()
        if access == "write":
            array.value[...] = np.nan if view.element.is_float else -1
        return array

    def _block(self, block: Block) -> list[Step]:
        steps = [self._step(op) for op in block.ops]
        return [step for step in steps if step is not None]

    def _step(self, op: Operation) -> Step | None:
        compiled = _OPS.get(type(op))
        if compiled is not None:
            return compiled(op)
        if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
            self._constants[op.result] = op.value.value.data
            return None
        if type(op) in _ARITHMETIC:
            return _arithmetic(op)
        if isinstance(op, scf.ForOp):
            return self._loop(op)
        if isinstance(op, scf.YieldOp | func.ReturnOp):
            return None
        raise IRError(
            f"{op.name} has no place in a kernel",
            where=where_of(op),
            hint="kernels have index arithmetic, scf.for, gdma and bdc ops",
        )

    def _loop(self, op: scf.ForOp) -> Step:
        index, *carried = op.body.block.args
        body, inits, results = self._block(op.body.block), list(op.iter_args), list(op.results)
        terminator = op.body.block.last_op
        assert isinstance(terminator, scf.YieldOp)
        yielded = list(terminator.operands)
        lower, upper, stride = op.lb, op.ub, op.step

        def step(state: State) -> None:
            values = state.values
            current = [values[value] for value in inits]
            for i in range(values[lower], values[upper], values[stride]):
                values[index] = i
                values.update(zip(carried, current, strict=True))
                for run in body:
                    run(state)
                current = [values[value] for value in yielded]
            values.update(zip(results, current, strict=True))

        return step


def _arithmetic(op: Operation) -> Step:
    function = _ARITHMETIC[type(op)]
    left, right = op.operands
    result = op.results[0]

    def step(state: State) -> None:
        values = state.values
        values[result] = function(values[left], values[right])

    return step


def _view_type(argument: SSAValue) -> GlobalType:
    if not isinstance(argument.type, GlobalType):
        raise IRError(f"a kernel's argument is a view of global memory, not {argument.type}")
    return argument.type


def _access(function: func.FuncOp) -> list[str]:
    """How each argument is used; one that does not say may be read and written."""
    count = len(function.body.block.args)
    if not isinstance(function.arg_attrs, ArrayAttr):
        return ["update"] * count
    found: list[str] = []
    for attributes in function.arg_attrs:
        assert isinstance(attributes, DictionaryAttr)
        access = attributes.data.get("tpu.access")
        found.append(access.data if isinstance(access, StringAttr) else "update")
    return found
