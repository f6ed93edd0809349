"""Runs functions of a module of any stage on balls: ops of the graph, and launches of kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.backends.reference import composition, primitives
from tilewright.backends.reference.balls import EXACT, Arithmetic, Ball
from tilewright.backends.reference.evaluation import write_rows
from tilewright.backends.reference.graph_run import GraphRun, Observer
from tilewright.backends.reference.kernels import Kernel
from tilewright.backends.reference.slices import is_view
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import IRError, OptionError, TilewrightError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.memory_types import GlobalType
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]
BallWeights: TypeAlias = Callable[[str, Operation], Ball | Array]
RunProgram: TypeAlias = Callable[[ProgramOp, list[Ball]], list[Ball]]
"""Runs a `bdc.program` on a ball for each of its arguments and returns them as they are after."""


class BallRun(GraphRun[Ball]):
    """A run of a function on balls: see `executor.run_with_bounds`."""

    def __init__(
        self,
        module: ModuleOp,
        weights: BallWeights,
        states: dict[str, Ball],
        arithmetic: Arithmetic,
        run_program: RunProgram | None,
        on_op: Observer[Ball] | None,
    ) -> None:
        super().__init__(module, on_op)
        self._weights = weights
        self._states = states
        self._own: dict[str, Ball] = {}
        self._arithmetic = arithmetic
        self._run_program = run_program
        self._kernels: dict[str, Kernel] = {}
        self._programs = {op.sym_name.data: op for op in module.ops if isinstance(op, ProgramOp)}

    def start(self, name: str, inputs: Sequence[Ball]) -> list[Ball]:
        """Run an entry function on what comes in from outside."""
        function = self.functions.get(name)
        block = None if function is None or function.is_declaration else function.body.block
        if block is not None and len(block.args) == len(inputs):
            inputs = [
                _laid_out(self.stored(ball, target))
                for ball, target in zip(inputs, block.args, strict=True)
            ]
        return self.call(name, inputs)

    def fitted(self, value: Ball, target: SSAValue, what: str) -> Ball:
        element, shape = storage_of(target), shape_of(target)
        if value.value.shape != shape or (value.value.dtype.kind in "iub") == element.is_float:
            raise OptionError(
                f"{what} is {value.value.dtype}{list(value.value.shape)}, "
                f"not {element.name}{list(shape)}"
            )
        return value

    def weight(self, op: graph.Weight, key: str) -> Ball:
        given = self._weights(key, op)
        ball = given if isinstance(given, Ball) else Ball.exact(given)
        ball = self.fitted(ball, op.result, f"weight {key!r}")
        return _laid_out(self.stored(ball, op.result))

    def stored(self, ball: Ball, target: SSAValue) -> Ball:
        """What comes in from outside, in the storage type of its place."""
        return primitives.store(self._arithmetic, ball, storage_of(target))

    def state(self, op: graph.State, key: str) -> Ball:
        if key not in self._own:
            given = self._states.get(key)
            ball = undefined(op.result) if given is None else given
            ball = self.stored(self.fitted(ball, op.result, f"state {key!r}"), op.result)
            self._own[key] = Ball(ball.value.copy(), ball.radii.copy())
            self._states[key] = self._own[key]
        return self.fitted(self._own[key], op.result, f"state {key!r}")

    def evaluate(self, op: Operation, operands: list[Ball]) -> list[Ball]:
        try:
            return self._results(op, operands)
        except OptionError as error:
            raise OptionError(
                error.what, where=where_of(op), why=error.why or error.where, hint=error.hint
            ) from error

    def _results(self, op: Operation, operands: list[Ball]) -> list[Ball]:
        if isinstance(op, tpu.LaunchOp):
            return self._launch(op, operands)
        if isinstance(op, graph.CacheUpdate) and self._is_state(operands[0]):
            cache, rows, positions = operands
            write_rows(op, cache.value, rows.value, positions.value)
            write_rows(op, cache.radius, rows.radii, positions.value)
            return [cache]
        if isinstance(op, graph.Reshape):
            return [composition.reshaped(operands[0], shape_of(op.result))]
        if isinstance(op, graph.Slice) and is_view(op, operands[0].value):
            return [_sliced(op, operands[0])]
        return [_laid_out(b) for b in composition.propagate(op, operands, self._arithmetic)]

    def _is_state(self, ball: Ball) -> bool:
        return any(state is ball for state in self._own.values())

    # Launches.

    def _launch(self, op: tpu.LaunchOp, operands: list[Ball]) -> list[Ball]:
        """Run a kernel on its operands and on room for its results.

        With `alias` the first result is that operand: written in place if it lies in a state.
        """
        alias = None if op.alias is None else op.alias.value.data
        new = [result for result in op.results if alias is None or result.index > 0]
        values = [*op.operands, *new]
        balls = [*operands, *(undefined(result) for result in new)]
        name = op.kernel.string_value()
        if name in self._programs:
            after = self._run_emitted(op, self._programs[name], values, balls)
        else:
            after = self._run_kernel(op, name, values, balls)
        results = after[len(operands) :]
        return results if alias is None else [self._update(balls[alias], after[alias]), *results]

    def _run_kernel(
        self, op: tpu.LaunchOp, name: str, values: Sequence[SSAValue], balls: Sequence[Ball]
    ) -> list[Ball]:
        if name not in self._kernels:
            if name not in self.functions:
                raise IRError(f"there is no kernel @{name}", where=where_of(op))
            self._kernels[name] = Kernel(self.functions[name])
        kernel = self._kernels[name]
        bound = _bound(op, kernel.views, values, balls)
        try:
            after = kernel.run(bound, self._arithmetic)
        except TilewrightError as error:
            error.hint = error.hint or f"the kernel is @{name}, launched by {where_of(op)}"
            raise
        return [
            ball if access == "read" else _unbound(op, new, value)
            for ball, new, value, access in zip(balls, after, values, kernel.access, strict=True)
        ]

    def _run_emitted(
        self,
        op: tpu.LaunchOp,
        program: ProgramOp,
        values: Sequence[SSAValue],
        balls: list[Ball],
    ) -> list[Ball]:
        _bound(op, [argument.view for argument in program.arguments], values, balls)
        if self._run_program is None:
            raise IRError(
                f"@{program.sym_name.data} is a bdc.program, and nothing here runs one",
                where=where_of(op),
                hint="give run_with_bounds a run_program that hands it to the simulator",
            )
        return self._run_program(program, balls)

    def _update(self, operand: Ball, after: Ball) -> Ball:
        """What an aliased operand has become."""
        if not any(np.may_share_memory(operand.value, s.value) for s in self._own.values()):
            return after
        operand.value[...] = after.value
        operand.radius[...] = after.radius
        return operand


def undefined(value: SSAValue) -> Ball:
    """A tensor that nothing was written to: NaN, or -1 for integers."""
    element, shape = storage_of(value), shape_of(value)
    if element.is_float:
        return Ball(np.full(shape, np.nan), EXACT)
    return Ball(np.full(shape, -1, element.dtype), EXACT)


def _sliced(op: graph.Slice, ball: Ball) -> Ball:
    spans = zip(op.offsets.get_values(), shape_of(op.result), strict=True)
    at = tuple(slice(start, start + size) for start, size in spans)
    return Ball(ball.value[at], EXACT if ball.is_exact else ball.radii[at])


def _bound(
    op: tpu.LaunchOp,
    views: Sequence[GlobalType],
    values: Sequence[SSAValue],
    balls: Sequence[Ball],
) -> list[Ball]:
    """Each tensor of a launch as the kernel's view of it: the elements where they lie.

    A view may have any rows, columns and pitch over the bytes from the tensor's first element to
    its last. Raises `IRError` for one that covers others: it would reach memory of something else,
    or take the gaps between rows for elements.
    """
    name = op.kernel.string_value()
    if len(views) != len(values):
        raise IRError(
            f"@{name} has {len(views)} arguments, its launch {len(values)}", where=where_of(op)
        )
    bound: list[Ball] = []
    for index, (view, value, ball) in enumerate(zip(views, values, balls, strict=True)):
        element = storage_of(value)
        rows, cols, pitch = _layout(ball.value, element)
        span = (rows - 1) * pitch + cols * element.size_bytes
        whole = view.pitch_bytes % element.size_bytes == 0
        if view.element != element or view.span_bytes != span or not whole:
            raise IRError(
                f"argument {index} of @{name} is viewed as {view}",
                where=where_of(op),
                why=f"its tensor is {rows}x{cols}x{element.name}, rows {pitch} bytes apart",
            )
        radius = ball.radius if ball.is_exact else _viewed(ball.radius, view)
        bound.append(Ball(_viewed(ball.value, view), radius))
    return bound


def _viewed(array: Array, view: GlobalType) -> Array:
    step = array.itemsize
    pitch = view.pitch_bytes // view.element.size_bytes * step
    return as_strided(array, (view.rows, view.cols), (pitch, step), writeable=False)


def _unbound(op: tpu.LaunchOp, ball: Ball, value: SSAValue) -> Ball:
    """What a kernel has written, as the tensor again."""
    shape = shape_of(value)
    if ball.value.size != math.prod(shape):
        raise IRError(
            f"@{op.kernel.string_value()} writes {list(ball.value.shape)} over gaps of a tensor "
            f"{list(shape)}",
            where=where_of(op),
        )
    return composition.reshaped(ball, shape)


def _layout(array: Array, element: ElementType) -> tuple[int, int, int]:
    """Rows, columns and pitch in bytes of a tensor on the machine, from its array's strides."""
    cols = array.shape[-1] if array.shape else 1
    matrix = array.reshape(-1, cols)
    return matrix.shape[0], cols, matrix.strides[0] // array.itemsize * element.size_bytes


def _laid_out(ball: Ball) -> Ball:
    """The ball with elements one behind the other, and a radius for each unless it is exact."""
    value = np.ascontiguousarray(ball.value)
    return Ball(value, ball.radius if ball.is_exact else np.ascontiguousarray(ball.radii))
