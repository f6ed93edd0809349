"""Smaller sizes: a size of arguments and weights is renamed everywhere, the types of all results
follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import (
    DenseArrayBase,
    FunctionType,
    IntegerAttr,
    ModuleOp,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects import graph, shape_rules, tpu
from tilewright.dialects.graph.base import like
from tilewright.dialects.scopes import functions_of

Shape = tuple[int, ...]
_SMALL_SIZES = (1, 2, 3, 8, 17, 65)
"""Tried in order, before the module's other sizes and the half: the smallest, and some that are no
multiple of a tile."""


def resized(module: ModuleOp) -> Iterator[ModuleOp | None]:
    """The module with one size of its arguments and weights renamed to a smaller one: everywhere,
    or only where it is the last of a tensor's sizes, or only where it is not."""
    if any(isinstance(op, graph.Call | tpu.LaunchOp) for op in module.walk()):
        return
    if any("tpu.kernel" in op.attributes for op in module.ops):
        return
    sizes = sorted(_sizes(module), reverse=True)
    for size in sizes:
        for new in dict.fromkeys((*_SMALL_SIZES, *reversed(sizes), size // 2)):
            if 0 < new < size:
                for where in _WHERE:
                    yield _renamed(module, _Renaming(size, new, where))


@dataclass(frozen=True)
class _Renaming:
    """`old` becomes `new`, in the axes that `where` tells."""

    old: int
    new: int
    where: Callable[[int, int], bool]
    """Given an axis and the rank."""

    def __call__(self, shape: Shape) -> Shape:
        return tuple(
            self.new if size == self.old and self.where(axis, len(shape)) else size
            for axis, size in enumerate(shape)
        )


_WHERE: tuple[Callable[[int, int], bool], ...] = (
    lambda axis, rank: True,
    lambda axis, rank: axis == rank - 1,
    lambda axis, rank: axis < rank - 1,
)


def _sizes(module: ModuleOp) -> set[int]:
    return {
        size
        for function in functions_of(module).values()
        for value in _leaves(function)
        for size in graph.shape_of(value)
    }


def _leaves(function: FuncOp) -> Iterator[SSAValue]:
    yield from function.body.block.args
    for op in function.body.block.ops:
        if isinstance(op, graph.Weight | graph.State):
            yield op.result


def _renamed(module: ModuleOp, renaming: _Renaming) -> ModuleOp | None:
    candidate = module.clone()
    for function in functions_of(candidate).values():
        block = function.body.block
        try:
            for argument in block.args:
                Rewriter.replace_value_with_new_type(argument, _mapped(argument, renaming))
            for op in list(block.ops):
                _retype(op, renaming)
        except VerifyException:
            return None
        last = block.last_op
        assert isinstance(last, ReturnOp)
        function.function_type = FunctionType.from_lists(
            [argument.type for argument in block.args], [v.type for v in last.arguments]
        )
    return candidate


def _mapped(value: SSAValue, renaming: _Renaming) -> Attribute:
    return like(value, renaming(graph.shape_of(value)))


def _retype(op: Operation, renaming: _Renaming) -> None:
    """Give the results of `op` the types that its operands' new ones imply."""
    if isinstance(op, graph.Rope):
        _fit_rope(op)
    if isinstance(op, graph.Attention):
        _fit_attention(op)
    for kind, shape_of_result in _RULES.items():
        if isinstance(op, kind):
            shape = shape_of_result(op, renaming)
            Rewriter.replace_value_with_new_type(op.results[0], like(op.results[0], shape))
            return
    for result in op.results:
        Rewriter.replace_value_with_new_type(result, _mapped(result, renaming))


Rule = Callable[[Operation, _Renaming], Shape]


def _first(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    return graph.shape_of(op.operands[0])


def _fit_rope(op: graph.Rope) -> None:
    """As many heads as the tables' width gives, turned as far as they are wide."""
    width = graph.shape_of(op.cos)[1]
    op.num_heads = IntegerAttr(max(1, graph.shape_of(op.x)[1] // width), i64)
    if op.rotary_dim.value.data > width:
        op.rotary_dim = IntegerAttr(max(2, width - width % 2), i64)


def _fit_attention(op: graph.Attention) -> None:
    """As many heads as keys of the same width give; one, where queries are as wide as keys."""
    queries, keys = graph.shape_of(op.q)[1], graph.shape_of(op.k)[1]
    groups = op.num_kv_heads.value.data
    if keys % groups:
        groups = 1
    width = keys // groups
    op.num_kv_heads = IntegerAttr(groups, i64)
    op.num_heads = IntegerAttr(max(1, queries // width), i64)


def _matmul(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    x, right = (graph.shape_of(operand) for operand in op.operands[:2])
    quantized = isinstance(op, tpu.A16MatMul | tpu.Int8MatMulOp)
    by_rows = quantized or "right_transpose" in op.properties
    return (*x[:-1], right[-2] if by_rows else right[-1])


def _rows(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    return (graph.shape_of(op.operands[-1])[0], graph.shape_of(op.operands[0])[1])


def _reduced(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    return shape_rules.reduce(graph.shape_of(op.operands[0]))


def _permuted(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    assert isinstance(op, graph.Permute)
    return shape_rules.permute(graph.shape_of(op.x), op.order.get_values())


def _joined(op: Operation, renaming: _Renaming) -> Shape:
    del renaming
    assert isinstance(op, graph.Concat)
    return shape_rules.concat([graph.shape_of(x) for x in op.xs], op.axis.value.data)


def _sliced(op: Operation, renaming: _Renaming) -> Shape:
    """Sizes are renamed; what lies outside of the operand now moves to its end."""
    assert isinstance(op, graph.Slice)
    available = graph.shape_of(op.x)
    sizes = tuple(
        min(size, limit)
        for size, limit in zip(renaming(graph.shape_of(op.result)), available, strict=True)
    )
    offsets = [
        max(0, min(offset, limit - size))
        for offset, size, limit in zip(op.offsets.get_values(), sizes, available, strict=True)
    ]
    op.offsets = DenseArrayBase.from_list(i64, offsets)
    return sizes


def _reshaped(op: Operation, renaming: _Renaming) -> Shape:
    """Sizes are renamed; where that gives another number of elements, one size makes up for it."""
    shape = renaming(graph.shape_of(op.results[0]))
    count = prod(graph.shape_of(op.operands[0]))
    if prod(shape) == count:
        return shape
    for axis in range(len(shape)):
        others = prod(shape[:axis]) * prod(shape[axis + 1 :])
        if count % others == 0:
            return (*shape[:axis], count // others, *shape[axis + 1 :])
    raise VerifyException("no such reshape")


_RULES: dict[type[Operation], Rule] = {
    graph.MatMul: _matmul,
    tpu.A16MatMul: _matmul,
    tpu.Int8MatMulOp: _matmul,
    tpu.QuantizeOp: _first,
    tpu.DequantizeOp: _first,
    graph.BatchMatMul: _matmul,
    graph.Gather: _rows,
    tpu.W8A16GatherOp: _rows,
    graph.Reduce: _reduced,
    graph.Permute: _permuted,
    graph.Concat: _joined,
    graph.Slice: _sliced,
    graph.Reshape: _reshaped,
    graph.UnaryGraphOp: _first,
    graph.BinaryGraphOp: _first,
    graph.ConstGraphOp: _first,
    graph.RMSNorm: _first,
    graph.LayerNorm: _first,
    graph.Softmax: _first,
    graph.Rope: _first,
    graph.Attention: _first,
    graph.CacheUpdate: _first,
    graph.Cast: _first,
}
"""The shape of the result of each op of the graph. Others have their results' sizes renamed."""
