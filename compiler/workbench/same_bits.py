"""Passes that promise the same bits are held to it: roundings are part of what they must keep.

The check in float64 sees no rounding to a storage type. A pass class that says

    same_bits: ClassVar[bool] = True

is run before and after in the reference's typed semantics too, where every result is rounded to
its element type, and every output and state must be the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.backends.reference.balls import Ball
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.workbench.evaluation import (
    Outcome,
    SignatureError,
    chains_of,
    first_difference,
    single_calls,
)
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.dialects import tpu
from tilewright.dialects.errors import MiscompileError
from tilewright.dialects.scopes import functions_of

_Outcomes = Mapping[tuple[str, str], Outcome]


def promises_same_bits(pass_: ModulePass) -> bool:
    """Whether a pass says that it keeps every bit."""
    return getattr(pass_, "same_bits", False) is True


@dataclass(frozen=True)
class Bits:
    """What the public functions of a module compute in their storage types."""

    inputs: Sequence[GeneratedInputs]
    chains: object
    outcomes: _Outcomes

    @staticmethod
    def of(module: ModuleOp, inputs: Sequence[GeneratedInputs]) -> Bits | None:
        """Of a module of graph ops; None where it launches kernels, which have bounds and no bits.

        Of chains of calls the first is run.
        """
        if any(isinstance(op, tpu.LaunchOp) for op in module.walk()):
            return None
        return Bits(inputs, chains_of(module), _outcomes(module, inputs, whole=False))

    def check(self, module: ModuleOp, pass_name: str, again: Callable[[], ModuleOp]) -> None:
        """Raise `MiscompileError` where `module` gives other bits, though `pass_name` promises the
        same. `again` makes the module of these bits anew."""
        if any(isinstance(op, tpu.LaunchOp) for op in module.walk()):
            return
        whole = chains_of(module) != self.chains
        before = _outcomes(again(), self.inputs, whole=True) if whole else self.outcomes
        after = _outcomes(module, self.inputs, whole=whole)
        for (name, case), outcome in before.items():
            try:
                found = first_difference(outcome, after[name, case], loose=None)
            except SignatureError as error:
                raise MiscompileError(
                    f"pass {pass_name} changes what @{name} returns", why=str(error)
                ) from error
            if found is not None:
                raise MiscompileError(
                    f"pass {pass_name} promises the same bits, and changes those of @{name} on "
                    f"{case} inputs",
                    why=str(found),
                )


def _outcomes(module: ModuleOp, inputs: Sequence[GeneratedInputs], *, whole: bool) -> _Outcomes:
    with nullcontext() if whole else single_calls(module):
        return {
            (name, each.case): _run(module, name, each)
            for each in inputs
            for name in each.functions
        }


def _run(module: ModuleOp, name: str, inputs: GeneratedInputs) -> Outcome:
    states = inputs.states(module, name)
    with np.errstate(all="ignore"):
        outputs = run_function(
            module,
            name,
            inputs.arguments(functions_of(module)[name]),
            weights=inputs.weight,
            states=states,
        )
    return Outcome(
        tuple(Ball.exact(output) for output in outputs),
        {key: Ball.exact(np.array(state)) for key, state in states.items()},
    )
