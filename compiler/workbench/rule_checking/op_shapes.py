"""What must hold between the operands, attributes and results of each op for it to verify.

The shape rules of `dialects/shape_rules` check shapes that are there; here the same rules make
shapes: ranks and element types as a table, sizes as equations between unknowns. A test compares
both: what is made by these verifies.

A row of the table is `field:rank:element` for each operand and result. A rank is a number or a
letter, an element a type or a letter; equal letters are equal. A letter for an element stands for
floats, `?` for any element, `T|f32` for that of T or f32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Protocol

from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.sizes import ONE, Shape, Sizes, Term, product
from tilewright.dialects import graph, tpu
from tilewright.dialects.graph.gated import SwiGLU


class Site(Protocol):
    """One op of a pattern while an instance of it is made."""

    sizes: Sizes

    def shape(self, field: str) -> Shape:
        """The unknown sizes of an operand or result that is there."""
        ...

    def optional(self, field: str) -> Shape | None:
        """Those of an optional operand; None where it is absent."""
        ...

    def every(self, field: str) -> list[Shape]:
        """Those of each value of a variadic operand."""
        ...

    def attribute(self, name: str, options: Sequence[object]) -> object:
        """Choose an attribute's value, unless the pattern says what it is."""
        ...

    def holds(self, field: str, *elements: str) -> None:
        """The tensor holds one of the element types."""
        ...

    def number(self, name: str) -> Term:
        """A whole-number attribute as an unknown."""
        ...

    def later(
        self,
        name: str,
        choose: Callable[[Callable[[Sequence[int]], int]], object],
        holds: Callable[[object], bool],
    ) -> None:
        """An attribute that is chosen when all sizes are known: `choose(pick)` makes a value,
        `holds(value)` judges one that the pattern gives."""
        ...


Relate = Callable[[Site], None]


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


def _same(site: Site) -> None:
    site.sizes.equal_shapes(site.shape("x"), site.shape("result"))


def _binary(site: Site) -> None:
    """`b` is a suffix of `a` after some ones, or `a` with last size 1."""
    a, b, sizes = site.shape("a"), site.shape("b"), site.sizes
    sizes.equal_shapes(a, site.shape("result"))
    if len(b) > len(a):
        raise ConflictError
    ones = list(range(len(b) + 1))
    column = [-1] if len(a) == len(b) and a else []
    leading = sizes.choices.pick([0, *column, *ones[1:]])
    if leading < 0:
        sizes.equal_shapes(b, (*a[:-1], ONE))
        return
    for size in b[:leading]:
        sizes.equal(size, ONE)
    kept = b[leading:]
    sizes.equal_shapes(kept, a[len(a) - len(kept) :])


def _matmul(site: Site) -> None:
    x, right, bias = site.shape("x"), site.shape("right"), site.optional("bias")
    turned = site.attribute("right_transpose", (False, True))
    cols, depth = right if turned else right[::-1]
    _product(site, x, depth, cols, bias)


def _product(site: Site, x: Shape, depth: Term, cols: Term, bias: Shape | None) -> None:
    site.sizes.equal(x[-1], depth)
    site.sizes.equal_shapes(site.shape("result"), (*x[:-1], cols))
    if bias is not None:
        site.sizes.equal(bias[0], cols)


def _w8a16_matmul(site: Site) -> None:
    cols, depth = site.shape("codes")
    site.sizes.equal_shapes(site.shape("scale"), (cols, ONE))
    _product(site, site.shape("x"), depth, cols, site.optional("bias"))


def _batch_matmul(site: Site) -> None:
    a, b, sizes = site.shape("a"), site.shape("b"), site.sizes
    if len(a) < 3:
        raise ConflictError
    turned = site.attribute("right_transpose", (False, True))
    depth, cols = (b[-1], b[-2]) if turned else (b[-2], b[-1])
    sizes.equal_shapes(a[:-2], b[:-2])
    sizes.equal(a[-1], depth)
    sizes.equal_shapes(site.shape("result"), (*a[:-1], cols))


def _normalization(site: Site) -> None:
    _same(site)
    for field in ("weight", "bias"):
        parameter = site.optional(field)
        if parameter is not None:
            site.sizes.equal(parameter[0], site.shape("x")[-1])


def _reduce(site: Site) -> None:
    site.sizes.equal_shapes(site.shape("result"), (*site.shape("x")[:-1], ONE))


def _rope(site: Site) -> None:
    x, sizes, heads = site.shape("x"), site.sizes, site.number("num_heads")
    _same(site)
    width = sizes.fresh()
    sizes.equal(x[1], heads.times(width))
    for table in ("cos", "sin"):
        sizes.equal_shapes(site.shape(table), (x[0], width))
    sizes.at_most(Term(2), width)
    site.later(
        "rotary_dim",
        lambda pick: pick(range(2, sizes.value(width) + 1, 2)),
        lambda value: value in range(2, sizes.value(width) + 1, 2),
    )


def _attention(site: Site) -> None:
    q, k, sizes = site.shape("q"), site.shape("k"), site.sizes
    heads, groups = site.number("num_heads"), site.number("num_kv_heads")
    width = sizes.fresh()
    sizes.equal(heads, groups.times(sizes.fresh()))
    sizes.equal(q[1], heads.times(width))
    sizes.equal(k[1], groups.times(width))
    sizes.equal_shapes(site.shape("v"), k)
    sizes.equal_shapes(site.shape("result"), q)
    mask = site.optional("mask")
    if mask is not None:
        sizes.equal_shapes(mask, (q[0], k[0]))


def _gather(site: Site) -> None:
    table = site.shape("table")
    site.sizes.equal_shapes(site.shape("result"), (site.shape("indices")[0], table[1]))


