"""Reading and printing IR text with all of Tilewright's dialects."""

from __future__ import annotations

from bisect import bisect_right
from io import StringIO
from math import isfinite
from typing import Literal

from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyFloat,
    Builtin,
    DenseIntOrFPElementsAttr,
    FileLineColLoc,
    IntAttr,
    ModuleOp,
    NameLoc,
    StringAttr,
    UnknownLoc,
)
from xdsl.dialects.func import Func
from xdsl.ir import BlockArgument, Dialect, Operation
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, UnregisteredConstructException, VerifyException

from tilewright.dialects import plugins
from tilewright.dialects.bdc import Bdc
from tilewright.dialects.errors import (
    InternalError,
    IRError,
    ModelReadError,
    TilewrightError,
    UnsupportedError,
)
from tilewright.dialects.gdma import Gdma
from tilewright.dialects.scopes import name_of
from tilewright.dialects.top import Top
from tilewright.dialects.tpu import Tpu

TILEWRIGHT_DIALECTS = (Top, Tpu, Gdma, Bdc)
DIALECT_NAMES = tuple(dialect.name for dialect in TILEWRIGHT_DIALECTS)

_CATALOGUE = "tw ops lists the ops that there are; --load FILE.py adds those of a file"
_DENSE_LIST_LIMIT = 100
"""Up to here xDSL prints a dense constant as numbers; longer ones as bytes, which read back."""


def make_context() -> Context:
    """A context with builtin, func, arith, scf, top, tpu, gdma and bdc.

    The dialects of plugins are loaded when one of their ops or types is met; so are arith and scf,
    whose import takes as long as that of all of ours.
    """
    context = Context()
    for dialect in (Builtin, Func, *TILEWRIGHT_DIALECTS):
        context.load_dialect(dialect)
    context.register_dialect("arith", _arith)
    context.register_dialect("scf", _scf)
    for name in plugins.given("dialects"):
        context.register_dialect(name, lambda name=name: dialect_of_plugin(name))
    return context


def _arith() -> Dialect:
    from xdsl.dialects.arith import Arith

    return Arith


def _scf() -> Dialect:
    from xdsl.dialects.scf import Scf

    return Scf


def dialect_of_plugin(name: str) -> Dialect:
    """The dialect that a plugin gives, with the plugin's modules imported.

    Raises `PluginError` where it cannot be loaded.
    """
    giver = plugins.given("dialects")[name]
    assert giver.plugin is not None
    dialect = plugins.loaded(giver, "dialects", name, Dialect)
    if dialect.name != name:
        raise giver.failure(f"its dialect {name!r}", f"it calls itself {dialect.name!r}")
    plugins.require_modules(giver)
    return dialect


def _unknown(name: str, where: str, why: str) -> UnsupportedError:
    missing = plugins.left_out()
    return UnsupportedError(
        f"{name} has an op or type that there is not",
        where=where,
        why=why if missing is None else f"{why}; {missing}",
        hint=_CATALOGUE,
    )


Places = Literal["given", "missing", "all"]
"""Which ops get their place in the file for a location: none; those without one; all, which keep
their names."""


