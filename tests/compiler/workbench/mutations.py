"""Mistakes planted into every pass: `MUTATIONS`, in the order of the passes.

`ONE_FOR_EACH_PASS` is the first of each pass but those in `EXEMPT`. `mutated(mutation)` plants one
while a block runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.compiler.workbench.mutation import (
    KERNELS,
    MODELS,
    MOST_OPS,
    Mutation,
    mutated,
)
from tests.compiler.workbench.mutations_of_graph_passes import OF_GRAPH_PASSES
from tests.compiler.workbench.mutations_of_lowerings import OF_LOWERINGS
from tests.compiler.workbench.mutations_of_rules import OF_RULES

from tilewright.passes.registry import PASSES

MUTATIONS: tuple[Mutation, ...] = tuple(
    sorted(
        (*OF_RULES, *OF_GRAPH_PASSES, *OF_LOWERINGS),
        key=lambda mutation: list(PASSES).index(mutation.pass_name),
    )
)

_CHANGES_WEIGHTS = (
    "changes weights by a calibration's data and leaves the module as it is, so the check, which "
    "gives equal weights to the modules before and after, sees nothing"
)

EXEMPT: Mapping[str, tuple[str, str]] = {
    "add-score-function": (
        "adds a function, and the check holds two modules against each other function by function: "
        "one more is an error by itself",
        "tests/passes/test_add_score_function.py",
    ),
    "smooth-quant": (_CHANGES_WEIGHTS, "tests/passes/tuning/test_passes.py"),
    "awq-scale": (_CHANGES_WEIGHTS, "tests/passes/tuning/test_passes.py"),
    "gptq": (_CHANGES_WEIGHTS, "tests/passes/tuning/test_compensated.py"),
}
"""Passes in which the check can find no mistake: why, and the tests that look for them instead."""

ONE_FOR_EACH_PASS: tuple[Mutation, ...] = tuple(
    next(each for each in MUTATIONS if each.pass_name == name)
    for name in PASSES
    if name not in EXEMPT
)

__all__ = [
    "EXEMPT",
    "KERNELS",
    "MODELS",
    "MOST_OPS",
    "MUTATIONS",
    "ONE_FOR_EACH_PASS",
    "Mutation",
    "mutated",
]
