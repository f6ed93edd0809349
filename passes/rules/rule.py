"""Rules that have been checked: op classes, fields and names are resolved.

A pattern is flat: nested ops have names of their own (`$1`, `$2`, ... which no rule can spell), and
each op says which names stand at its operands. The names of a rule live in one space:

- values: results of matched ops, and what stands at their operands (`Rule.values`);
- attributes captured, sizes bound by `f32[_, n]`, and names from `let`: Python values.

An attribute's value is what `attribute_value` makes of it: a float, int, bool, text, or a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from xdsl.irdl import IRDLOperation

from tilewright.dialects.element_types import ElementType
from tilewright.passes.rules.source import Source
from tilewright.passes.rules.syntax import Call, Constant, Expression, Let, Span, Where


class Presence(Enum):
    """What an operand must be."""

    REQUIRED = auto()
    """There."""
    OPTIONAL = auto()
    """There or not: the name is then bound to None."""
    ABSENT = auto()
    """Not there."""
    ALL = auto()
    """All values of a variadic operand: the name is bound to a tuple."""


@dataclass(frozen=True, slots=True)
class OperandPattern:
    """What stands at an operand of an op: a name, or None where any value may stand."""

    field: str
    field_index: int
    """Among the operand definitions of the op."""
    item: int | None
    """Which value of a variadic operand; None for other operands, and for all of them."""
    presence: Presence
    value: str | None
    span: Span


class AttributeTest(Enum):
    """What a pattern asks of an attribute."""

    CAPTURE = auto()
    """Bind it to a name; another capture of the same name must be equal."""
    EQUALS = auto()
    """It has a value; for an attribute that may be missing None and False say that it is."""
    ANY = auto()
    """Nothing."""


@dataclass(frozen=True, slots=True)
class AttributePattern:
    """What is asked of the property `name`: for CAPTURE `value` is the name to bind."""

    name: str
    """Of a property, or with a dot (`top.role`) of a discardable attribute."""
    test: AttributeTest
    value: Constant | tuple[Constant, ...]
    is_unit: bool
    """Whether being there is all that it says: its value is then True or False."""
    span: Span


@dataclass(frozen=True, slots=True)
class OpPattern:
    """A matched op."""

    op: type[IRDLOperation]
    results: tuple[str, ...]
    """A name for each result."""
    operands: tuple[OperandPattern, ...]
    """In the order of the op's definition, those that must be absent included."""
    variadic_counts: Mapping[str, int]
    """How many values stand at a variadic operand, unless it is taken as a whole."""
    attributes: tuple[AttributePattern, ...]
    """Properties that may be missing are asked to be, where the rule does not speak of them."""
    uses: int | None
    """How many uses all results have together; None for any number."""
    span: Span


@dataclass(frozen=True, slots=True)
class Part:
    """Ops of a pattern that are found from one of them through operands.

    The first part begins at the root; another at an op that is found among the users of a value,
    which stands at its operand `anchor` and belongs to the parts before.
    """

    head: int
    anchor: OperandPattern | None


def parts_of(ops: Sequence[OpPattern], root: int) -> tuple[tuple[Part, ...], frozenset[int]]:
    """The parts of a pattern in the order of search, and the ops that belong to none."""
    producers = {name: index for index, op in enumerate(ops) for name in op.results}
    known: set[str] = set()
    left = set(range(len(ops)))

    def add(index: int) -> None:
        left.discard(index)
        known.update(ops[index].results)
        for operand in ops[index].operands:
            if operand.value is None or operand.presence is Presence.ALL:
                continue
            known.add(operand.value)
            producer = producers.get(operand.value)
            if producer is not None and producer in left:
                add(producer)

    parts = [Part(root, None)]
    add(root)
    while True:
        found = next(
            (
                (index, operand)
                for index in sorted(left)
                for operand in ops[index].operands
                if operand.value in known and operand.presence is Presence.REQUIRED
            ),
            None,
        )
        if found is None:
            return tuple(parts), frozenset(left)
        parts.append(Part(*found))
        add(found[0])


