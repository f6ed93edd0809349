"""Stacks of equal layers as one call: a chain in which each call takes the results of the one
before.

`layers.0`, `layers.1`, ... are traced as a call each; once the function is complete, and it is
known that nothing else reads the results in between, the calls become a single `top.Call` with all
their scopes. So the IR of 280 layers is that of one.
"""

from __future__ import annotations

from xdsl.ir import Block

from tilewright.dialects import top


def join_chains(block: Block) -> None:
    """Replace every run of chained calls of one function by one call with all their scopes."""
    run: list[top.CallOp] = []
    for op in list(block.ops):
        if isinstance(op, top.CallOp) and run and _continues(run[-1], op):
            run.append(op)
        else:
            _join(run)
            run = [op] if isinstance(op, top.CallOp) else []
    _join(run)


def _continues(before: top.CallOp, op: top.CallOp) -> bool:
    """Whether `op` calls the same function on the results of `before`, which nothing else reads."""
    count = len(before.outputs)
    handed_on, kept = list(op.operands)[:count], list(op.operands)[count:]
    return (
        count > 0
        and op.callee == before.callee
        and handed_on == list(before.outputs)
        and kept == list(before.operands)[count:]
        and all(value.has_one_use() for value in before.outputs)
    )


def _join(run: list[top.CallOp]) -> None:
    if len(run) < 2:
        return
    first, last = run[0], run[-1]
    block = first.parent_block()
    assert block is not None
    joined = top.CallOp(
        first.callee.string_value(),
        list(first.operands),
        list(first.outputs.types),
        scopes=[scope for op in run for scope in op.scope_names],
    )
    joined.location = first.location
    block.insert_op_before(joined, first)
    for old, new in zip(last.outputs, joined.outputs, strict=True):
        old.replace_all_uses_with(new)
    for op in reversed(run):
        op.detach()
        op.erase()
