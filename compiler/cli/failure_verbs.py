"""`tw replay`, `tw bisect` and `tw reduce`: a failure of a pass seen again, located, made small."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.cli.output import log, print_json
from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.bisect import Bisection, bisect
from tilewright.compiler.workbench.checking import NO_REPRODUCERS
from tilewright.compiler.workbench.equivalence import CheckOptions, module_before
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.pipelines import passes_from_text, pipeline_text
from tilewright.compiler.workbench.reduction import Reduction, reduce_module
from tilewright.compiler.workbench.replay import replay
from tilewright.compiler.workbench.reproducer import Reproducer
from tilewright.compiler.workbench.sources import read_sources
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import OptionError


def run_replay(folder: Path, *, json: bool) -> int:
    """Say whether a reproducer still fails; its exit code if it does, 0 if not."""
    result = replay(folder)
    for note in result.notes:
        log(f"note: {note}")
    if json:
        print_json(result.to_json())
    elif result.reproduced:
        print(f"reproduced: {_failure_text(result.expected)}")
        print(result.found.message if result.found is not None else "")
    elif result.found is not None:
        print(f"not reproduced: {_failure_text(result.expected)}")
        print(f"it fails in another way: {_failure_text(result.found)}\n{result.found.message}")
    else:
        print(f"not reproduced: {_failure_text(result.expected)}")
    return result.expected.exit_code if result.reproduced else 0


def run_bisect(target: Path, pipeline: str, *, json: bool) -> None:
    """Print the first bad pass and its first bad step."""
    case = _case(target, pipeline)
    found = bisect(case.module, case.passes, case.options)
    if found is None:
        raise _nothing_fails(case)
    if json:
        print_json(found.to_json())
    else:
        print(_bisection_text(found))


def run_reduce(target: Path, pipeline: str, output: str, reproducers: str, *, json: bool) -> None:
    """Write the smallest module found that fails in the same way, and a reproducer of it."""
    case = _case(target, pipeline)
    found = reduce_module(case.module, case.passes, case.options)
    if found is None:
        raise _nothing_fails(case)
    written = ""
    if reproducers != NO_REPRODUCERS:
        written = str(_reproducer(found, case).write(Path(reproducers)))
    if output != "-":
        write_atomically(output, print_module(found.module))
    if json:
        print_json({**found.to_json(), "output": output, "reproducer": written})
        return
    log(
        f"{found.ops_before} ops became {found.ops_after}, {found.elements_before:,} elements of "
        f"arguments {found.elements_after:,}, in {found.tries} tries"
    )
    log(f"it still fails: {_failure_text(found.failure)}")
    if written:
        log(f"tw replay {written} shows it")
    if output == "-":
        sys.stdout.write(print_module(found.module))


@dataclass(frozen=True)
class _Case:
    """What a reproducer, or an IR file and a pipeline, say."""

    name: str
    module: ModuleOp
    passes: tuple[ModulePass, ...]
    options: CheckOptions


def _case(target: Path, pipeline: str) -> _Case:
    if target.is_dir():
        reproducer = Reproducer.read(target)
        passes = passes_from_text(pipeline) if pipeline else reproducer.passes
        return _Case(str(target), reproducer.input, tuple(passes), reproducer.options)
    if not pipeline:
        raise OptionError(
            "there is no pipeline", hint="tw bisect FILE.mlir -p 'pass{option=value},...'"
        )
    (source,) = read_sources(str(target))
    module = parse_module(source.text, source.name, places="missing")
    verify_module(module)
    return _Case(source.name, module, tuple(passes_from_text(pipeline)), CheckOptions())


def _nothing_fails(case: _Case) -> OptionError:
    return OptionError(
        "nothing fails", where=case.name, why=f"no pass of {pipeline_text(case.passes)} does"
    )


def _reproducer(found: Reduction, case: _Case) -> Reproducer:
    before = module_before(found.module, case.passes, found.failure.pass_number)
    return Reproducer(found.failure, found.module, before, case.passes, case.options)


def _failure_text(failure: Failure) -> str:
    text = f"{failure.kind} in pass {failure.pass_name}"
    if failure.pattern:
        text += f", pattern {failure.pattern}"
    return f"{text}, at {failure.op}" if failure.op else text


def _bisection_text(found: Bisection) -> str:
    failure, step = found.failure, found.step
    lines = [f"first bad pass: {failure.pass_name} (pass {failure.pass_number})", failure.message]
    if step is None:
        lines.append(
            f"no single one of its {found.steps} steps is at fault"
            if found.steps
            else "the pass does not say its steps (passes/actions.py)"
        )
        return "\n".join(lines)
    lines += [
        f"first bad step: {step.pattern}, step {step.number} of {found.steps}, found in "
        f"{found.runs} runs",
        f"at {step.op}",
        f"before:\n{step.before}",
        f"after:\n{step.after or '(it did not come to an end)'}",
    ]
    return "\n".join(lines)
