"""Every op on the simulator against float64, with the bound of docs/numerics.md.

Each op is judged on its own. The reference gets what the op should have been given: weights as they
are stored, inputs as they came in, and what the simulated ops before it had made at the time. So an
error shows at the op that makes it and nowhere else, and an op that reads the wrong place, or
memory that something has overwritten, is itself found wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.backends.program import Launch
from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.bounds import bound, outside
from tilewright.compiler.memory_plan import weight_name_of
from tilewright.compiler.runtime import Session
from tilewright.dialects.errors import InternalError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of, op_name, source_of, walk_calls
from tilewright.dialects.tpu import CacheUpdateOp, CallOp, StateOp, WeightOp
from tilewright.passes.kernels.registry import View
from tilewright.passes.views import needs_kernel

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Execution:
    """An executed op, with what it should have been given and what it has made."""

    function: str
    scope: str
    op: Operation
    operands: tuple[Array, ...]
    """In storage types, as they were before the op. Caches change later: copy what is to stay."""
    result: Array

    @property
    def name(self) -> str:
        """The op in the words of the source model."""
        return self.scope + op_name(self.op)


@dataclass(frozen=True)
class OpComparison:
    """How one executed op compares with float64."""

    function: str
    name: str
    """In the words of the source model."""
    op: str
    source: str
    cosine: float
    snr_db: float
    worst_error: float
    worst_bound: float
    """The bound where error / bound is largest; infinite where f16 may overflow."""
    ratio: float
    """Largest error / bound; at most 1 if and only if the op is within its bound."""
    wrong_elements: int
    """How many elements are out of their bound."""

    @property
    def in_bound(self) -> bool:
        return self.wrong_elements == 0

    def to_json(self) -> dict[str, object]:
        """A row of `tw compare --json` (docs/json.md); infinities become null."""
        return {
            "function": self.function,
            "name": self.name,
            "op": self.op,
            "source": self.source,
            "cosine": _finite(self.cosine),
            "snr_db": _finite(self.snr_db),
            "worst_error": _finite(self.worst_error),
            "worst_bound": _finite(self.worst_bound),
            "ratio": _finite(self.ratio),
            "wrong_elements": self.wrong_elements,
            "in_bound": self.in_bound,
        }


def compare_function(
    session: Session, module: ModuleOp, name: str, inputs: Mapping[str, Array]
) -> tuple[dict[str, Array], list[OpComparison]]:
    """Run an entry function and compare each of its ops; returns outputs and comparisons in order.

    Raises what `Session.run` does, and `InternalError` where `module` is not that of the program.
    """
    rows: list[OpComparison] = []
    outputs = observe(
        session, module, name, inputs, lambda execution: rows.append(compare(execution))
    )
    return outputs, rows


def observe(
    session: Session,
    module: ModuleOp,
    name: str,
    inputs: Mapping[str, Array],
    on_op: Callable[[Execution], None],
) -> dict[str, Array]:
    """Run an entry function of a `tpu` module and show every op that a kernel computes to `on_op`.

    States are taken over as the session holds them. Returns the outputs.
    """
    launches = session.function(name).launches
    executed = sum(needs_kernel(op) for op, _ in walk_calls(module, name))
    if executed != len(launches):
        raise InternalError(
            f"@{name} has {len(launches)} launches for {executed} ops",
            hint="the artifact's module and commands are not of one compilation",
        )
    replay = _Replay(session, module).entry(name, inputs)
    pending: _Pending | None = None
    computed: tuple[Array, ...] = ()

    def around(index: int, launch: Launch, execute: Callable[[], None]) -> None:
        nonlocal pending, computed
        op, scope, operands = next(replay) if pending is None else pending
        execute()
        result = _result(session, op, launch)
        on_op(Execution(name, scope, op, operands, result))
        try:
            pending = replay.send(result)
        except StopIteration as stop:
            computed = stop.value

    outputs = session.run(name, inputs, around=around)
    for (port, output), array in zip(outputs.items(), computed, strict=True):
        if output.tobytes() != array.tobytes():
            raise InternalError(f"output {port} of @{name} is not what its ops have computed")
    return outputs


def compare(execution: Execution) -> OpComparison:
    """Judge one op by `backends.reference.bounds`."""
    op, operands = execution.op, execution.operands
    exact = np.asarray(float64.evaluate(op, operands)[0])
    limit = bound(op, operands, exact)
    wrong = outside(execution.result, exact, limit)
    value = execution.result.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (value == exact) | (np.isnan(value) & np.isnan(exact))
        error = np.where(same, 0.0, np.abs(value - exact))
        limits = np.zeros_like(error) if limit is None else np.broadcast_to(limit, error.shape)
        ratio = np.where(same, 0.0, error / limits)
    # Where a limit is infinite, `outside` alone knows.
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    ratio = np.where(wrong, np.where(ratio > 1, ratio, np.inf), np.where(ratio <= 1, ratio, 0.0))
    worst = int(np.argmax(ratio)) if ratio.size else None
    cosine, snr = metrics(value, exact)
    return OpComparison(
        execution.function,
        execution.name,
        op.name,
        source_of(op),
        cosine,
        snr,
        0.0 if worst is None else float(error.flat[worst]),
        0.0 if worst is None else float(limits.flat[worst]),
        0.0 if worst is None else float(ratio.flat[worst]),
        int(np.count_nonzero(wrong)),
    )


def first_out_of_bound(rows: Sequence[OpComparison]) -> OpComparison | None:
    """The first op, in order of execution, that leaves its bound."""
    return next((row for row in rows if not row.in_bound), None)


def metrics(value: Array, exact: Array) -> tuple[float, float]:
    """Cosine similarity and signal-to-noise ratio in dB of `value` against `exact`, in float64.

    Elements that are not finite in both are left out. Without noise the ratio is infinite; without
    a signal but with noise it is minus infinity.
    """
    x, y = value.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    cosine = float(x @ y) / norms if norms else float(np.array_equal(x, y))
    noise, signal = float(np.sum((x - y) ** 2)), float(np.sum(y**2))
    if noise == 0:
        return cosine, float("inf")
    return cosine, float(10 * np.log10(signal / noise)) if signal else float("-inf")


_Pending: TypeAlias = tuple[Operation, str, tuple[Array, ...]]
_Steps: TypeAlias = Generator[_Pending, Array, tuple[Array, ...]]


class _Replay:
    """Walks through a function as it is executed: yields each op that has a kernel, with its scope
    and operands, and is sent its result."""

    def __init__(self, session: Session, module: ModuleOp) -> None:
        self._session = session
        self._functions = functions_of(module)
        self._states: dict[str, Array] = {}

    def entry(self, name: str, inputs: Mapping[str, Array]) -> _Steps:
        ports = self._session.function(name).inputs
        arguments = [np.asarray(inputs[p.name]).astype(p.element.dtype) for p in ports]
        return (yield from self._call(name, "", arguments))

    def _call(self, name: str, scope: str, arguments: Sequence[Array]) -> _Steps:
        block = self._functions[name].body.block
        values: dict[SSAValue, Array] = dict(zip(block.args, arguments, strict=True))
        for op in block.ops:
            operands = tuple([values[operand] for operand in op.operands])
            if isinstance(op, func.ReturnOp):
                return operands
            if isinstance(op, CallOp):
                for inner in op.scope_names:
                    callee = op.callee.string_value()
                    results = yield from self._call(callee, scope + inner, operands)
                    operands = (*results, *operands[len(results) :])
                values.update(zip(op.results, operands, strict=False))
            elif needs_kernel(op):
                result = yield op, scope, operands
                if isinstance(op, CacheUpdateOp):
                    operands[0][...] = result
                    result = operands[0]
                values[op.results[0]] = result
            else:
                values[op.results[0]] = self._named(op, scope, operands)
        raise InternalError(f"@{name} does not return")

    def _named(self, op: Operation, scope: str, operands: Sequence[Array]) -> Array:
        """The value of an op without a kernel: a weight, a state or a view."""
        if isinstance(op, WeightOp):
            return _as_value(self._session.weight(scope + weight_name_of(op)), op.result)
        if isinstance(op, StateOp):
            key = scope + op.key.data
            if key not in self._states:
                self._states[key] = _as_value(self._session.state(key), op.result).copy()
            return self._states[key]
        return typed.evaluate(op, operands)[0]


def _as_value(stored: Array, value: SSAValue) -> Array:
    stored = stored.reshape(-1).view(np.uint8)
    return stored.view(storage_of(value).dtype).reshape(shape_of(value))


def _result(session: Session, op: Operation, launch: Launch) -> Array:
    """What a launch has just written; an update in place has no argument for its result."""
    value, count = op.results[0], len(op.operands)
    in_place = isinstance(op, CacheUpdateOp)
    address = launch.addresses[0 if in_place else count]
    view = View.of(shape_of(value), storage_of(value))
    return session.tensor(address, view.shape, view.element, view.pitch_bytes)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
