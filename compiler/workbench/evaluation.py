"""What the functions of a module compute on generated inputs, and whether two modules agree."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ArrayAttr, ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.ball_run import RunProgram
from tilewright.backends.reference.balls import FLOAT64, Ball
from tilewright.backends.reference.executor import run_with_bounds
from tilewright.backends.reference.graph_run import Observer
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.dialects import graph
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.dialects.tpu import LaunchOp

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """What one run of a function gives: its results, and the states as it leaves them."""

    outputs: tuple[Ball, ...]
    states: Mapping[str, Ball]

    def named(self) -> dict[str, Ball]:
        """All values by what a message calls them."""
        outputs = {f"output {index}": value for index, value in enumerate(self.outputs)}
        return {**outputs, **{f"state {key!r}": value for key, value in self.states.items()}}


@dataclass(frozen=True)
class Difference:
    """The worst element in which two runs differ by more than both radii together."""

    what: str
    """The output or state."""
    index: tuple[int, ...]
    before: float
    after: float
    bound: float
    wrong_elements: int
    elements: int

    def __str__(self) -> str:
        place = f"{self.what}{list(self.index)}" if self.index else self.what
        return (
            f"{place} is {self.before:.9g} before and {self.after:.9g} after, "
            f"{abs(self.after - self.before):.3g} apart, the bound is {self.bound:.3g}; "
            f"{self.wrong_elements:,} of {self.elements:,} elements are out of it"
        )


_TINY = 2.0**-200
"""Values that are all smaller are not told apart."""


class SignatureError(Exception):
    """Two runs that give other numbers or shapes of results, or other states."""


@dataclass(frozen=True)
class Launched:
    """A launch of a kernel as it ran: its arguments before it, in order, and after it."""

    op: str
    """In the words of the model, with its source line."""
    function: str
    case: str
    before: tuple[Ball, ...]
    after: tuple[Ball, ...]


class Recorder:
    """Keeps the first launch of each kernel."""

    def __init__(self, function: str, case: str, launches: dict[str, Launched]) -> None:
        self._function, self._case = function, case
        self.launches = launches

    def __call__(
        self, op: Operation, scope: str, inputs: Sequence[Ball], outputs: Sequence[Ball]
    ) -> None:
        if not isinstance(op, LaunchOp) or op.kernel.string_value() in self.launches:
            return
        before, after = list(inputs), list(inputs)
        new = list(outputs)
        if op.alias is not None:
            # The launch has written in place: what it began with is gone, but writing the same
            # rows once more changes nothing.
            alias = op.alias.value.data
            copy = Ball(np.array(outputs[0].value), np.array(outputs[0].radii))
            before[alias] = after[alias] = copy
            new = new[1:]
        before += [Ball.exact(np.zeros_like(ball.value)) for ball in new]
        self.launches[op.kernel.string_value()] = Launched(
            scope + where_of(op), self._function, self._case, tuple(before), (*after, *new)
        )


def evaluate(
    module: ModuleOp,
    function: str,
    inputs: GeneratedInputs,
    *,
    run_program: RunProgram | None = None,
    on_op: Observer[Ball] | None = None,
) -> Outcome:
    """Run a public function in float64, with a rigorous radius for every element."""
    states = {key: Ball.exact(state) for key, state in inputs.states(module, function).items()}
    outputs = run_with_bounds(
        module,
        function,
        inputs.arguments(functions_of(module)[function]),
        weights=inputs.weight,
        states=states,
        arithmetic=FLOAT64,
        run_program=run_program,
        on_op=on_op,
    )
    return Outcome(tuple(outputs), states)


@contextmanager
def single_calls(module: ModuleOp) -> Generator[None]:
    """While the block runs, chains of calls are cut to their first call.

    A chain runs one function again and again: the first call shows whether that has changed.
    """
    calls = [op for op in module.walk() if isinstance(op, graph.Call) and len(op.scopes) > 1]
    chains = [call.scopes for call in calls]
    try:
        for call in calls:
            call.scopes = ArrayAttr(call.scopes.data[:1])
        yield
    finally:
        for call, scopes in zip(calls, chains, strict=True):
            call.scopes = scopes


def chains_of(module: ModuleOp) -> list[tuple[str, str, tuple[str, ...]]]:
    """Which function calls which, under which scopes, in order."""
    return [
        (name, op.callee.string_value(), op.scope_names)
        for name, function in functions_of(module).items()
        if "tpu.kernel" not in function.attributes
        for op in function.walk()
        if isinstance(op, graph.Call)
    ]


LOOSE = 2.0**-20
"""Of a tensor's largest value: what two runs in float64 may differ by where their radii, which grow
a hundred thousand times with every layer as if all errors conspired, say less. Far above the noise
of float64, far below what a mistake does."""


def first_difference(
    before: Outcome, after: Outcome, *, loose: float | None = LOOSE
) -> Difference | None:
    """The first result or state that differs, at its worst element.

    Raises `SignatureError` where there are not as many results of the same shapes, both of floats
    or both of integers, and the same states. Integers must be equal. Two floats agree if they are
    no farther apart than both radii together, and than `loose` of the tensor's largest value. NaN
    must meet NaN and an infinity the same infinity.
    """
    old, new = before.named(), after.named()
    if old.keys() != new.keys():
        changed = sorted(old.keys() ^ new.keys())
        raise SignatureError(f"not both have {', '.join(changed)}")
    for name, value in old.items():
        found = difference(name, value, new[name], loose=loose)
        if found is not None:
            return found
    return None


def difference(
    name: str, before: Ball, after: Ball, *, loose: float | None = None
) -> Difference | None:
    """The worst element in which two values of one shape differ; see `first_difference`.

    No element may differ by more than `loose` of the largest value. Without it an element with an
    infinite radius, since it may overflow, is not judged.
    """
    if before.value.shape != after.value.shape:
        shapes = [list(value.value.shape) for value in (before, after)]
        raise SignatureError(f"{name} is {shapes[0]} before and {shapes[1]} after")
    old, new = before.value, after.value
    if (old.dtype.kind in "iu") != (new.dtype.kind in "iu"):
        raise SignatureError(f"{name} holds {old.dtype} before and {new.dtype} after")
    with np.errstate(all="ignore"):
        x, y = old.astype(np.float64), new.astype(np.float64)
        # The radius of what is not a number is not one.
        bound = np.nan_to_num(before.radii, posinf=np.inf) + np.nan_to_num(
            after.radii, posinf=np.inf
        )
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        distance = np.abs(x - y)
        if loose is not None:
            largest = np.abs(x[np.isfinite(x)]).max(initial=0.0)
            bound = np.minimum(bound, np.maximum(loose * largest, _TINY))
        unjudged = np.isposinf(bound)
        wrong = ~(same | (distance <= bound) | unjudged)
    if not bool(wrong.any()):
        return None
    excess = np.where(wrong, np.nan_to_num(distance - bound, nan=np.inf), -np.inf)
    worst = int(np.argmax(excess))
    return Difference(
        name,
        tuple(int(i) for i in np.unravel_index(worst, x.shape)),
        float(x.flat[worst]),
        float(y.flat[worst]),
        float(bound.flat[worst]),
        int(np.count_nonzero(wrong)),
        x.size,
    )