def parse_module(
    text: str,
    name: str,
    *,
    places: Places = "given",
    allow_unregistered: bool = False,
    implicit_module: bool = True,
) -> ModuleOp:
    """The module that `text` spells; `name` is the file that messages point to.

    Ops of unknown dialects are read if `allow_unregistered`, in their generic form; the text need
    not have a `builtin.module` around it if `implicit_module`.

    Raises `ModelReadError` where the text is not IR, `UnsupportedError` for ops and types that
    there are not, `IRError` where one cannot be built from what the text says. All say the line and
    column. The module is not verified: see `dominance.verify_module`.
    """
    parser: Parser | None = None

    def reached() -> str:
        # Where the parser stood: xDSL gives no position with most errors.
        return _position(name, text, 0 if parser is None else parser.pos)

    try:
        context = make_context()
        context.allow_unregistered = allow_unregistered
        if places == "given":
            parser = Parser(context, text, name)
        else:
            parser = _PlacingParser(context, text, name, keep_given=places == "missing")
        return parser.parse_module(implicit_module)
    except ParseError as error:
        where = _position(name, text, error.span.start)
        if "is not registered" in error.msg:
            raise _unknown(name, where, error.msg) from error
        raise ModelReadError(f"cannot read {name}", where=where, why=error.msg) from error
    except VerifyException as error:
        raise IRError(f"illegal IR in {name}", where=reached(), why=str(error)) from error
    except TilewrightError as error:
        where = error.where or reached()
        raise error.placed(where) from error
    except UnregisteredConstructException as error:
        raise _unknown(name, reached(), str(error)) from error
    except (ValueError, OverflowError, RecursionError) as error:
        # xDSL lets these through for malformed attributes and for text nested without end.
        raise ModelReadError(f"cannot read {name}", where=reached(), why=str(error)) from error


def _position(name: str, text: str, offset: int) -> str:
    before = text[:offset]
    line_start = before.rfind("\n") + 1
    return f"{name}:{before.count(chr(10)) + 1}:{len(before) - line_start + 1}"


class _PlacingParser(Parser):
    """A parser that gives ops their place in the text as a location."""

    def __init__(self, context: Context, text: str, name: str, *, keep_given: bool) -> None:
        super().__init__(context, text, name)
        self._file = StringAttr(name)
        self._line_starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        self._keep_given = keep_given

    def parse_operation(self) -> Operation:
        start = self.pos
        op = super().parse_operation()
        if isinstance(op.location, UnknownLoc):
            op.location = self._place(start)
        elif not self._keep_given:
            given = name_of(op.location)
            place = self._place(start)
            op.location = NameLoc(StringAttr(given), place) if given else place
        return op

    def _place(self, offset: int) -> FileLineColLoc:
        line = bisect_right(self._line_starts, offset)
        column = offset - self._line_starts[line - 1] + 1
        return FileLineColLoc(self._file, IntAttr(line), IntAttr(column))


class _ModulePrinter(Printer):
    """A printer that leaves out locations that say nothing."""

    def print_op(self, op: Operation) -> None:
        outer = self.print_debuginfo
        self.print_debuginfo = not isinstance(op.location, UnknownLoc)
        super().print_op(op)
        self.print_debuginfo = outer

    def print_block_argument(self, arg: BlockArgument, print_type: bool = True) -> None:
        outer = self.print_debuginfo
        self.print_debuginfo = not isinstance(arg.location, UnknownLoc)
        super().print_block_argument(arg, print_type)
        self.print_debuginfo = outer


def print_module(module: ModuleOp, *, locations: bool = True, generic: bool = False) -> str:
    """The text of `module`, ending in a newline; `parse_module` reads the same module back.

    Ops are printed in their own syntax, or in MLIR's `generic` one, which needs no op to be legal.

    Raises `InternalError` for a dense constant with an infinity or NaN, which has no text that
    reads back.
    """
    _require_printable(module)
    stream = StringIO()
    printer = (_ModulePrinter if locations else Printer)(stream, print_generic_format=generic)
    printer.print_op(module)
    return stream.getvalue() + "\n"


def _require_printable(module: ModuleOp) -> None:
    for op in module.walk():
        for attribute in (*op.properties.values(), *op.attributes.values()):
            if isinstance(attribute, DenseIntOrFPElementsAttr) and not _has_text(attribute):
                raise InternalError(
                    f"a dense constant of {op.name} is not finite and has no text",
                    why="xDSL prints infinities and NaN in dense<...> as integers",
                )


def _has_text(attribute: DenseIntOrFPElementsAttr) -> bool:
    if len(attribute) > _DENSE_LIST_LIMIT or not isinstance(attribute.get_element_type(), AnyFloat):
        return True
    return all(isfinite(v) for v in attribute.iter_values() if isinstance(v, float))
