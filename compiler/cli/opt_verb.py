"""`tw opt`: passes on IR text, as mlir-opt and xdsl-opt run them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from tilewright.compiler.cli.output import log
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import ModelReadError, OptionError
from tilewright.passes.registry import PASSES

SPLIT_MARK = "// -----"


def run_opt(arguments: Sequence[str]) -> int:
    """Run `tw opt` with its own arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    passes = passes_from_text(options.passes)
    text = _read(options.input)
    chunks = text.split(SPLIT_MARK) if options.split_input_file else [text]
    printed = [_run_on(chunk, passes, options) for chunk in chunks]
    result = f"\n{SPLIT_MARK}\n".join(printed) + "\n"
    if options.output == "-":
        sys.stdout.write(result)
    else:
        Path(options.output).write_text(result)
    return 0


def passes_from_text(pipeline: str) -> list[ModulePass]:
    """The passes that `'pass{option=value},...'` names.

    Raises `OptionError` for an unknown pass or option, naming the known ones.
    """
    if not pipeline:
        return []
    try:
        specs = list(parse_pipeline(pipeline))
    except ArgSpecParseError as error:
        raise OptionError(
            "the pass pipeline cannot be parsed", where=pipeline, why=str(error).strip()
        ) from error
    passes: list[ModulePass] = []
    for spec in specs:
        if spec.name not in PASSES:
            raise OptionError(
                f"unknown pass {spec.name!r}", hint=f"one of {', '.join(sorted(PASSES))}"
            )
        pass_class = PASSES[spec.name]()
        try:
            passes.append(pass_class.from_spec(spec))
        except (ValueError, TypeError) as error:
            known = [field.replace("_", "-") for field in pass_class.__dataclass_fields__]
            raise OptionError(
                f"wrong option for pass {spec.name!r}",
                why=str(error),
                hint=f"its options: {', '.join(k for k in known if k != 'name') or 'none'}",
            ) from error
    return passes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tw opt",
        description="Run passes on IR text and print the result.",
        epilog="Example: tw opt model.mlir -p 'convert-top-to-tpu{quant=w8a16},"
        "tile-for-local-memory' --print-after-each stages/",
    )
    parser.add_argument("input", nargs="?", default="-", help="an IR file; - reads stdin")
    parser.add_argument(
        "-p", "--passes", default="", help="'pass{option=value},...' (tw passes lists them)"
    )
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument(
        "--print-after-each", metavar="DIR", help="write the IR after each pass to numbered files"
    )
    parser.add_argument("--time-passes", action="store_true", help="seconds a pass, on stderr")
    parser.add_argument(
        "--print-debuginfo", action="store_true", help="print locations (model names and lines)"
    )
    parser.add_argument(
        "--split-input-file",
        action="store_true",
        help=f"the input holds several modules, separated by {SPLIT_MARK!r}",
    )
    return parser


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    path = Path(name)
    if not path.is_file():
        raise ModelReadError(f"no such file: {name}")
    return path.read_text()


def _run_on(text: str, passes: Sequence[ModulePass], options: argparse.Namespace) -> str:
    module = parse_module(text, options.input)
    verify_module(module)
    context = make_context()
    for number, each in enumerate(passes, start=1):
        start = perf_counter()
        each.apply(context, module)
        seconds = perf_counter() - start
        verify_module(module)
        if options.time_passes:
            log(f"{each.name}: {seconds:.4f} s")
        if options.print_after_each:
            folder = Path(options.print_after_each)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{number:02d}-{each.name}.mlir"
            path.write_text(print_module(module, locations=options.print_debuginfo) + "\n")
    return print_module(module, locations=options.print_debuginfo)
