"""Lowerings as rules to check: applied by `convert-top-to-tpu`, with all others there.

A lowering written in Python says only which ops it is for. Its pattern is then one such op, with
any operands, attributes and role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation, OptOperandDef, OptPropertyDef, VarOperandDef

from tilewright.compiler.workbench.rule_checking.op_shapes import has_shapes
from tilewright.dialects import graph, top
from tilewright.dialects.context import make_context
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.lowerings import (
    ConversionOptions,
    Lowering,
    registered_lowerings,
    temporarily,
)
from tilewright.passes.lowerings.conversion import ROLE_ATTRIBUTE
from tilewright.passes.rules.rule import (
    AttributePattern,
    AttributeTest,
    OperandPattern,
    OpPattern,
    Presence,
    Replacement,
    Rule,
    Value,
)
from tilewright.passes.rules.scope import SEGMENTS, property_class
from tilewright.passes.rules.source import Source
from tilewright.passes.rules.syntax import Constant, Span

_SPAN = Span(1, 1, 1, 1)


class _Steps(Watcher):
    """Remembers which lowerings were applied."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begin(self, pattern: str, op: Operation) -> bool:
        self.names.append(pattern)
        return True


def lower(
    module: ModuleOp, options: ConversionOptions, lowerings: Sequence[Lowering] = ()
) -> list[str]:
    """Convert `module`, with `lowerings` registered; the names of those that were applied."""
    steps = _Steps()
    convert = ConvertTopToTpuPass(
        options.quant, options.act, options.quant_head, options.quant_embedding
    )
    with temporarily(*lowerings), watching(steps):
        convert.apply(make_context(), module)
    return steps.names


def rules_for(lowering: Lowering) -> Iterator[Rule]:
    """A rule for each op that a lowering in Python is for: the op alone."""
    for op in top.Top.operations:
        if not issubclass(op, IRDLOperation) or issubclass(op, graph.Weight | graph.State):
            continue
        nearest = min(_distance(op, each) for each in registered_lowerings())
        is_asked = issubclass(op, lowering.op_class) and _distance(op, lowering) == nearest
        if is_asked and has_shapes(op):
            yield rule_on(
                op,
                lowering.name,
                options={name: values[0] for name, values in lowering.options.items()},
                doc=lowering.documentation,
                benefit=lowering.benefit,
                origin=lowering.origin,
            )


def _distance(op: type[Operation], lowering: Lowering) -> int:
    """How far above `op` the class is that a lowering is for: the nearest are asked first."""
    bases = op.__mro__
    return bases.index(lowering.op_class) if lowering.op_class in bases else len(bases)


def rule_on(
    op: type[IRDLOperation],
    name: str,
    *,
    options: Mapping[str, Constant] | None = None,
    doc: str = "",
    benefit: int = 1,
    origin: str = "",
) -> Rule:
    """A rule whose pattern is one op with any operands and attributes; it replaces nothing."""
    definition = op.get_irdl_definition()
    values: dict[str, Value] = {}
    operands: list[OperandPattern] = []
    for index, (field, kind) in enumerate(definition.operands):
        presence = Presence.REQUIRED
        if isinstance(kind, OptOperandDef):
            presence = Presence.OPTIONAL
        elif isinstance(kind, VarOperandDef):
            presence = Presence.ALL
        values[field] = Value(field, presence, (), None, _SPAN)
        operands.append(OperandPattern(field, index, None, presence, field, _SPAN))
    attributes = [
        AttributePattern(
            each, AttributeTest.ANY, None, property_class(definition, each) is UnitAttr, _SPAN
        )
        for each, kind in definition.properties.items()
        if isinstance(kind, OptPropertyDef) and each not in SEGMENTS
    ]
    attributes.append(AttributePattern(ROLE_ATTRIBUTE, AttributeTest.ANY, None, False, _SPAN))
    results = tuple(f"${each}" for each, _ in definition.results)
    values |= {each: Value(each, Presence.REQUIRED, (), 0, _SPAN) for each in results}
    pattern = OpPattern(op, results, tuple(operands), {}, tuple(attributes), None, _SPAN)
    nothing = Replacement(results, (), (), _SPAN)
    source = Source(origin, "")
    return Rule(name, doc, benefit, options, (pattern,), 0, values, (), nothing, source, _SPAN)
