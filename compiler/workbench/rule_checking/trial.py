"""One instance of a rule: applied, run before and after, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, ModuleOp, UnknownLoc, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import VerifyException

from tilewright.backends.reference.balls import Ball
from tilewright.backends.reference.executor import run_with_bounds
from tilewright.compiler.workbench.evaluation import Difference, SignatureError, difference
from tilewright.compiler.workbench.rule_checking.inputs import ExactInputs, InstanceInputs
from tilewright.compiler.workbench.rule_checking.instances import FUNCTION, MARK
from tilewright.dialects import graph
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import IRError, TilewrightError
from tilewright.dialects.scopes import functions_of
from tilewright.passes.rules.values import TOLERANCE

Array = npt.NDArray[Any]

_ULP = 2.0**-23
_HELD_TWICE = 2.0
"""A change of an attribute by one step moves results linearly, or nearly so; this covers the
rest."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with the module that a rule has made."""

    kind: str
    """`different values`, `illegal IR`, `types`, `marks` or `error`."""
    message: str
    difference: Difference | None = None


class Trial:
    """A module before a rule, with its numbers; judges what rules make of it."""

    def __init__(
        self,
        module: ModuleOp,
        rebuild: Callable[[], ModuleOp],
        *,
        seed: int,
        case: str,
        changes_level: bool = False,
    ) -> None:
        """`module` is run now, and may be changed then; `rebuild` makes it anew."""
        self._rebuild = rebuild
        self.changes_level = changes_level
        """Whether the rule leads to other element types: numbers are such that nothing is lost."""
        self.inputs = (
            ExactInputs(module, seed=seed, case=case)
            if changes_level
            else InstanceInputs(module, seed=seed, case=case)
        )
        self._types = _result_types(module)
        self._results = _result_names(module)
        self._ops = Counter(op.name for op in module.walk())
        self._values: list[Ball] | Finding
        try:
            self._values = self._run(module)
        except (SignatureError, TilewrightError) as error:
            self._values = _cannot_run(error)

    def judge(
        self, after: ModuleOp, root: str, loose: frozenset[tuple[str, object]]
    ) -> Finding | None:
        """What is wrong with `after`, the module with the rule applied to an op called `root`.

        None where nothing is.

        `loose` are the attributes, with their values, of which the rule asks only that they are
        near a number.
        """
        try:
            verify_module(after)
        except (IRError, VerifyException) as error:
            return Finding("illegal IR", str(error))
        if self.changes_level:
            return self._different(after, loose)
        types = _result_types(after)
        if types != self._types:
            return Finding("types", f"the results are {self._types} before and {types} after")
        return self._lost_marks(after, root) or self._different(after, loose)

    def numbers(self, module: ModuleOp) -> dict[str, Array]:
        """The arrays that the arguments, weights and states of the module before the rule hold."""
        function = functions_of(module)[FUNCTION]
        found = {
            argument.name_hint or f"argument {at}": array
            for at, (argument, array) in enumerate(
                zip(function.args, self.inputs.arguments(function), strict=True)
            )
        }
        for op in module.walk():
            if isinstance(op, graph.Weight):
                found[op.key.data] = self.inputs.weight(op.key.data, op)
        return found | self.inputs.states(module)

    def _lost_marks(self, after: ModuleOp, root: str) -> Finding | None:
        """Whether new ops have no location, or the root's successor none of its attributes."""
        ops = [op for op in after.walk() if isinstance(op.parent_op(), FuncOp)]
        for op in ops:
            if isinstance(op.location, UnknownLoc) and not isinstance(op, ReturnOp):
                return Finding("marks", f"{op.name} has no location after the rule")
        like = [op for op in ops if op.name == root]
        if len(like) >= self._ops[root] and not any(MARK in op.attributes for op in like):
            return Finding("marks", f"{root} has lost its attribute {MARK}")
        return None

    def _different(self, after: ModuleOp, loose: frozenset[tuple[str, object]]) -> Finding | None:
        if isinstance(self._values, Finding):
            return self._values
        try:
            for at, (a, b) in enumerate(zip(self._values, self._run(after), strict=True)):
                a = _undefined_is_free(a)
                name = self._results[at] if at < len(self._results) else "a state"
                found = difference(name, a, b)
                if found is not None:
                    slack = self._slack(after, at, loose)
                    found = difference(name, a, Ball(b.value, b.radii + slack))
                if found is not None:
                    return Finding("different values", str(found), found)
        except (SignatureError, TilewrightError) as error:
            return _cannot_run(error)
        return None

    def _run(self, module: ModuleOp) -> list[Ball]:
        states = {key: Ball.exact(array) for key, array in self.inputs.states(module).items()}
        with np.errstate(all="ignore"):
            results = run_with_bounds(
                module,
                FUNCTION,
                self.inputs.arguments(functions_of(module)[FUNCTION]),
                weights=self.inputs.weight,
                states=states,
            )
        return [*results, *(states[key] for key in sorted(states))]

    def _slack(self, after: ModuleOp, result: int, loose: frozenset[tuple[str, object]]) -> Array:
        """How far a result moves where each f32 attribute is off by its rounding.

        A rule computes attributes, and the IR holds them in f32; of some it asks only that they are
        near a number. That is no mistake.
        """
        moved: Array = np.zeros(())
        for module in (self._rebuild(), after):
            for op in module.walk():
                for name, attribute in list(op.properties.items()):
                    if isinstance(attribute, FloatAttr) and isinstance(op, graph.GraphOp):
                        share = TOLERANCE if (name, attribute.value.data) in loose else _ULP
                        moved = moved + self._moved(module, op, name, share, result)
        return moved

    def _moved(
        self, module: ModuleOp, op: Operation, name: str, share: float, result: int
    ) -> Array:
        held = op.properties[name]
        assert isinstance(held, FloatAttr)
        runs: list[Array] = []
        for sign in (1, -1):
            value = held.value.data * (1 + sign * max(share, _ULP))
            op.properties[name] = FloatAttr(float(np.float32(value)), f32)
            runs.append(self._run(module)[result].value)
        op.properties[name] = held
        with np.errstate(all="ignore"):
            spread = np.abs(runs[0] - runs[1]) * _HELD_TWICE
        return np.nan_to_num(spread, nan=0.0, posinf=0.0)


def _result_types(module: ModuleOp) -> ArrayAttr[Attribute]:
    return functions_of(module)[FUNCTION].function_type.outputs


def _result_names(module: ModuleOp) -> list[str]:
    """What the rule calls the results; `result 0` for one without a name."""
    returned = functions_of(module)[FUNCTION].get_return_op()
    values = () if returned is None else returned.operands
    return [value.name_hint or f"result {at}" for at, value in enumerate(values)]


def _cannot_run(error: SignatureError | TilewrightError) -> Finding:
    if isinstance(error, SignatureError):
        return Finding("types", str(error))
    return Finding("error", f"cannot be run: {error}")


def _undefined_is_free(ball: Ball) -> Ball:
    """Where the ops of the pattern give no number (`1 / 0`), the rule may put any."""
    if ball.value.dtype.kind in "iub":
        return ball
    return Ball(ball.value, np.where(np.isfinite(ball.value), ball.radii, np.inf))
