"""Index arithmetic of a kernel: known values, and copies of it for another iteration of a loop."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import arith, func
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from tilewright.passes.kernels.expansion import INDEX_OPS, evaluate

_INDEX = IndexType()


def known(value: SSAValue) -> int | None:
    """The value of a constant, else none."""
    op = value.owner
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
        return op.value.value.data
    return None


class Constants:
    """The index constants of a kernel, each defined once, at its head."""

    def __init__(self, kernel: func.FuncOp) -> None:
        self._block = kernel.body.block
        self._values: dict[int, SSAValue] = {}
        self._last: Operation | None = None
        for op in self._block.ops:
            if isinstance(op, arith.ConstantOp) and isinstance(op.result.type, IndexType):
                value = known(op.result)
                if value is not None and self._is_head(op):
                    self._values.setdefault(value, op.result)
                    self._last = op

    def _is_head(self, op: Operation) -> bool:
        return op.prev_op is None or op.prev_op is self._last

    def get(self, value: int) -> SSAValue:
        """The constant `value`."""
        if value not in self._values:
            op = arith.ConstantOp.from_int_and_width(value, _INDEX)
            op.result.name_hint = f"c{value}" if value >= 0 else None
            if self._last is not None:
                self._block.insert_op_after(op, self._last)
            elif self._block.first_op is not None:
                self._block.insert_op_before(op, self._block.first_op)
            else:
                self._block.add_op(op)
            self._last = op
            self._values[value] = op.result
        return self._values[value]


def folded(
    op: Operation, values: Mapping[SSAValue, SSAValue], constants: Constants
) -> SSAValue | None:
    """The constant that index arithmetic becomes once its operands are replaced by `values`."""
    if not isinstance(op, INDEX_OPS):
        return None
    left, right = (known(values.get(operand, operand)) for operand in op.operands)
    if left is None or right is None:
        return None
    return constants.get(evaluate(op, left, right))


def is_movable(value: SSAValue, body: Block) -> bool:
    """Whether `value` is known when an iteration of `body` begins, or follows by arithmetic."""
    op = value.owner
    if isinstance(op, Block) or op.parent_block() is not body:
        return True
    return isinstance(op, (*INDEX_OPS, arith.ConstantOp)) and all(
        is_movable(operand, body) for operand in op.operands
    )


def is_known_ahead(value: SSAValue, body: Block) -> bool:
    """Whether `value`, as it will be in the next iteration of `body`, is known in this one."""
    return is_movable(value, body) and all(
        is_movable(operand, body) for operand in _carried(value, body)
    )


def _carried(value: SSAValue, body: Block) -> list[SSAValue]:
    """What `body` yields for those of its carried values that `value` is computed from."""
    op = value.owner
    if isinstance(op, Block):
        if op is not body or not isinstance(value, BlockArgument) or value.index == 0:
            return []
        assert body.last_op is not None
        return [body.last_op.operands[value.index - 1]]
    if op.parent_block() is not body:
        return []
    return [found for operand in op.operands for found in _carried(operand, body)]


def copy(
    value: SSAValue,
    body: Block,
    values: dict[SSAValue, SSAValue],
    constants: Constants,
    point: InsertPoint,
) -> SSAValue:
    """`value`, which is movable, computed anew before `point` with the replacements in `values`."""
    if value in values:
        return values[value]
    op = value.owner
    if isinstance(op, Block) or op.parent_block() is not body:
        return value
    for operand in op.operands:
        copy(operand, body, values, constants, point)
    constant = folded(op, values, constants)
    if constant is None:
        clone = op.clone(values)
        Rewriter.insert_op(clone, point)
        constant = clone.results[0]
    values[value] = constant
    return constant
