"""The command line of `tw opt`: its own options, those of the workbench's modules, and passes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from tilewright.compiler.workbench import (
    checking,
    costs,
    ir_printing,
    statistics,
    timing_tree,
    trace,
)
from tilewright.compiler.workbench.options import OptionGroup
from tilewright.compiler.workbench.pipelines import ELSEWHERE
from tilewright.compiler.workbench.runner import Instrument
from tilewright.compiler.workbench.sources import SPLIT_MARK, Source
from tilewright.dialects.errors import OptionError
from tilewright.dialects.plugins import load_file
from tilewright.passes.registry import PASSES, PIPELINES, pass_names, pipeline_names

GROUPS: tuple[OptionGroup, ...] = (
    ir_printing,
    timing_tree,
    statistics,
    costs,
    trace,
    checking,
)
"""The modules that add options and instruments; their instruments look on in this order."""

_VERIFY_EACH = "--verify-each"
_LOAD = ("--load", "--load-pass-plugin", "--load-dialect-plugin")


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; `pipeline` lists the texts of its pipeline in order.

    Raises `OptionError` for what makes no sense.
    """
    parser = _Parser(
        prog="tw opt",
        usage="tw opt [FILE] [-p PASSES | --PASS[=OPTIONS] ...] [OPTIONS]",
        description="Run passes on IR text and print the result (docs/workbench.md).",
        epilog="Options may have one dash, and mlir- before their name: -mlir-timing.\n"
        "Every pass and named pipeline is an option too: --convert-top-to-tpu='quant=f16' "
        "--kernels.\n\nExample:\n  tw opt model.mlir -p 'compile{chip=bm1688}' --timing",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_own(parser)
    for group in GROUPS:
        group.add_options(parser)
    _load_files(arguments)
    given = {text.partition("=")[0] for text in arguments if text.startswith("-")}
    flags = _add_passes(parser, {f"--{name.lstrip('-')}" for name in given if len(name) > 2})
    known = parser.option_names()
    arguments = [_own_spelling(each, known) for each in arguments]
    # argparse would take the word behind an option with an optional value for its value.
    with_value = [f"{a}=" if a == _VERIFY_EACH or a in flags else a for a in arguments]
    options, rest = parser.parse_known_args(with_value)
    if rest:
        parser.refuse(rest[0])
    return options


def _load_files(arguments: Sequence[str]) -> None:
    """Load the files of `--load`: their passes are options, too."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(*_LOAD, action="append", default=[])
    known, _ = parser.parse_known_args([_own_spelling(each, set(_LOAD)) for each in arguments])
    for name in known.load:
        load_file(name)


def _own_spelling(argument: str, known: set[str]) -> str:
    """An option as it is called here: `--timing` for `-timing`, `--mlir-timing`, `-mlir-timing`."""
    name, equals, value = argument.partition("=")
    bare = name.removeprefix("-").removeprefix("-")
    for own in (name, f"--{bare}", f"--{bare.removeprefix('mlir-')}"):
        if name.startswith("-") and own in known:
            return f"{own}{equals}{value}"
    return argument


def instruments_for(options: argparse.Namespace, source: Source) -> list[Instrument]:
    """What looks on while the pipeline runs on the module of `source`."""
    return [each for group in GROUPS for each in group.instruments_of(options, source)]


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", default="-", help="an IR file; - reads stdin")
    parser.add_argument(
        *("-p", "--passes", "--pass-pipeline"),
        dest="pipeline",
        metavar="PASSES",
        action="append",
        default=[],
        help="'pass{option=value},...'; builtin.module(...) may stand around it",
    )
    parser.add_argument("-o", "--output", default="-", help="where to write; - is stdout")
    pipeline = parser.add_argument_group("the pipeline")
    pipeline.add_argument(
        *_LOAD,
        dest="load",
        metavar="FILE",
        action="append",
        default=[],
        help="use what is in this .py or .rules file, too (docs/plugins.md)",
    )
    pipeline.add_argument(
        "--start-from", metavar="PASS", help="leave out the passes before NAME, NAME:2 or NUMBER"
    )
    pipeline.add_argument(
        "--stop-after", metavar="PASS", help="leave out the passes after NAME, NAME:2 or NUMBER"
    )
    pipeline.add_argument(
        _VERIFY_EACH,
        type=_switch,
        default=True,
        metavar="0|1",
        help="verify after each pass, and that only legal ops remain (default: 1)",
    )
    pipeline.add_argument(
        "--dump-pass-pipeline", action="store_true", help="print the pipeline on stderr"
    )
    files = parser.add_argument_group("the file")
    files.add_argument(
        "--split-input-file",
        action="store_true",
        help=f"it holds several modules, separated by {SPLIT_MARK!r}",
    )
    files.add_argument(
        "--verify-diagnostics",
        action="store_true",
        help="its comments say which errors to expect: // expected-error@+1 {{text}}",
    )
    files.add_argument(
        "--allow-unregistered-dialect", action="store_true", help="it may have unknown ops"
    )
    files.add_argument(
        "--no-implicit-module", action="store_true", help="it begins with its builtin.module"
    )
    ir_printing.add_style_options(parser)
    for name in ("--mlir-disable-threading", "--mlir-print-ir-module-scope"):
        # mlir-opt needs them for IR printing; here it is never otherwise.
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    catalogue = parser.add_argument_group("what there is (printed in place of a run)")
    catalogue.add_argument("--list-passes", action="store_true", help="passes and pipelines")
    catalogue.add_argument("--show-dialects", action="store_true", help="dialects")
    catalogue.add_argument(
        "--print-legality",
        action="store_true",
        help="which ops may remain after each pass of the pipeline, or after every pass",
    )


def _add_passes(parser: _Parser, given: Iterable[str]) -> set[str]:
    """Make options of passes and pipelines; of plugins' too if one may be given."""
    taken = parser.option_names()
    names = [*PASSES, *PIPELINES]
    if any(option not in taken and option[2:] not in names for option in given):
        names = [*pass_names(), *pipeline_names()]
    flags = {f"--{name}" for name in names} - taken
    for flag in sorted(flags):
        parser.add_argument(
            flag, dest="pipeline", action=_AppendPass, default=[], help=argparse.SUPPRESS
        )
    return flags


class _AppendPass(argparse.Action):
    """Puts `--pass='option=value'` behind the passes that stand before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        del parser
        assert option_string is not None
        name = option_string.removeprefix("--")
        text = f"{name}{{{values}}}" if values else name
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), text])


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as everything else of `tw` does."""

    def option_names(self) -> set[str]:
        """The options that it has so far."""
        return set(self._option_string_actions)

    def refuse(self, argument: str) -> NoReturn:
        """Raise `OptionError` for an argument that it does not know."""
        name = argument.partition("=")[0]
        known = self.option_names()
        elsewhere = f"--{ELSEWHERE.get(name.lstrip('-'))}"
        meant = [elsewhere] if elsewhere in known else get_close_matches(name, known, n=1)
        guess = f"did you mean {meant[0]}? " if meant else ""
        raise OptionError(
            f"unexpected argument {argument!r}", hint=f"{guess}tw opt --help lists the options"
        )

    def error(self, message: str) -> NoReturn:
        raise OptionError(message, hint="tw opt --help lists the options")


def _switch(text: str) -> bool:
    values = {"": True, "1": True, "true": True, "0": False, "false": False}
    if text not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 1 nor 0")
    return values[text]
