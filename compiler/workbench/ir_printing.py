"""Prints the IR around passes: on stderr, or into a folder with what each pass has changed.

    tw opt m.mlir -p ... --print-ir-after=changed --print-ir-tree-dir=stages

writes `stages/01-convert-top-to-tpu.mlir`, the IR after the first pass, and
`stages/01-convert-top-to-tpu.diff`, a unified diff against the IR before it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.options import names_of
from tilewright.compiler.workbench.pipelines import require_names
from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.compiler.workbench.sources import Source
from tilewright.dialects.context import print_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import TilewrightError

ALL, CHANGED = "all", "changed"
_CONSTANT = re.compile(
    r'(?P<kind>dense|records)<(?:"(?:0x)?(?P<digits>[0-9a-fA-F]+)"|\[(?P<numbers>[^>]*)\])>'
)
CONTEXT_LINES = 3
"""Equal lines around each change of a diff."""


@dataclass(frozen=True)
class Style:
    """How IR is printed."""

    locations: bool = False
    generic: bool = False
    verified: bool = True
    """Whether modules are known to be legal where they are printed."""
    elide_larger: int | None = None
    """Constants and records of more elements or bytes are left out."""

    def text(self, module: ModuleOp, *, verified: bool | None = None) -> str:
        """The text of a module; of an illegal one in the generic form, which asks for nothing."""
        generic = self.generic
        if not (self.verified if verified is None else verified):
            generic = generic or not _is_legal(module)
        text = print_module(module, locations=self.locations, generic=generic)
        return text if self.elide_larger is None else elide(text, self.elide_larger)


def elide(text: str, limit: int) -> str:
    """IR text without its dense constants of more than `limit` elements (of hexadecimal ones:
    bytes) and its records of more bytes."""

    def shorter(at: re.Match[str]) -> str:
        digits, numbers = at["digits"], at["numbers"]
        size = len(digits) // 2 if digits is not None else numbers.count(",") + 1
        return f"{at['kind']}<__elided__>" if size > limit else at[0]

    return _CONSTANT.sub(shorter, text)


def _is_legal(module: ModuleOp) -> bool:
    try:
        verify_module(module)
    except TilewrightError:
        return False
    return True


def add_style_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how IR is printed, wherever it is."""
    parser.add_argument(
        "--print-debuginfo",
        action="store_true",
        help="print locations (model names and lines)",
    )
    parser.add_argument(
        "--print-op-generic",
        action="store_true",
        help="print ops in MLIR's generic form",
    )
    parser.add_argument(
        "--elide-constants-larger",
        "--mlir-elide-elementsattrs-if-larger",
        metavar="N",
        type=int,
        help="print constants of more than N elements, and records of more bytes, as __elided__ "
        "(such text cannot be read back)",
    )


