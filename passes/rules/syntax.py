"""Rules as they are written: names, numbers and places, before anybody has asked what they mean.

`parser` makes these nodes, `checking` turns them into the rules of `rule`. Expressions are the same
before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a source: lines and columns from 1, the end is one column past the last."""

    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, last: Span) -> Span:
        """From the beginning of this one to the end of `last`."""
        return Span(self.line, self.column, last.end_line, last.end_column)


@dataclass(frozen=True, slots=True)
class Word:
    """A name, and where it stands."""

    text: str
    span: Span


Constant = int | float | str | bool | None
"""What a literal can be."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a text, `true`, `false` or `none`."""

    value: Constant
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    """What is bound to a name."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """`not x`, `-x`."""

    operator: str
    operand: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """`and or == != < <= > >= in + - * / %`, between two expressions."""

    operator: str
    left: Expression
    right: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """A builtin function or one imported from Python, which is then `target`."""

    function: Word
    arguments: tuple[Expression, ...]
    span: Span
    target: Callable[..., object] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """`[a, b]`: a tuple."""

    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Index:
    """`a[i]`."""

    value: Expression
    index: Expression
    span: Span


Expression = Literal | Name | Unary | Binary | Call | Listing | Index


@dataclass(frozen=True, slots=True)
class Kind:
    """A word of what a value must be: `weight`, `rank`, `2`, `i8`, `f32[_, n]`."""

    word: str
    dims: tuple[Expression | None, ...] | None
    """`None` stands for `...`."""
    span: Span


@dataclass(frozen=True, slots=True)
class Binder:
    """A value by its name: `x`, `_`, `b?`, `xs...`, `w: weight rank 2`."""

    name: Word
    suffix: str
    """`?`, `...` or nothing."""
    kinds: tuple[Kind, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Absent:
    """`none` in the place of an operand."""

    span: Span


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of an op; `field` where it is given by name."""

    field: Word | None
    value: Binder | OpCall | Call | Absent
    span: Span


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name: expression` in braces; without an expression it is `true`."""

    name: Word
    value: Expression


@dataclass(frozen=True, slots=True)
class ResultType:
    """`-> like y` or `-> f32[2, n]`."""

    like: Word | None
    element: Word | None
    dims: tuple[Expression | None, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class OpCall:
    """An op, in `match` or in `replace`."""

    op: Word
    operands: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    uses: Word | None
    result_type: ResultType | None
    span: Span


@dataclass(frozen=True, slots=True)
class Statement:
    """`a, b = op`, or an op alone; `root` where it is marked."""

    root: Word | None
    names: tuple[Word, ...]
    op: OpCall
    span: Span


@dataclass(frozen=True, slots=True)
class Where:
    """A condition."""

    condition: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Let:
    """A name for an expression."""

    name: Word
    value: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Replace:
    """What stands in for `targets`: statements and names, or values alone."""

    targets: tuple[Word, ...]
    statements: tuple[Statement, ...]
    values: tuple[Binder | OpCall | Call | Absent, ...]
    """Of `replace y with ...`, or the names on the last line of a block."""
    span: Span


@dataclass(frozen=True, slots=True)
class RuleSyntax:
    """A rule, or a lowering where `options` is not None."""

    name: Word
    doc: str
    benefit: int
    options: tuple[tuple[Word, Constant], ...] | None
    match: tuple[Statement, ...]
    clauses: tuple[Where | Let, ...]
    replace: Replace
    span: Span


@dataclass(frozen=True, slots=True)
class Use:
    """Names imported from a Python module."""

    module: Word
    names: tuple[Word, ...]


@dataclass
class FileSyntax:
    """All that a source holds, in its order."""

    uses: list[Use] = field(default_factory=list[Use])
    rules: list[RuleSyntax] = field(default_factory=list[RuleSyntax])
