"""Planted mistakes: by what each is found, to how many ops it is reduced, and in what time.

Each row plants a mutation of tests/compiler/workbench/mutations.py into a pass, runs the pipeline
under the check on a model of 40 to 100 ops, bisects, and reduces the model. A rule that matches
more than five ops, as those of attention and RoPE, cannot be shown by fewer: such rows say how many
it matches, and count for no pass.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

from timing import report

from tilewright.compiler.cli.output import print_table
from tilewright.compiler.workbench.bisect import bisect
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.reduction import reduce_module
from tilewright.compiler.workbench.reduction.trial import count_ops
from tilewright.passes.registry import PASSES

LIMIT_S = 60.0
LEAST_PASSES = 20


def main() -> None:
    """Print the table; the worst row against the limits."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.compiler.workbench.mutations import MODELS, MOST_OPS, MUTATIONS, mutated

    rows: list[tuple[object, ...]] = []
    passes_found: set[str] = set()
    slowest = 0.0
    for mutation in MUTATIONS:
        module, passes = MODELS[mutation.model](), passes_from_text(mutation.pipeline)
        start = perf_counter()
        with mutated(mutation):
            found = bisect(module, passes)
            bisected_s = perf_counter() - start
            if found is None:
                raise SystemExit(f"{mutation}: not found")
            failure = found.failure
            reduced = reduce_module(module, passes, failure=failure)
        seconds = perf_counter() - start
        if (failure.pass_name, failure.pattern) != (mutation.pass_name, mutation.pattern):
            raise SystemExit(f"{mutation}: found at {failure.pass_name}, {failure.pattern}")
        if reduced is None or reduced.ops_after > mutation.most_ops:
            raise SystemExit(f"{mutation}: not reduced to {mutation.most_ops} ops")
        if reduced.ops_after <= MOST_OPS:
            passes_found.add(mutation.pass_name)
        slowest = max(slowest, seconds)
        rows.append(
            (
                mutation.pass_name,
                mutation.name,
                f"{failure.pattern} {failure.step}/{failure.steps}",
                f"{count_ops(module)} -> {reduced.ops_after}",
                mutation.most_ops,
                f"{bisected_s:.1f}",
                f"{seconds:.1f}",
                f"{LIMIT_S:.0f}",
            )
        )
    heads = ("pass", "mistake", "bisected to", "ops", "at most", "bisected s", "all s", "limit s")
    print_table(heads, rows)
    print(f"{len(passes_found)} of {len(PASSES)} passes have a mistake reduced to {MOST_OPS} ops")
    report("passes without one", len(PASSES) - len(passes_found), len(PASSES) - LEAST_PASSES)
    report("slowest, found, bisected and reduced", slowest, LIMIT_S, "s")


if __name__ == "__main__":
    main()