class Origin(Enum):
    """Where a value must come from."""

    WEIGHT = "weight"
    """A `Weight` op."""
    CONSTANT = "constant"
    """Computed from weights and constants alone, by ops without effects."""
    ARGUMENT = "argument"
    """An argument of the function."""
    STATE = "state"
    """A `State` op, or what a `CacheUpdate` has made of one."""


@dataclass(frozen=True, slots=True)
class Dim:
    """One size of a value: any, a number, or a name; `rest` stands for any number of sizes."""

    size: int | None = None
    name: str | None = None
    rest: bool = False


@dataclass(frozen=True, slots=True)
class ValueKind:
    """What a value must be; None asks nothing."""

    origin: Origin | None
    rank: int | None
    element: ElementType | None
    dims: tuple[Dim, ...] | None
    span: Span


@dataclass(frozen=True, slots=True)
class Value:
    """A named value of a pattern."""

    name: str
    presence: Presence
    kinds: tuple[ValueKind, ...]
    """All hold; empty where nothing is asked, or the value is missing."""
    producer: int | None
    """The index among `Rule.ops` of the op that makes it; None for an input of the pattern."""
    span: Span


@dataclass(frozen=True, slots=True)
class BuilderCall:
    """A Python function, or a builtin of lowerings (`codes`, `scale`), that makes values.

    `target` is None for a builtin.
    """

    call: Call
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildArgument:
    """An operand for a constructor: one name, or several for a variadic one; None is absent."""

    keyword: str
    value: str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class TypeOf:
    """`-> like NAME`."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class ExplicitType:
    """`-> f32[2, n]`."""

    element: ElementType
    dims: tuple[Expression, ...]
    span: Span


class Making(Enum):
    """How the constructor of an op takes its operands."""

    BY_NAME = auto()
    """As arguments called like the operands of the definition."""
    IN_ORDER = auto()
    """One after the other, None for those that are missing (as composite ops do)."""
    GENERIC = auto()
    """xDSL's `Op(operands=..., properties=..., result_types=...)`, which infers nothing."""


@dataclass(frozen=True, slots=True)
class OpBuild:
    """A new op: what its constructor is called with."""

    op: type[IRDLOperation]
    results: tuple[str, ...]
    operands: tuple[BuildArgument, ...]
    attributes: tuple[tuple[str, Expression], ...]
    """Further arguments of the constructor; names with a dot are discardable attributes."""
    making: Making
    result_type: TypeOf | ExplicitType | None
    span: Span


@dataclass(frozen=True, slots=True)
class Replacement:
    """What stands in for `targets`: `steps` are done in order.

    Targets are the results of the root, and of those other ops that are replaced with it.
    """

    targets: tuple[str, ...]
    steps: tuple[OpBuild | BuilderCall, ...]
    results: tuple[str, ...]
    """The names that replace `targets`: of steps, or of matched values."""
    span: Span


@dataclass(frozen=True)
class Rule:
    """A checked rule. `options` is None, or what follows `for` in a lowering."""

    name: str
    doc: str
    benefit: int
    options: Mapping[str, Constant] | None
    ops: tuple[OpPattern, ...]
    """In the order of the file; nested ops before those that take them."""
    root: int
    """The index of the root among `ops`."""
    values: Mapping[str, Value]
    clauses: tuple[Where | Let, ...]
    """Conditions and names, in order."""
    replacement: Replacement
    source: Source
    span: Span
    """The whole rule."""

    @property
    def root_op(self) -> OpPattern:
        return self.ops[self.root]

    @property
    def place(self) -> str:
        """`file:line:column`."""
        return self.source.place(self.span)


@dataclass(frozen=True)
class RuleSet:
    """The rules and lowerings of a source, in its order."""

    source: Source
    rules: tuple[Rule, ...]
    lowerings: tuple[Rule, ...]
    functions: Mapping[str, Callable[..., object]]
    """What the source imports."""
