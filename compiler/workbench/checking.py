"""The options of `tw opt` that check passes by running the model, and that keep what fails."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tilewright.compiler.workbench.options import names_of
from tilewright.compiler.workbench.runner import Instrument
from tilewright.compiler.workbench.sources import Source

DEFAULT_FOLDER = "tilewright-reproducers"
NO_REPRODUCERS = "none"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--check-each-pass` and what goes with it."""
    group = parser.add_argument_group("checking passes by running the model")
    group.add_argument(
        "--check-each-pass",
        action="store_true",
        help="run the model on generated inputs before and after each pass; stop at a difference",
    )
    group.add_argument(
        "--check-inputs",
        metavar="CASES",
        default="random",
        help="which inputs: random,zeros,large,one-hot (default: random)",
    )
    group.add_argument(
        "--check-seed", metavar="N", type=int, default=0, help="seed of the inputs (default: 0)"
    )
    group.add_argument(
        "--reproducers",
        "--crash-reproducer",
        "--mlir-pass-pipeline-crash-reproducer",
        metavar="DIR",
        help="write a folder into DIR for a pass that fails, which tw replay shows again; none: "
        f"write nothing (default with --check-each-pass: {DEFAULT_FOLDER})",
    )
    group.add_argument(
        "--run-reproducer", metavar="DIR", help="as tw replay DIR, in place of a run"
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """The check, and what keeps reproducers, if the options ask for them."""
    folder = options.reproducers
    if not options.check_each_pass and folder in (None, NO_REPRODUCERS):
        return []
    # The reference takes a tenth of a second to import.
    from tilewright.compiler.workbench.equivalence import CheckOptions, EquivalenceCheck, cases_of
    from tilewright.compiler.workbench.reproducer import ReproducerWriter

    chosen = CheckOptions(options.check_seed, cases_of(names_of(options.check_inputs)))
    where = None if folder == NO_REPRODUCERS else Path(folder or DEFAULT_FOLDER)
    writer = ReproducerWriter(where, chosen)
    return [EquivalenceCheck(chosen), writer] if options.check_each_pass else [writer]
