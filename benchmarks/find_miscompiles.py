"""Planted mistakes: by what each is found, to how many ops it is reduced, and in what time.

Each row plants a mutation of tests/compiler/workbench/mutations.py into a pass, runs the pipeline
under the check on a model of 40 to 100 ops, bisects, and reduces the model.
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

LIMIT_S = 60.0
MOST_OPS = 5


def main() -> None:
    """Print the table; the worst row against the limits."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.compiler.workbench.mutations import MODELS, MUTATIONS, mutated

    rows: list[tuple[object, ...]] = []
    slowest, largest = 0.0, 0
    for mutation in MUTATIONS:
        module, passes = MODELS[mutation.model](), passes_from_text(mutation.pipeline)
        start = perf_counter()
        with mutated(mutation):
            found = bisect(module, passes)
            bisected_s = perf_counter() - start
            failure = None if found is None else found.failure
            reduced = reduce_module(module, passes, failure=failure)
        seconds = perf_counter() - start
        if failure is None or reduced is None:
            raise SystemExit(f"{mutation} is not found")
        slowest, largest = max(slowest, seconds), max(largest, reduced.ops_after)
        rows.append(
            (
                mutation.pass_name,
                mutation.name,
                failure.pass_name,
                f"{failure.pattern} {failure.step}/{failure.steps}",
                count_ops(module),
                reduced.ops_after,
                f"{bisected_s:.1f}",
                f"{seconds:.1f}",
            )
        )
    print_table(
        ("pass", "mistake", "found at", "step", "ops", "ops left", "bisected s", "all s"), rows
    )
    report("most ops left", largest, MOST_OPS, "ops")
    report("slowest, found, bisected and reduced", slowest, LIMIT_S, "s")


if __name__ == "__main__":
    main()
