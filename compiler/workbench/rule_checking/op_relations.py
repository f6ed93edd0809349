"""What must hold between the sizes of the operands, attributes and results of each op.

One function for each family of ops, on a `Site`: what a shape rule of `dialects/shape_rules` checks
is here an equation between unknowns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Protocol

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.sizes import ONE, Shape, Sizes, Term, product
from tilewright.dialects.quantization import is_scheme


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


def relate_same(site: Site) -> None:
    """`result` has the shape of `x`."""
    site.sizes.equal_shapes(site.shape("x"), site.shape("result"))


def relate_binary(site: Site) -> None:
    """`b` is a suffix of `a` after some ones, or `a` with last size 1."""
    a, b, sizes = site.shape("a"), site.shape("b"), site.sizes
    sizes.equal_shapes(a, site.shape("result"))
    if len(b) > len(a):
        raise ConflictError
    if [sizes.resolved(size) for size in a] == [sizes.resolved(size) for size in b]:
        return
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


def relate_matmul(site: Site) -> None:
    """`x[.., k] right[k, n] + bias[n]`, or `right[n, k]` if it is transposed."""
    x, right, bias = site.shape("x"), site.shape("right"), site.optional("bias")
    turned = site.attribute("right_transpose", (False, True))
    cols, depth = right if turned else right[::-1]
    _product(site, x, depth, cols, bias)


def _product(site: Site, x: Shape, depth: Term, cols: Term, bias: Shape | None) -> None:
    site.sizes.equal(x[-1], depth)
    site.sizes.equal_shapes(site.shape("result"), (*x[:-1], cols))
    if bias is not None:
        site.sizes.equal(bias[0], cols)


def relate_w8a16_matmul(site: Site) -> None:
    """`x[.., k] ((codes[n, k] - zero[n, g]) * scale[n, g]) + bias[n]`."""
    _quantized_product(site, site.shape("codes")[1])


def relate_w4a16_matmul(site: Site) -> None:
    """As `relate_w8a16_matmul`, with two codes a byte."""
    _quantized_product(site, site.shape("codes")[1].times(Term(2)))


def relate_f8a16_matmul(site: Site) -> None:
    """As `relate_w8a16_matmul`, without zero points."""
    code_format = site.attribute("format", ("f8e4m3", "f8e5m2"))
    if code_format not in ("f8e4m3", "f8e5m2") or site.optional("zero") is not None:
        raise ConflictError
    _quantized_product(site, site.shape("codes")[1])


def _quantized_product(site: Site, depth: Term) -> None:
    """A column of scales, and of zero points, for each of equal groups of `depth`."""
    sizes, cols, scale = site.sizes, site.shape("codes")[0], site.shape("scale")
    sizes.equal(scale[0], cols)
    sizes.equal(depth, scale[1].times(sizes.fresh()))
    zero = site.optional("zero")
    if zero is not None:
        sizes.equal_shapes(zero, scale)
    _product(site, site.shape("x"), depth, cols, site.optional("bias"))


def relate_int8_matmul(site: Site) -> None:
    """`x[.., k] codes[n, k]`, requantized by the rows of `requant[n, 3]`."""
    codes = site.shape("codes")
    site.sizes.equal_shapes(site.shape("requant"), (codes[0], Term(3)))
    _product(site, site.shape("x"), codes[1], codes[0], None)


def relate_one_scale(site: Site) -> None:
    """`result` has the shape of `x`, and `scale` one element."""
    relate_same(site)
    site.sizes.equal_shapes(site.shape("scale"), (ONE, ONE))


def relate_batch_matmul(site: Site) -> None:
    """`a[.., m, k] b[.., k, n]`, or `b[.., n, k]` if it is transposed."""
    a, b, sizes = site.shape("a"), site.shape("b"), site.sizes
    if len(a) < 3:
        raise ConflictError
    turned = site.attribute("right_transpose", (False, True))
    depth, cols = (b[-1], b[-2]) if turned else (b[-2], b[-1])
    sizes.equal_shapes(a[:-2], b[:-2])
    sizes.equal(a[-1], depth)
    sizes.equal_shapes(site.shape("result"), (*a[:-1], cols))


def relate_normalization(site: Site) -> None:
    """`weight` and `bias`, where they are there, are as long as the rows of `x`."""
    relate_same(site)
    for field in ("weight", "bias"):
        parameter = site.optional(field)
        if parameter is not None:
            site.sizes.equal(parameter[0], site.shape("x")[-1])


def relate_reduce(site: Site) -> None:
    """The last size becomes 1."""
    site.sizes.equal_shapes(site.shape("result"), (*site.shape("x")[:-1], ONE))


def relate_rope(site: Site) -> None:
    """`x[p, heads * width]`, tables `[p, width]`, and an even part of the width that turns."""
    x, sizes, heads = site.shape("x"), site.sizes, site.number("num_heads")
    relate_same(site)
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


def relate_attention(site: Site) -> None:
    """`q[p, heads * width]`, `k` and `v` `[c, kv_heads * width]`, `mask[p, c]`."""
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


def relate_gather(site: Site) -> None:
    """`table[r, w]` by `indices[n]` gives `[n, w]`."""
    table = site.shape("table")
    site.sizes.equal_shapes(site.shape("result"), (site.shape("indices")[0], table[1]))


def relate_w8a16_gather(site: Site) -> None:
    """`codes[r, w] * scale[r, 1]` by `indices[n]` gives `[n, w]`."""
    codes = site.shape("codes")
    site.sizes.equal_shapes(site.shape("scale"), (codes[0], ONE))
    site.sizes.equal_shapes(site.shape("result"), (site.shape("indices")[0], codes[1]))


def relate_cache_update(site: Site) -> None:
    """`rows[n, w]` go into `cache[c, w]` at `positions[n]`; they fit."""
    cache, rows, sizes = site.shape("cache"), site.shape("rows"), site.sizes
    sizes.equal(rows[1], cache[1])
    sizes.equal(site.shape("positions")[0], rows[0])
    sizes.equal_shapes(site.shape("result"), cache)
    sizes.at_most(rows[0], cache[0])


def relate_permute(site: Site) -> None:
    """The sizes of `x` in the order of `order`."""
    x = site.shape("x")
    order = site.attribute("order", list(permutations(range(len(x))))[::-1])
    if not isinstance(order, tuple) or sorted(order) != list(range(len(x))):
        raise ConflictError
    site.sizes.equal_shapes(site.shape("result"), tuple(x[int(axis)] for axis in order))


def relate_slice(site: Site) -> None:
    """A part of `x`, at offsets at which it lies in `x`."""
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


def relate_concat(site: Site) -> None:
    """All parts are of one shape but for `axis`, whose sizes add up."""
    parts, result, sizes = site.every("xs"), site.shape("result"), site.sizes
    axis = site.attribute("axis", range(len(result)))
    if not parts or not isinstance(axis, int) or not 0 <= axis < len(result):
        raise ConflictError
    for part in parts:
        for place, size in enumerate(part):
            if place != axis:
                sizes.equal(size, result[place])
    sizes.equal_sum(result[axis], [part[axis] for part in parts])


def relate_reshape(site: Site) -> None:
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


def relate_gated(site: Site) -> None:
    """`gate`, `up` and `result` have one shape."""
    site.sizes.equal_shapes(site.shape("gate"), site.shape("up"))
    site.sizes.equal_shapes(site.shape("gate"), site.shape("result"))


_HELD = {
    **dict.fromkeys(("codes", "zero"), ("i8",)),
    "requant": ("i32",),
    **dict.fromkeys(("input_scale", "output_scale"), ("f32",)),
}
"""The element types of the forms of a weight; of the others any float."""


def relate_tpu_weight(site: Site) -> None:
    """What each form holds; only a matrix is transposed or quantized, and only what is quantized
    has a scheme."""
    shape, form = site.shape("result"), site.attribute("form", ("dense",))
    turned = site.attribute("transposed", (False,))
    scheme = site.attribute("scheme", (None,))
    site.attribute("bias", (None,))
    if len(shape) != 2 and (turned or form != "dense"):
        raise ConflictError
    if scheme is not None and (form == "dense" or not is_scheme(str(scheme))):
        raise ConflictError
    site.holds("result", *_HELD.get(str(form), ("f32", "f16", "bf16")))
    if form == "requant":
        site.sizes.equal(shape[1], Term(3))
    if form in ("input_scale", "output_scale"):
        site.sizes.equal_shapes(shape, (ONE, ONE))


def relate_nothing(site: Site) -> None:
    """Any sizes."""
    del site
