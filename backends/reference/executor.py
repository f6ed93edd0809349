"""Runs a function of a module op by op with the reference, going through calls under their scopes.

Values are freed after their last use, so that a whole model needs the memory of its widest point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.evaluation import write_rows
from tilewright.dialects import graph
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of, where_of

Array = NDArray[Any]
SemanticsName = Literal["float64", "typed"]
Weights = Callable[[str, Operation], Array]
Observer = Callable[[Operation, str, Sequence[Array], Sequence[Array]], None]

_MODULES = {"float64": float64, "typed": typed}


def run_function(
    module: ModuleOp,
    name: str,
    inputs: Sequence[Array],
    *,
    weights: Weights,
    states: dict[str, Array],
    semantics: SemanticsName = "typed",
    on_op: Observer | None = None,
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
    run = _Run(functions_of(module), weights, states, semantics, on_op)
    results = run.call(name, [np.asarray(array) for array in inputs], "", ())
    return [float64.SEMANTICS.widen(a) for a in results] if semantics == "float64" else results


@dataclass
class _Run:
    """What all calls of one run share. `last_uses` is by block, computed at its first execution."""

    functions: dict[str, func.FuncOp]
    weights: Weights
    states: dict[str, Array]
    semantics: SemanticsName
    on_op: Observer | None
    last_uses: dict[Block, list[list[SSAValue]]] = field(
        default_factory=dict[Block, list[list[SSAValue]]]
    )

    def call(
        self, name: str, inputs: Sequence[Array], scope: str, callers: tuple[str, ...]
    ) -> list[Array]:
        """Run function `name` with its weights and states under `scope`."""
        if name not in self.functions:
            known = ", ".join(f"@{known}" for known in self.functions)
            raise IRError(f"there is no function @{name}", hint=f"the functions are {known}")
        if name in callers:
            raise IRError(f"@{name} calls itself", why=" -> ".join((*callers, name)))
        function = self.functions[name]
        if function.is_declaration:
            raise IRError(f"@{name} has no body")
        block = function.body.block
        if len(inputs) != len(block.args):
            raise OptionError(f"@{name} takes {len(block.args)} inputs, not {len(inputs)}")
        environment: dict[SSAValue, Array] = {}
        for index, (argument, array) in enumerate(zip(block.args, inputs, strict=True)):
            environment[argument] = self._fitted(array, argument, f"input {index} of @{name}")
        results: list[Array] = []
        for op, dead in zip(block.ops, self._dead_after(block), strict=True):
            operands = [environment[operand] for operand in op.operands]
            if isinstance(op, func.ReturnOp):
                results = operands
                break
            outputs = self._execute(op, operands, scope, (*callers, name))
            environment.update(zip(op.results, outputs, strict=True))
            del operands, outputs
            for value in dead:
                del environment[value]
        return results

    def _execute(
        self, op: Operation, operands: list[Array], scope: str, callers: tuple[str, ...]
    ) -> list[Array]:
        if isinstance(op, graph.Call):
            for inner in op.scope_names:
                results = self.call(op.callee.string_value(), operands, scope + inner, callers)
                operands = [*results, *operands[len(results) :]]
            return operands[: len(op.results)]
        if isinstance(op, graph.Weight):
            key = scope + op.key.data
            return [self._fitted(np.asarray(self.weights(key, op)), op.result, f"weight {key!r}")]
        if isinstance(op, graph.State):
            return [self._state(scope + op.key.data, op.result)]
        if isinstance(op, graph.CacheUpdate) and self._is_state(operands[0]):
            write_rows(op, *operands)
            outputs = [operands[0]]
        else:
            outputs = self._evaluate(op, operands)
        if self.on_op is not None:
            self.on_op(op, scope, operands, outputs)
        return outputs

    def _evaluate(self, op: Operation, operands: list[Array]) -> list[Array]:
        try:
            return _MODULES[self.semantics].evaluate(op, operands)
        except OptionError as error:
            raise OptionError(
                error.what, where=where_of(op), why=error.where, hint=error.hint
            ) from error

    def _state(self, key: str, value: SSAValue) -> Array:
        """The array of a state itself (never a copy): float64 or its storage type."""
        dtype = self._dtype(value)
        if key not in self.states:
            undefined = np.nan if storage_of(value).is_float else -1
            self.states[key] = np.full(shape_of(value), undefined, dtype=dtype)
        state = self.states[key]
        if state.dtype != dtype and self.semantics == "float64":
            state = self.states[key] = state.astype(dtype)
        if state.shape != shape_of(value) or state.dtype != dtype:
            raise OptionError(
                f"state {key!r} is {state.dtype}{list(state.shape)}, "
                f"not {dtype}{list(shape_of(value))}"
            )
        return state

    def _is_state(self, array: Array) -> bool:
        return any(state is array for state in self.states.values())

    def _dtype(self, value: SSAValue) -> np.dtype[Any]:
        element = storage_of(value)
        wide = self.semantics == "float64" and element.is_float
        return np.dtype(np.float64) if wide else element.dtype

    def _fitted(self, array: Array, value: SSAValue, what: str) -> Array:
        """`array`, if it fits the type of `value`; for float64 semantics any float does."""
        element = storage_of(value)
        any_float = self.semantics == "float64" and element.is_float
        fits = array.dtype.kind not in "iub" if any_float else array.dtype == element.dtype
        if array.shape != shape_of(value) or not fits:
            raise OptionError(
                f"{what} is {array.dtype}{list(array.shape)}, "
                f"not {element.name}{list(shape_of(value))}"
            )
        return array

    def _dead_after(self, block: Block) -> list[list[SSAValue]]:
        """For each op of `block` the values that nothing needs after it."""
        if block not in self.last_uses:
            self.last_uses[block] = _last_uses(block)
        return self.last_uses[block]


def _last_uses(block: Block) -> list[list[SSAValue]]:
    seen: set[SSAValue] = set()
    dead: list[list[SSAValue]] = []
    for op in reversed(list(block.ops)):
        values = dict.fromkeys((*op.operands, *op.results))
        dead.append([value for value in values if value not in seen])
        seen.update(values)
    return dead[::-1]
