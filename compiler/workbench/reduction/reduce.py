"""Delta debugging of a module: the largest cuts first, then ever smaller ones, until none is left.

What is shrunk is the module that the pipeline begins with, as it is there that few ops say much.
Each candidate is verified, and kept if the pipeline fails on it as before. Everything is
deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.bisect import bisect
from tilewright.compiler.workbench.equivalence import CheckOptions
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.reduction.functions import (
    inlined,
    single_functions,
    single_scopes,
)
from tilewright.compiler.workbench.reduction.operations import simplified
from tilewright.compiler.workbench.reduction.shapes import resized
from tilewright.compiler.workbench.reduction.trial import Trial, count_ops
from tilewright.compiler.workbench.reduction.windows import around, windows
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import functions_of

Candidates = Callable[[ModuleOp], Iterator[ModuleOp | None]]


@dataclass(frozen=True)
class Reduction:
    """A smaller module that fails in the same way."""

    module: ModuleOp
    failure: Failure
    """Of the smaller module, with its first bad step where the pass says its steps."""
    ops_before: int
    ops_after: int
    elements_before: int
    """Of all arguments of functions."""
    elements_after: int
    tries: int

    def to_json(self) -> dict[str, object]:
        """The document of `tw reduce --json`, without what was written."""
        return {
            "failure": self.failure.to_json(),
            "ops_before": self.ops_before,
            "ops_after": self.ops_after,
            "elements_before": self.elements_before,
            "elements_after": self.elements_after,
            "tries": self.tries,
        }


def reduce_module(
    module: ModuleOp,
    passes: Sequence[ModulePass],
    options: CheckOptions | None = None,
    *,
    failure: Failure | None = None,
) -> Reduction | None:
    """The smallest module found on which `passes` fail as they do on `module`; None if they do not.

    `failure` is what bisection has found, if it has run already.
    """
    options = options or CheckOptions()
    if failure is None:
        found = bisect(module, passes, options)
        if found is None:
            return None
        failure = found.failure
    trial = Trial(module, passes, failure, options)
    trial.first(around(trial.module, failure.op))
    trial.first(single_functions(trial.module))
    trial.first(single_scopes(trial.module))
    _until_none(trial, inlined)
    _until_none(trial, windows)
    while _until_none(trial, simplified) | _until_none(trial, resized):
        pass
    after = bisect(trial.module, passes[: failure.pass_number], options)
    return Reduction(
        trial.module,
        failure if after is None else after.failure,
        count_ops(module),
        count_ops(trial.module),
        _elements(module),
        _elements(trial.module),
        trial.tries,
    )


def _until_none(trial: Trial, candidates: Candidates) -> bool:
    """Take candidates as long as one fails; whether there was any."""
    any_taken = False
    while trial.first(candidates(trial.module)):
        any_taken = True
    return any_taken


def _elements(module: ModuleOp) -> int:
    return sum(
        prod(shape_of(value))
        for function in functions_of(module).values()
        if "tpu.kernel" not in function.attributes and not function.is_declaration
        for value in function.body.block.args
    )
