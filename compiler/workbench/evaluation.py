"""What the functions of a module compute on generated inputs, and whether two modules agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.reference.balls import Ball
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.dialects.scopes import functions_of

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


class SignatureError(Exception):
    """Two runs that give other numbers or shapes of results, or other states."""


def evaluate(module: ModuleOp, function: str, inputs: GeneratedInputs) -> Outcome:
    """Run a public function in float64, with a rigorous radius for every element."""
    states = inputs.states(module, function)
    outputs = run_function(
        module,
        function,
        inputs.arguments(functions_of(module)[function]),
        weights=inputs.weight,
        states=states,
        semantics="float64",
    )
    return Outcome(
        tuple(_value(output) for output in outputs),
        {key: _value(state) for key, state in states.items()},
    )


def _value(array: Array) -> Ball:
    radius = np.zeros(array.shape)
    if array.dtype.kind == "f":
        radius += 2.0**-36 * float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    return Ball(array, radius)


def first_difference(before: Outcome, after: Outcome) -> Difference | None:
    """The first result or state that differs, at its worst element.

    Raises `SignatureError` where there are not as many results of the same shapes, both of floats
    or both of integers, and the same states. Integers must be equal. Two floats agree if they are
    no farther apart than both radii together. NaN must meet NaN and an infinity the same infinity;
    an element whose radius is not finite, since it may overflow, is not judged.
    """
    old, new = before.named(), after.named()
    if list(old) != list(new):
        changed = sorted(set(old) ^ set(new))
        raise SignatureError(f"not both have {', '.join(changed)}")
    for name, value in old.items():
        found = difference(name, value, new[name])
        if found is not None:
            return found
    return None


def difference(name: str, before: Ball, after: Ball) -> Difference | None:
    """The worst element in which two values of one shape differ; see `first_difference`."""
    if before.value.shape != after.value.shape:
        shapes = [list(value.value.shape) for value in (before, after)]
        raise SignatureError(f"{name} is {shapes[0]} before and {shapes[1]} after")
    old, new = before.value, after.value
    if (old.dtype.kind in "iu") != (new.dtype.kind in "iu"):
        raise SignatureError(f"{name} holds {old.dtype} before and {new.dtype} after")
    with np.errstate(all="ignore"):
        x, y = old.astype(np.float64), new.astype(np.float64)
        bound = np.broadcast_to(before.radii + after.radii, x.shape)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        distance = np.abs(x - y)
        unjudged = ~np.isfinite(bound)
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
