"""Mistakes planted into every pass: `MUTATIONS`, in the order of the passes.

`ONE_FOR_EACH_PASS` is the first of each pass. `mutated(mutation)` plants one while a block runs.
"""

from __future__ import annotations

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

ONE_FOR_EACH_PASS: tuple[Mutation, ...] = tuple(
    next(each for each in MUTATIONS if each.pass_name == name) for name in PASSES
)

__all__ = ["KERNELS", "MODELS", "MOST_OPS", "MUTATIONS", "ONE_FOR_EACH_PASS", "Mutation", "mutated"]