def _w8a16_gather(site: Site) -> None:
    codes = site.shape("codes")
    site.sizes.equal_shapes(site.shape("scale"), (codes[0], ONE))
    site.sizes.equal_shapes(site.shape("result"), (site.shape("indices")[0], codes[1]))


def _cache_update(site: Site) -> None:
    cache, rows, sizes = site.shape("cache"), site.shape("rows"), site.sizes
    sizes.equal(rows[1], cache[1])
    sizes.equal(site.shape("positions")[0], rows[0])
    sizes.equal_shapes(site.shape("result"), cache)
    sizes.at_most(rows[0], cache[0])


def _permute(site: Site) -> None:
    x = site.shape("x")
    order = site.attribute("order", list(permutations(range(len(x))))[::-1])
    if not isinstance(order, tuple) or sorted(order) != list(range(len(x))):
        raise ConflictError
    site.sizes.equal_shapes(site.shape("result"), tuple(x[int(axis)] for axis in order))


def _slice(site: Site) -> None:
    x, result, sizes = site.shape("x"), site.shape("result"), site.sizes

    def limits() -> list[int]:
        return [sizes.value(a) - sizes.value(b) for a, b in zip(x, result, strict=True)]

    def holds(value: object) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == len(x)
            and all(0 <= int(o) <= most for o, most in zip(value, limits(), strict=True))
        )

    for part, whole in zip(result, x, strict=True):
        sizes.at_most(part, whole)
    site.later("offsets", lambda pick: tuple(pick(range(most + 1)) for most in limits()), holds)


def _concat(site: Site) -> None:
    parts, result, sizes = site.every("xs"), site.shape("result"), site.sizes
    axis = site.attribute("axis", range(len(result)))
    if not parts or not isinstance(axis, int) or not 0 <= axis < len(result):
        raise ConflictError
    for part in parts:
        for place, size in enumerate(part):
            if place != axis:
                sizes.equal(size, result[place])
    sizes.equal_sum(result[axis], [part[axis] for part in parts])


def _reshape(site: Site) -> None:
    """Either whole shapes have one product, or neighbouring sizes are joined and split."""
    x, result, sizes = site.shape("x"), site.shape("result"), site.sizes
    if sizes.choices.pick(("groups", "products")) == "products":
        sizes.equal(product(x), product(result))
        return
    while x and result:
        cuts = [(1, j) for j in range(1, len(result) + 1)] + [(i, 1) for i in range(2, len(x) + 1)]
        i, j = sizes.choices.pick(cuts)
        sizes.equal(product(x[:i]), product(result[:j]))
        x, result = x[i:], result[j:]
    for size in (*x, *result):
        sizes.equal(size, ONE)


def _gated(site: Site) -> None:
    site.sizes.equal_shapes(site.shape("gate"), site.shape("up"))
    site.sizes.equal_shapes(site.shape("gate"), site.shape("result"))


def _tpu_weight(site: Site) -> None:
    shape, form = site.shape("result"), site.attribute("form", ("dense",))
    turned = site.attribute("transposed", (False,))
    if len(shape) != 2 and (turned or form != "dense"):
        raise ConflictError
    site.holds("result", *(("i8",) if form == "codes" else ("f32", "f16", "bf16")))
    if form == "scale":
        site.sizes.equal(shape[1], ONE)


def _nothing(site: Site) -> None:
    del site


_ROWS: dict[type[Operation], OpShapes] = {
    graph.UnaryGraphOp: _row("x:r:T result:r:T", _same),
    graph.ConstGraphOp: _row("x:r:T result:r:T", _same),
    graph.Softmax: _row("x:r:T result:r:T", _same),
    graph.BinaryGraphOp: _row("a:r:T b:s:T result:r:T", _binary),
    graph.MatMul: _row("x:r:T right:2:T bias:1:T result:r:T|f32", _matmul),
    tpu.W8A16MatMulOp: _row(
        "x:r:T codes:2:i8 scale:2:T|f32 bias:1:T result:r:T|f32", _w8a16_matmul
    ),
    graph.BatchMatMul: _row("a:r:T b:r:T result:r:T", _batch_matmul),
    graph.RMSNorm: _row("x:r:T weight:1:T result:r:T", _normalization),
    graph.LayerNorm: _row("x:r:T weight:1:T bias:1:T result:r:T", _normalization),
    graph.Reduce: _row("x:r:T result:r:T", _reduce),
    graph.Rope: _row("x:2:T cos:2:f32 sin:2:f32 result:2:T", _rope),
    graph.Attention: _row("q:2:T k:2:T v:2:T mask:2:T result:2:T", _attention),
    graph.Gather: _row("table:2:T indices:1:i32 result:2:T", _gather),
    tpu.W8A16GatherOp: _row("codes:2:i8 scale:2:T|f32 indices:1:i32 result:2:T", _w8a16_gather),
    graph.CacheUpdate: _row("cache:2:T rows:2:T positions:1:i32 result:2:T", _cache_update),
    graph.Permute: _row("x:r:T result:r:T", _permute),
    graph.Slice: _row("x:r:T result:r:T", _slice),
    graph.Concat: _row("xs:r:T result:r:T", _concat),
    graph.Reshape: _row("x:r:T result:s:T", _reshape, reshapes=True),
    graph.Cast: _row("x:r:? result:r:U", _same),
    SwiGLU: _row("gate:r:T up:r:T result:r:T", _gated),
    graph.Weight: _row("result:r:T", _nothing),
    tpu.WeightOp: _row("result:r:T", _tpu_weight),
    graph.State: _row("result:2:T", _nothing),
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
