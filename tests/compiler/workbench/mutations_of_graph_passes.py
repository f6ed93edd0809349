"""Mistakes in the passes over the graph that are written in Python."""

from __future__ import annotations

from typing import Any

from tests.compiler.workbench.mutation import GRAPH, Function, Mutation
from xdsl.ir import Operation, SSAValue

# inline-calls


def _one_scope_for_all(body: Function) -> Function:
    """Every layer has the weights of the first."""
    scopes: list[str] = []

    def wrong(callee: Any, operands: Any, scope: str) -> Any:
        scopes.append(scope)
        return body(callee, operands, "first.")

    return wrong


def _first_arguments_again(body: Function) -> Function:
    """Every layer is given what the first was given."""
    given: dict[str, list[SSAValue]] = {}

    def wrong(callee: Any, operands: Any, scope: str) -> Any:
        first: Any = operands if scope == "first." else given.get("first.", operands)
        given[scope] = first
        return body(callee, first, scope)

    return wrong


# eliminate-common-subexpressions


def _ignore_attributes(content: Function) -> Function:
    def wrong(op: Operation) -> Any:
        name, operands, _, _, types = content(op)
        return name, operands, frozenset[object](), frozenset[object](), types

    return wrong


def _ignore_the_order_of_operands(content: Function) -> Function:
    def wrong(op: Operation) -> Any:
        name, operands, *rest = content(op)
        return name, frozenset(operands), *rest

    return wrong


# eliminate-dead-ops


def _forget_effects(is_dead: Function) -> Function:
    def wrong(op: Operation) -> bool:
        unread = bool(op.results) and all(result.first_use is None for result in op.results)
        return is_dead(op) or unread

    return wrong


# decompose-composites


def _swap_the_operands(decompose: Function) -> Function:
    def wrong(op: Operation) -> Any:
        op.operands = list(reversed(op.operands))
        return decompose(op)

    return wrong


OF_GRAPH_PASSES: tuple[Mutation, ...] = (
    Mutation(
        "inline-calls",
        "InlineCall",
        "reads every layer's weights under one scope",
        "passes.inline_calls",
        "_body",
        _one_scope_for_all,
        model="spelled out",
        pipeline=GRAPH,
    ),
    Mutation(
        "inline-calls",
        "InlineCall",
        "gives every layer what the first was given",
        "passes.inline_calls",
        "_body",
        _first_arguments_again,
        model="spelled out",
        pipeline=GRAPH,
    ),
    Mutation(
        "eliminate-common-subexpressions",
        "ReuseEqualOp",
        "does not look at attributes",
        "passes.eliminate_common_subexpressions",
        "_content",
        _ignore_attributes,
        model="spelled out",
        pipeline=GRAPH,
    ),
    Mutation(
        "eliminate-common-subexpressions",
        "ReuseEqualOp",
        "takes operands in any order",
        "passes.eliminate_common_subexpressions",
        "_content",
        _ignore_the_order_of_operands,
        model="spelled out",
        pipeline=GRAPH,
    ),
    Mutation(
        "eliminate-dead-ops",
        "EraseDeadOp",
        "erases updates of states",
        "passes.eliminate_dead_ops",
        "_is_dead",
        _forget_effects,
        model="spelled out",
        pipeline=GRAPH,
    ),
    Mutation(
        "decompose-composites",
        "DecomposeComposite",
        "takes the operands in reverse",
        "passes.decompose_composites",
        "_decompose",
        _swap_the_operands,
        model="mixture",
    ),
)
