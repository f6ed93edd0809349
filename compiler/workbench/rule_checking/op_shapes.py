"""What must hold between the operands, attributes and results of each op for it to verify.

The shape rules of `dialects/shape_rules` check shapes that are there; here the same rules make
shapes: ranks and element types as a table, sizes as equations between unknowns. A test compares
both: what is made by these verifies.

A row of the table is `field:rank:element` for each operand and result. A rank is a number or a
letter, an element a type or a letter; equal letters are equal. A letter for an element stands for
floats, `?` for any element, `T|f32` for that of T or f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation

from tilewright.compiler.workbench.rule_checking.op_relations import (
    Relate,
    Site,
    relate_attention,
    relate_batch_matmul,
    relate_binary,
    relate_cache_update,
    relate_concat,
    relate_f8a16_matmul,
    relate_gated,
    relate_gather,
    relate_int8_matmul,
    relate_matmul,
    relate_normalization,
    relate_nothing,
    relate_one_scale,
    relate_permute,
    relate_reduce,
    relate_reshape,
    relate_rope,
    relate_same,
    relate_slice,
    relate_tpu_weight,
    relate_w4a16_matmul,
    relate_w8a16_gather,
    relate_w8a16_matmul,
)
from tilewright.compiler.workbench.rule_checking.sizes import ONE
from tilewright.dialects import graph, tpu
from tilewright.dialects.graph.gated import SwiGLU


@dataclass(frozen=True)
class OpShapes:
    """Ranks and elements by field, and the equations between sizes."""

    ranks: dict[str, str]
    elements: dict[str, str]
    relate: Relate
    reshapes: bool = False
    """Whether it is related after all others: its equation has many solutions."""


def _row(text: str, relate: Relate, *, reshapes: bool = False) -> OpShapes:
    fields = [part.split(":") for part in text.split()]
    return OpShapes(
        {field: rank for field, rank, _ in fields},
        {field: element for field, _, element in fields},
        relate,
        reshapes,
    )


_A16_MATMUL = "x:r:T codes:2:i8 scale:2:T|f32 zero:2:i8 bias:1:T result:r:T|f32"

_ROWS: dict[type[Operation], OpShapes] = {
    graph.UnaryGraphOp: _row("x:r:T result:r:T", relate_same),
    graph.ConstGraphOp: _row("x:r:T result:r:T", relate_same),
    graph.Softmax: _row("x:r:T result:r:T", relate_same),
    graph.BinaryGraphOp: _row("a:r:T b:s:T result:r:T", relate_binary),
    graph.MatMul: _row("x:r:T right:2:T bias:1:T result:r:T|f32", relate_matmul),
    tpu.W8A16MatMulOp: _row(_A16_MATMUL, relate_w8a16_matmul),
    tpu.W4A16MatMulOp: _row(_A16_MATMUL, relate_w4a16_matmul),
    tpu.F8A16MatMulOp: _row(_A16_MATMUL, relate_f8a16_matmul),
    tpu.QuantizeOp: _row("x:r:T scale:2:f32 result:r:i8", relate_one_scale),
    tpu.Int8MatMulOp: _row("x:r:i8 codes:2:i8 requant:2:i32 result:r:i8", relate_int8_matmul),
    tpu.DequantizeOp: _row("x:r:i8 scale:2:f32 result:r:T", relate_one_scale),
    graph.BatchMatMul: _row("a:r:T b:r:T result:r:T", relate_batch_matmul),
    graph.RMSNorm: _row("x:r:T weight:1:T result:r:T", relate_normalization),
    graph.LayerNorm: _row("x:r:T weight:1:T bias:1:T result:r:T", relate_normalization),
    graph.Reduce: _row("x:r:T result:r:T", relate_reduce),
    graph.Rope: _row("x:2:T cos:2:f32 sin:2:f32 result:2:T", relate_rope),
    graph.Attention: _row("q:2:T k:2:T v:2:T mask:2:T result:2:T", relate_attention),
    graph.Gather: _row("table:2:T indices:1:i32 result:2:T", relate_gather),
    tpu.W8A16GatherOp: _row(
        "codes:2:i8 scale:2:T|f32 indices:1:i32 result:2:T", relate_w8a16_gather
    ),
    graph.CacheUpdate: _row("cache:2:T rows:2:T positions:1:i32 result:2:T", relate_cache_update),
    graph.Permute: _row("x:r:T result:r:T", relate_permute),
    graph.Slice: _row("x:r:T result:r:T", relate_slice),
    graph.Concat: _row("xs:r:T result:r:T", relate_concat),
    graph.Reshape: _row("x:r:T result:s:T", relate_reshape, reshapes=True),
    graph.Cast: _row("x:r:? result:r:U", relate_same),
    SwiGLU: _row("gate:r:T up:r:T result:r:T", relate_gated),
    graph.Weight: _row("result:r:T", relate_nothing),
    tpu.WeightOp: _row("result:r:T", relate_tpu_weight),
    graph.State: _row("result:2:T", relate_nothing),
}


def register_shapes(op_class: type[Operation], row: str, relate: Relate) -> None:
    """Say how operands and results of ops of a class hang together, so that rules on them can be
    checked: `register_shapes(MyOp, "x:r:T weight:1:T result:r:T", relate)`."""
    _ROWS[op_class] = _row(row, relate)


def shapes_of(op_class: type[IRDLOperation]) -> OpShapes:
    """The row of the class or its nearest base; a guess where there is none."""
    found = next((_ROWS[base] for base in op_class.__mro__ if base in _ROWS), None)
    return _guess(op_class) if found is None else found


def has_shapes(op_class: type[Operation]) -> bool:
    """Whether there is a row for the class or a base of it."""
    return any(base in _ROWS for base in op_class.__mro__)


@cache
def _guess(op_class: type[IRDLOperation]) -> OpShapes:
    """Results are shaped like the first operand; other operands too, or they are vectors of its
    last size, or columns. Of what is made so, what does not verify is left out."""
    definition = op_class.get_irdl_definition()
    first, *others = [name for name, _ in definition.operands] or [""]
    results = [name for name, _ in definition.results]

    def relate(site: Site) -> None:
        if not first:
            return
        shape, sizes = site.shape(first), site.sizes
        for name in results:
            sizes.equal_shapes(site.shape(name), shape)
        for name in others:
            for other in site.every(name):
                fitting = [shape, (*shape[:-1], ONE), shape[-1:]]
                fitting = [each for each in fitting if len(each) == len(other)]
                sizes.equal_shapes(other, sizes.choices.pick(fitting))

    ranks = dict.fromkeys((first, *results), "r")
    ranks.update({name: f"r{at}" for at, name in enumerate(others)})
    elements = dict.fromkeys(ranks, "T")
    return OpShapes(ranks, elements, relate)
