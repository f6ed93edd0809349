"""What the module costs after each pass, as the time model sees it: a pass's gain is one line.

    tw opt m.mlir -p compile --cost

After each pass a copy of the module is *completed*: converted, tiled, its tiles placed, waits
inserted and commands emitted, as far as that has not been done, and by nothing that is not needed.
So `double-buffer` gains against a module that has been completed without it. Then every launch is
timed as `tw estimate` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.irdl import IRDLOperation
from xdsl.passes import ModulePass

from tilewright.compiler.tables import table_lines
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import Instrument, PassRun, run_pipeline
from tilewright.compiler.workbench.sources import Source
from tilewright.dialects.dominance import KERNEL
from tilewright.dialects.errors import TilewrightError
from tilewright.dialects.levels import level_of
from tilewright.passes.registry import find_pass

if TYPE_CHECKING:
    from tilewright.compiler.performance import ProgramTimes

NEEDED = (
    "convert-top-to-tpu",
    "decompose-composites",
    "tile-for-local-memory",
    "allocate-local-memory",
    "insert-waits",
    "emit-commands",
)
"""The passes without which a module cannot be timed, in order."""
INPUT = "(input)"
KERNELS_ALONE = "each kernel once"
"""What is timed of a module without a function to run."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--cost` and `--cost-with`."""
    group = parser.add_argument_group("what passes gain, on stderr")
    group.add_argument(
        "--cost",
        action="store_true",
        help="cycles, bytes moved and local memory after each pass, by the time model",
    )
    group.add_argument(
        "--cost-with",
        metavar="PASSES",
        default="",
        help="passes whose options complete the module for --cost where the pipeline lacks them, "
        "'compile{quant=f16 chip=bm1688}'",
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """A `Costs` if it is asked for."""
    del source
    chosen = passes_from_text(options.cost_with)
    return (Costs(chosen, as_json=options.report_format == "json"),) if options.cost else ()


@dataclass(frozen=True)
class FunctionCost:
    """One run of a function: its launches, and the bytes that move from and to global memory."""

    name: str
    launches: int
    cycles: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class Cost:
    """What a module costs after a pass; `why_not` says why that is not known."""

    after: str
    functions: tuple[FunctionCost, ...] = ()
    kernels: int = 0
    local_bytes: int = 0
    """Of every lane's local memory, at most."""
    why_not: str = ""

    @property
    def moved_bytes(self) -> int:
        """From and to global memory, by one run of each function."""
        return sum(each.bytes_in + each.bytes_out for each in self.functions)

    def to_json(self) -> dict[str, object]:
        """As `--report-format=json` prints it (docs/json.md)."""
        return asdict(self)


@dataclass
class Costs(Instrument):
    """Completes and times the module before the first pass and after each; prints a table."""

    chosen: Sequence[ModulePass] = ()
    """Passes whose options count where the pipeline lacks them."""
    as_json: bool = False
    rows: list[Cost] = field(default_factory=list[Cost], init=False)
    _passes: dict[str, ModulePass] = field(default_factory=dict[str, ModulePass], init=False)

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        self._passes = completing_passes([*self.chosen, *passes])
        self.rows.append(cost_of(module, INPUT, self._passes))

    def after_pass(self, run: PassRun) -> None:
        self.rows.append(cost_of(run.module, run.name, self._passes))

    def finish(self) -> None:
        if self.as_json:
            document = {"cost": [row.to_json() for row in self.rows]}
            print(json.dumps(document), file=sys.stderr)
        elif self.rows:
            print("\n".join(report(self.rows)), file=sys.stderr)


def completing_passes(chosen: Sequence[ModulePass]) -> dict[str, ModulePass]:
    """The `NEEDED` passes by name: the last of each in `chosen`, or with its defaults; for the chip
    of the last that has one."""
    by_name = {each.name: each for each in chosen}
    chips = [chip for each in chosen if isinstance(chip := getattr(each, "chip", None), str)]
    passes: dict[str, ModulePass] = {}
    for name in NEEDED:
        each = by_name.get(name) or find_pass(name)()
        passes[name] = replace(each, chip=chips[-1]) if chips and hasattr(each, "chip") else each
    return passes


def complete(module: ModuleOp, passes: Mapping[str, ModulePass]) -> None:
    """Run on `module` those of `passes` that it still needs to be timed.

    Raises what they raise for a module that they cannot complete.
    """

    def run(*names: str) -> None:
        run_pipeline(module, [passes[name] for name in names])

    from tilewright.passes.views import needs_kernel

    if any(level_of(op) == "top" for op in module.walk()):
        run("convert-top-to-tpu")
    if any(needs_kernel(op) for op in module.walk()):
        run("decompose-composites", "tile-for-local-memory")
    if _lack(module, "offsets"):
        run("allocate-local-memory", "insert-waits")
    elif _lack(module, "waits"):
        run("insert-waits")
    if any(KERNEL in op.attributes for op in module.ops):
        run("emit-commands")


def _lack(module: ModuleOp, name: str) -> bool:
    """Whether a kernel's command is without a property that its definition has."""
    return any(
        name in op.get_irdl_definition().properties and name not in op.properties
        for op in module.walk()
        if isinstance(op, IRDLOperation) and op.dialect_name() in ("gdma", "bdc")
    )


def cost_of(module: ModuleOp, after: str, passes: Mapping[str, ModulePass]) -> Cost:
    """The cost of a copy of `module`, completed by `passes` (`completing_passes`)."""
    from tilewright.backends.chip import load_chip
    from tilewright.compiler.link import link
    from tilewright.compiler.memory_plan import plan_memory
    from tilewright.compiler.performance import ProgramTimes
    from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

    try:
        tiling = passes["tile-for-local-memory"]
        assert isinstance(tiling, TileForLocalMemoryPass)
        chip = load_chip(tiling.chip)
        completed = module.clone()
        complete(completed, passes)
        plan = plan_memory(completed, chip, check_fit=False)
        times = ProgramTimes(link(completed, plan, chip), chip)
        functions = tuple(
            FunctionCost(each.name, each.launches, each.cycles, each.bytes_in, each.bytes_out)
            for each in times.by_name().values()
        )
        if not functions and times.kernels:
            functions = (_alone(times),)
    except Exception as error:
        # A pass at work on may leave what no other pass expects: that is no reason to stop it.
        return Cost(after, why_not=_one_line(error))
    kernels = times.program.kernels
    local_bytes = max((kernel.local_bytes for kernel in kernels), default=0)
    return Cost(after, functions, len(kernels), local_bytes)


def _alone(times: ProgramTimes) -> FunctionCost:
    kernels = times.kernels
    return FunctionCost(
        KERNELS_ALONE,
        len(kernels),
        sum(kernel.cycles for kernel in kernels),
        sum(kernel.bytes_in for kernel in kernels),
        sum(kernel.bytes_out for kernel in kernels),
    )


def _one_line(error: Exception) -> str:
    if not isinstance(error, TilewrightError):
        return f"{type(error).__name__}: {error}"
    return ": ".join(text for text in (error.what, error.where, error.why) if text)


def report(rows: Sequence[Cost]) -> Iterator[str]:
    """A line a pass: cycles of each function and their change, bytes, local memory, kernels."""
    names = list(dict.fromkeys(each.name for row in rows for each in row.functions))
    columns = ["after"]
    for name in names:
        columns += [f"cycles of {name}", "change"]
    yield from table_lines(
        [*columns, "bytes moved", "change", "local bytes a lane", "kernels"], _cells(rows, names)
    )
    for row in rows:
        if row.why_not:
            yield f"{row.after}: no cost: {row.why_not}"


def _cells(rows: Sequence[Cost], names: Sequence[str]) -> Iterator[list[object]]:
    last: dict[str, int] = {}

    def figures(name: str, value: int | None) -> list[object]:
        """A figure and its change against the last line that has it."""
        if value is None:
            return ["-", "-"]
        before = last.get(name)
        last[name] = value
        if before is None or before == value:
            return [value, "-"]
        return [value, f"{100 * (value - before) / before:+.1f} %" if before else f"{value:+,}"]

    for row in rows:
        by_name = {each.name: each.cycles for each in row.functions}
        cells: list[object] = [row.after]
        for name in names:
            cells += figures(name, by_name.get(name))
        known = not row.why_not
        cells += figures("", row.moved_bytes if known else None)
        yield [*cells, row.local_bytes if known else "-", row.kernels if known else "-"]
