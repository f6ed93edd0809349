"""Checks which operands of an op are given, in `match` and in `replace`."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.irdl import OpDef, OptOperandDef, VarOperandDef

from tilewright.passes.rules import syntax
from tilewright.passes.rules.scope import Scope, did_you_mean


def assign_operands(
    scope: Scope, call: syntax.OpCall, definition: OpDef
) -> dict[str, list[syntax.Operand]]:
    """Which operands stand for which field; notes those that are missing or too many."""
    kinds = dict(definition.operands)
    positional = [name for name, kind in kinds.items() if not isinstance(kind, OptOperandDef)]
    given: dict[str, list[syntax.Operand]] = {}
    extra: list[syntax.Operand] = []
    place = 0
    for operand in call.operands:
        if operand.field is not None:
            name = operand.field.text
            if name not in kinds:
                has = f"it has {', '.join(kinds)}" if kinds else "it has none"
                scope.problem(
                    f"{call.op.text} has no operand {name}",
                    operand.field.span,
                    did_you_mean(name, kinds) or has,
                )
                continue
            if name in given:
                scope.problem(f"{name} is there twice", operand.span)
            given[name] = [operand]
        elif place < len(positional):
            name = positional[place]
            given.setdefault(name, []).append(operand)
            if not isinstance(kinds[name], VarOperandDef):
                place += 1
        else:
            extra.append(operand)
    missing = [
        name
        for name in positional
        if name not in given and not isinstance(kinds[name], VarOperandDef)
    ]
    if extra:
        optional = [name for name in kinds if name not in positional]
        scope.problem(
            f"{call.op.text} has {_count(positional)}, not {len(positional) + len(extra)}",
            extra[0].span,
            f"{optional[0]} is given by name: {optional[0]} = b" if optional else None,
        )
    elif missing:
        scope.problem(
            f"{call.op.text} has {_count(positional)}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            call.span,
        )
    return given


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} operand" + ("s" if len(names) != 1 else "")
