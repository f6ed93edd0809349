"""Conditions as equations: what they say of sizes and types is made true, the rest is tested."""

from __future__ import annotations

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.compiler.workbench.rule_checking.expressions import (
    UnknownError,
    evaluate,
    known,
)
from tilewright.passes.rules.syntax import Binary, Expression


def require(draft: Draft, condition: Expression) -> None:
    """Make a condition hold, as far as it speaks of sizes and types; the rest is kept."""
    match condition:
        case Binary("and", left, right):
            require(draft, left)
            require(draft, right)
        case Binary("or", left, right):
            require(draft, draft.choices.pick((left, right)))
        case _:
            try:
                _make_true(draft, condition)
            except UnknownError:
                draft.later.append(condition)


def _make_true(draft: Draft, condition: Expression) -> None:
    match condition:
        case Binary("==", left, right):
            draft.equate(evaluate(left, draft), evaluate(right, draft))
        case Binary("in", left, right):
            options = evaluate(right, draft)
            if not isinstance(options, tuple):
                raise ConflictError
            draft.equate(evaluate(left, draft), draft.choices.pick(options))
        case _:
            if not known(evaluate(condition, draft)):
                raise ConflictError


def check_conditions(draft: Draft) -> None:
    """Those kept that have a value by now must hold."""
    for condition in draft.later:
        try:
            if not known(evaluate(condition, draft)):
                raise ConflictError
        except UnknownError:
            continue  # of attributes not chosen yet; of uses, as the rule itself will see
