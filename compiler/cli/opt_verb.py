"""`tw opt`: passes on IR text, as mlir-opt and xdsl-opt run them."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    PassFailedException,
    VerifyException,
)

from tilewright.compiler.cli.output import log
from tilewright.compiler.output import storage_errors, write_atomically
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import (
    InternalError,
    IRError,
    ModelReadError,
    OptionError,
    TilewrightError,
)
from tilewright.dialects.scopes import where_of
from tilewright.passes.registry import find_pass

SPLIT_MARK = "// -----"
_SPLIT_LINE = re.compile(rf"^{SPLIT_MARK}[ \t]*$", re.MULTILINE)


def run_opt(arguments: Sequence[str]) -> int:
    """Run `tw opt` with its own arguments; returns the exit code.

    Prints nothing unless every pass succeeds on every module.
    """
    options = _parser().parse_args(arguments)
    passes = passes_from_text(options.passes)
    text = _read(options.input)
    chunks = split_modules(text) if options.split_input_file else [text]
    folders = _folders(options.print_after_each, len(chunks))
    printed = [
        _run_on(chunk, passes, options, folder)
        for chunk, folder in zip(chunks, folders, strict=True)
    ]
    result = f"{SPLIT_MARK}\n".join(printed)
    if options.output == "-":
        sys.stdout.write(result)
    else:
        write_atomically(options.output, result)
    return 0


def split_modules(text: str) -> list[str]:
    """The modules between lines `// -----`, each behind as many empty lines as precede it in
    `text`, so that messages name its lines."""
    chunks: list[str] = []
    begin = 0
    for mark in _SPLIT_LINE.finditer(text):
        chunks.append("\n" * text.count("\n", 0, begin) + text[begin : mark.start()])
        begin = mark.end()
    return [*chunks, "\n" * text.count("\n", 0, begin) + text[begin:]]


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
        pass_class = find_pass(spec.name)
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
        epilog="Example:\n  tw opt model.mlir -p 'convert-top-to-tpu{quant=w8a16},"
        "tile-for-local-memory'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="?", default="-", help="an IR file; - reads stdin")
    parser.add_argument(
        "-p", "--passes", default="", help="'pass{option=value},...' (tw passes lists them)"
    )
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    parser.add_argument(
        "--print-after-each",
        metavar="DIR",
        help="write the IR after each pass to numbered files; those before a failure stay",
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
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelReadError("the IR cannot be read", where=name, why=why) from error


def _folders(parent: str | None, count: int) -> list[Path | None]:
    """Where each module's IR goes: modules of a split file get folders of their own."""
    if parent is None:
        return [None] * count
    folders = [Path(parent)] if count == 1 else [Path(parent, f"{i + 1:02d}") for i in range(count)]
    for folder in folders:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return list(folders)


def _run_on(
    text: str, passes: Sequence[ModulePass], options: argparse.Namespace, folder: Path | None
) -> str:
    module = parse_module(text, "<stdin>" if options.input == "-" else options.input)
    verify_module(module)
    context = make_context()
    last_good = f"the IR before the pass is in {options.input}"
    for number, each in enumerate(passes, start=1):
        start = perf_counter()
        _apply(each, context, module, last_good if folder else None)
        if options.time_passes:
            log(f"{each.name}: {perf_counter() - start:.4f} s")
        if folder is not None:
            path = folder / f"{number:02d}-{each.name}.mlir"
            write_atomically(path, print_module(module, locations=options.print_debuginfo))
            last_good = f"the IR before the pass is in {path}"
    return print_module(module, locations=options.print_debuginfo)


def _apply(each: ModulePass, context: Context, module: ModuleOp, last_good: str | None) -> None:
    """Apply a pass and verify; every failure is a `TilewrightError` that names the pass."""
    try:
        each.apply(context, module)
        verify_module(module)
    except TilewrightError as error:
        where = ", in ".join(text for text in (error.where, f"pass {each.name}") if text)
        hint = "; ".join(text for text in (error.hint, last_good) if text)
        raise type(error)(error.what, where=where, why=error.why, hint=hint) from error
    except Exception as error:
        legal = isinstance(error, VerifyException | PassFailedException | DiagnosticException)
        raise (IRError if legal else InternalError)(
            f"pass {each.name} failed",
            where=_op_of(error),
            why=f"{type(error).__name__}: {error}",
            hint=last_good or "--print-after-each DIR keeps the IR before the pass",
        ) from error


def _op_of(error: BaseException) -> str | None:
    """The op that the innermost function with a variable `op` was at when it raised."""
    found: str | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        op = frame.f_locals.get("op")
        if isinstance(op, Operation):
            found = where_of(op)
    return found
