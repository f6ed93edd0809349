"""Runs a function of a module op by op with the reference, going through calls under their scopes:
on arrays (`run_function`), or on balls, which carry bounds of their errors (`run_with_bounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.ball_run import BallRun, BallWeights, RunProgram
from tilewright.backends.reference.balls import FLOAT64, Arithmetic, Ball
from tilewright.backends.reference.evaluation import write_rows
from tilewright.backends.reference.graph_run import GraphRun, Observer
from tilewright.dialects import graph
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]
SemanticsName = Literal["float64", "typed"]
Weights = Callable[[str, Operation], Array]

_MODULES = {"float64": float64, "typed": typed}


def run_function(
    module: ModuleOp,
    name: str,
    inputs: Sequence[Array],
    *,
    weights: Weights,
    states: dict[str, Array],
    semantics: SemanticsName = "typed",
    on_op: Observer[Array] | None = None,
) -> list[Array]:
    """The results of function `name` of a `top` or `tpu` module on `inputs`.

    `weights(key, op)` gives the array for a `Weight` op, by its resolved key (scope + key), in the
    op's storage type (for a tpu weight: in its form). `states` holds the states by resolved key; a
    missing one is added, undefined (NaN). A `CacheUpdate` of a state writes into its array, in
    place, so the next run finds it.

    With "float64" semantics results and states are float64, whatever floats come in; with "typed",
    inputs, weights and states must be of the storage types.

    `on_op(op, scope, inputs, outputs)` sees every op but calls, weights and states, after it ran.
    The cache of an update is written by then, and changes later: copy what is to be kept of a
    state.

    Raises `IRError` for a missing or recursive function, `OptionError` for inputs, weights or
    states that do not fit.
    """
    if semantics not in _MODULES:
        raise OptionError(f"unknown semantics {semantics!r}", hint="one of 'float64', 'typed'")
    run = _ArrayRun(module, weights, states, semantics, on_op)
    results = run.call(name, [np.asarray(array) for array in inputs])
    return [float64.SEMANTICS.widen(a) for a in results] if semantics == "float64" else results


def run_with_bounds(
    module: ModuleOp,
    name: str,
    inputs: Sequence[Ball | Array],
    *,
    weights: BallWeights,
    states: dict[str, Ball],
    arithmetic: Arithmetic = FLOAT64,
    run_program: RunProgram | None = None,
    on_op: Observer[Ball] | None = None,
) -> list[Ball]:
    """The results of function `name` of a module of any stage: values, and how far they may be off.

    Two modules that mean the same give results that differ by no more than their radii together.
    The module may hold `top` and `tpu` ops, launches of kernel functions, and launches of
    `bdc.program`s, all mixed; `run_program(program, balls)` runs one of those on a ball for each
    argument (operands, then results that are not aliased), in the shapes of the tensors, and
    returns the balls of all arguments after it.

    `weights(key, op)` is as for `run_function`. `states` holds the states by resolved key: one that
    is missing is added, undefined (NaN). The run writes into copies, which it leaves in `states`
    for the next run; the balls that were given stay as they are.

    Views are held to what a kernel was built for: an argument whose rows and pitch are not those of
    its tensor is an `IRError`.

    `on_op(op, scope, inputs, outputs)` sees every op but calls, weights and states, after it ran;
    what it sees of a state changes later.

    Radii grow with every layer as if all errors conspired: they say little of a deep model as a
    whole.

    Raises `IRError` for a missing or recursive function or kernel, for a kernel that breaks a rule,
    and for a `bdc.program` without `run_program`; `OptionError` for inputs, weights or states that
    do not fit; `UnsupportedError` for an op without a rule (`composition.register`).
    """
    run = BallRun(module, weights, states, arithmetic, run_program, on_op)
    balls = [x if isinstance(x, Ball) else Ball.exact(x) for x in inputs]
    return run.start(name, balls)


class _ArrayRun(GraphRun[Array]):
    """A run on arrays, in one of the two semantics."""

    def __init__(
        self,
        module: ModuleOp,
        weights: Weights,
        states: dict[str, Array],
        semantics: SemanticsName,
        on_op: Observer[Array] | None,
    ) -> None:
        super().__init__(module, on_op)
        self._weights = weights
        self._states = states
        self._semantics: SemanticsName = semantics

    def fitted(self, value: Array, target: SSAValue, what: str) -> Array:
        """`value`, if it fits the type of `target`; for float64 semantics any float does."""
        element = storage_of(target)
        any_float = self._semantics == "float64" and element.is_float
        fits = value.dtype.kind not in "iub" if any_float else value.dtype == element.dtype
        if value.shape != shape_of(target) or not fits:
            raise OptionError(
                f"{what} is {value.dtype}{list(value.shape)}, "
                f"not {element.name}{list(shape_of(target))}"
            )
        return value

    def weight(self, op: graph.Weight, key: str) -> Array:
        return self.fitted(np.asarray(self._weights(key, op)), op.result, f"weight {key!r}")

    def state(self, op: graph.State, key: str) -> Array:
        """The array of a state itself (never a copy): float64 or its storage type."""
        value = op.result
        dtype = self._dtype(value)
        if key not in self._states:
            undefined = np.nan if storage_of(value).is_float else -1
            self._states[key] = np.full(shape_of(value), undefined, dtype=dtype)
        state = self._states[key]
        if state.dtype != dtype and self._semantics == "float64":
            state = self._states[key] = state.astype(dtype)
        if state.shape != shape_of(value) or state.dtype != dtype:
            raise OptionError(
                f"state {key!r} is {state.dtype}{list(state.shape)}, "
                f"not {dtype}{list(shape_of(value))}"
            )
        return state

    def evaluate(self, op: Operation, operands: list[Array]) -> list[Array]:
        if isinstance(op, graph.CacheUpdate) and self._is_state(operands[0]):
            write_rows(op, *operands)
            return [operands[0]]
        try:
            return _MODULES[self._semantics].evaluate(op, operands)
        except OptionError as error:
            raise OptionError(
                error.what, where=where_of(op), why=error.where, hint=error.hint
            ) from error

    def _is_state(self, array: Array) -> bool:
        return any(state is array for state in self._states.values())

    def _dtype(self, value: SSAValue) -> np.dtype[Any]:
        element = storage_of(value)
        wide = self._semantics == "float64" and element.is_float
        return np.dtype(np.float64) if wide else element.dtype