def style_of(options: argparse.Namespace) -> Style:
    """What `add_style_options` was given."""
    return Style(
        options.print_debuginfo,
        options.print_op_generic,
        options.verify_each,
        options.elide_constants_larger,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--print-ir-...`."""
    group = parser.add_argument_group("printing the IR around passes")

    def flag(name: str, text: str) -> None:
        group.add_argument(f"--{name}", action="store_true", help=text)

    def value(name: str, metavar: str, text: str) -> None:
        group.add_argument(f"--{name}", metavar=metavar, action="append", default=[], help=text)

    value("print-ir-before", "NAMES", "the IR before these passes: NAME,NAME or all")
    flag("print-ir-before-all", "the IR before every pass")
    value("print-ir-after", "NAMES", "the IR after these passes: NAME,NAME or all or changed")
    flag("print-ir-after-all", "the IR after every pass")
    flag("print-ir-after-change", "the IR after passes that have changed it")
    flag("print-ir-after-failure", "the IR as a pass that fails leaves it")
    group.add_argument(
        "--print-ir-tree-dir",
        metavar="DIR",
        help="write it to numbered files in DIR, with diffs, and not to stderr; "
        "alone: after every pass",
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """An `IrPrinting` if any of the options is given."""
    before = _names(options.print_ir_before)
    after = _names(options.print_ir_after)
    require_names(before - {ALL}, "--print-ir-before")
    require_names(after - {ALL, CHANGED}, "--print-ir-after")
    folder = options.print_ir_tree_dir
    before_all = options.print_ir_before_all or ALL in before
    only_changed = options.print_ir_after_change or CHANGED in after
    named = after - {ALL, CHANGED}
    after_all = options.print_ir_after_all or ALL in after or (only_changed and not named)
    failure = options.print_ir_after_failure
    if not (before_all or before or after_all or named or failure):
        if folder is None:
            return ()
        after_all = True
    return (
        IrPrinting(
            Selection(before_all, before),
            Selection(after_all, named),
            only_changed=only_changed,
            after_failure=failure,
            folder=None if folder is None else source.folder(folder),
            input_name=source.name,
            style=style_of(options),
        ),
    )


def _names(lists: Iterable[str]) -> frozenset[str]:
    return frozenset(name for text in lists for name in names_of(text))


@dataclass(frozen=True)
class Selection:
    """Some passes, or all."""

    every: bool = False
    names: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        return self.every or name in self.names


@dataclass
class IrPrinting(Instrument):
    """Prints the IR before and after the passes that are selected."""

    before: Selection = Selection()
    after: Selection = Selection()
    only_changed: bool = False
    after_failure: bool = False
    folder: Path | None = None
    """Where files go; none: to stderr."""
    input_name: str = "the input"
    style: Style = Style()
    _text: str | None = field(default=None, init=False)
    """The module as it is, where that has been printed already."""
    _before: str = field(default="", init=False)
    _written: tuple[str, str] = field(default=("", ""), init=False)
    """The text that was written last, and its file."""
    _file_before: str | None = field(default=None, init=False)
    """The file that holds the IR before the pass that runs."""

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        del passes
        if self.folder is not None:
            self._text = self.style.text(module)
            self._written = self._text, self.input_name

    def before_pass(self, run: PassRun) -> None:
        compared = run.name in self.after and (self.folder is not None or self.only_changed)
        if compared or run.name in self.before:
            self._before = self._now(run.module)
        text, file = self._written
        self._file_before = file if file and text == self._text else None
        if run.name in self.before:
            self._write(run, "before", self._before)

    def after_pass(self, run: PassRun) -> None:
        self._text = None
        if run.name not in self.after:
            return
        text = self._now(run.module)
        if self.only_changed and text == self._before:
            return
        self._write(run, "after", text)
        if self.folder is not None:
            diff = diff_of(self._before, text, "before", f"after {run.name}")
            write_atomically(self.folder / f"{_stem(run)}.diff", diff)

    def pass_failed(self, run: PassRun, error: Exception) -> None:
        del error
        if self.after_failure:
            self._write(run, "failed", self.style.text(run.module, verified=False))

    def kept(self) -> str | None:
        return self._file_before and f"the IR before the pass is in {self._file_before}"

    def _now(self, module: ModuleOp) -> str:
        if self._text is None:
            self._text = self.style.text(module)
        return self._text

    def _write(self, run: PassRun, when: str, text: str) -> None:
        if self.folder is None:
            said = {"before": "Before", "after": "After", "failed": "After failure of"}[when]
            print(f"// -----// IR Dump {said} {run.name} //----- //\n{text}", file=sys.stderr)
            return
        path = self.folder / (
            f"{_stem(run)}.mlir" if when == "after" else f"{_stem(run)}.{when}.mlir"
        )
        write_atomically(path, text)
        self._written = text, str(path)


def _stem(run: PassRun) -> str:
    return f"{run.number:02d}-{run.name}"


def diff_of(before: str, after: str, before_name: str, after_name: str) -> str:
    """A unified diff of two texts; empty where they are equal."""
    lines = unified_diff(
        before.splitlines(), after.splitlines(), before_name, after_name, "", "", CONTEXT_LINES, ""
    )
    return "".join(f"{line}\n" for line in lines)
