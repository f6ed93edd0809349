"""The shape of each op's result, from the shapes of its operands.

Pure functions over tuples of sizes, shared by the constructors and the verifiers of `top` and
`tpu`. Each raises `VerifyException` with one sentence that says which sizes disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.quantization import CodeFormat

Shape = tuple[int, ...]


def text(shape: Sequence[int]) -> str:
    """A shape as messages spell it: `[512, 4096]`."""
    return str(list(shape))


def require(condition: bool, message: str) -> None:
    """Raise `VerifyException(message)` unless `condition` holds."""
    if not condition:
        raise VerifyException(message)


def require_rank(name: str, shape: Shape, rank: int) -> None:
    """The tensor called `name` has exactly `rank` dimensions."""
    require(len(shape) == rank, f"{name} has rank {rank}, not {len(shape)}")


def require_shape(name: str, shape: Shape, expected: Shape) -> None:
    """The tensor called `name` has the shape `expected`."""
    require(shape == expected, f"{name} is {text(expected)}, not {text(shape)}")


def last_dim(name: str, shape: Shape) -> int:
    """The size of the last axis of the tensor called `name`."""
    require(len(shape) > 0, f"{name} has at least one dimension")
    return shape[-1]


def matmul(x: Shape, right: Shape, bias: Shape | None, *, right_transpose: bool) -> Shape:
    """`[..., K]` times `[K, N]` (or `[N, K]`) plus `[N]`."""
    depth = last_dim("x", x)
    require_rank("right", right, 2)
    right_depth, cols = (right[1], right[0]) if right_transpose else (right[0], right[1])
    require(depth == right_depth, f"x has depth {depth}, right has depth {right_depth}")
    if bias is not None:
        require_shape("bias", bias, (cols,))
    return (*x[:-1], cols)


def a16_matmul(
    x: Shape,
    codes: Shape,
    scale: Shape,
    zero: Shape | None,
    bias: Shape | None,
    code_format: CodeFormat,
) -> Shape:
    """`[..., K]` times codes `[N, bytes of K]` with scales `[N, G]`, `K / G` inputs each."""
    depth = last_dim("x", x)
    require_rank("codes", codes, 2)
    held = codes[1] * 8 // code_format.bits
    require(
        code_format.row_bytes(depth) == codes[1], f"x has depth {depth}, codes have depth {held}"
    )
    require(
        len(scale) == 2 and scale[0] == codes[0] and depth % scale[1] == 0,
        f"scale is {text((codes[0], 1))} or a column for each of equal groups of {depth}, "
        f"not {text(scale)}",
    )
    if zero is not None:
        require_shape("zero", zero, scale)
    if bias is not None:
        require_shape("bias", bias, (codes[0],))
    return (*x[:-1], codes[0])


def int8_matmul(x: Shape, codes: Shape, requant: Shape) -> Shape:
    """`[..., K]` times codes `[N, K]`, with a bias, a multiplier and a shift a channel."""
    depth = last_dim("x", x)
    require_rank("codes", codes, 2)
    require(depth == codes[1], f"x has depth {depth}, codes have depth {codes[1]}")
    require_shape("requant", requant, (codes[0], 3))
    return (*x[:-1], codes[0])


def batch_matmul(a: Shape, b: Shape, *, right_transpose: bool) -> Shape:
    """`[B..., M, K]` times `[B..., K, N]` (or `[B..., N, K]`)."""
    require(len(a) >= 3, f"a has rank 3 or more, not {len(a)}")
    require(len(a) == len(b), f"a has rank {len(a)}, b has rank {len(b)}")
    require(a[:-2] == b[:-2], f"a has batch {text(a[:-2])}, b has batch {text(b[:-2])}")
    depth, cols = (b[-1], b[-2]) if right_transpose else (b[-2], b[-1])
    require(a[-1] == depth, f"a has depth {a[-1]}, b has depth {depth}")
    return (*a[:-1], cols)


def normalization(x: Shape, **parameters: Shape | None) -> Shape:
    """A normalization over the last axis with parameters `[C]`."""
    channels = last_dim("x", x)
    for name, shape in parameters.items():
        if shape is not None:
            require_shape(name, shape, (channels,))
    return x


def split_heads(name: str, columns: int, heads: int) -> int:
    """Columns a head of the tensor called `name`."""
    require(heads > 0, f"{name} has {heads} heads")
    require(columns % heads == 0, f"{columns} columns of {name} do not split into {heads} heads")
    return columns // heads


def rope(x: Shape, cos: Shape, sin: Shape, *, num_heads: int, rotary_dim: int) -> Shape:
    """`[S, H*D]` with tables `[S, D]`."""
    require_rank("x", x, 2)
    head_dim = split_heads("x", x[1], num_heads)
    require_shape("cos", cos, (x[0], head_dim))
    require_shape("sin", sin, (x[0], head_dim))
    require(
        rotary_dim % 2 == 0 and 0 < rotary_dim <= head_dim,
        f"rotary_dim {rotary_dim} is not an even number from 2 to {head_dim}",
    )
    return x


def attention(
    q: Shape, k: Shape, v: Shape, mask: Shape | None, *, num_heads: int, num_kv_heads: int
) -> Shape:
    """`[S, H*D]` over `[L, G*D]`, mask `[S, L]`."""
    require_rank("q", q, 2)
    require_rank("k", k, 2)
    head_dim = split_heads("q", q[1], num_heads)
    require(num_kv_heads > 0, f"k has {num_kv_heads} heads")
    require(
        num_heads % num_kv_heads == 0,
        f"{num_heads} heads do not share {num_kv_heads} key heads evenly",
    )
    require_shape("k", k, (k[0], num_kv_heads * head_dim))
    require_shape("v", v, k)
    if mask is not None:
        require_shape("mask", mask, (q[0], k[0]))
    return q


def broadcast(a: Shape, b: Shape) -> Shape:
    """`b` meets `a`.

    `b` has the shape of `a`, or a suffix of it (leading ones of `b` dropped), or the shape of `a`
    with last dimension 1.
    """
    first = next((i for i, size in enumerate(b) if size != 1), len(b))
    suffix = b[first:]
    is_suffix = a[len(a) - len(suffix) :] == suffix and len(b) <= len(a)
    is_column = len(a) > 0 and b == (*a[:-1], 1)
    require(b == a or is_suffix or is_column, f"b {text(b)} does not broadcast to a {text(a)}")
    return a


def reduce(x: Shape) -> Shape:
    """The last axis becomes 1."""
    last_dim("x", x)
    return (*x[:-1], 1)


def reshape(x: Shape, result: Shape) -> None:
    """The number of elements stays."""
    require(
        prod(x) == prod(result),
        f"x {text(x)} has {prod(x)} elements, the result {text(result)} has {prod(result)}",
    )


def permute(x: Shape, order: Sequence[int]) -> Shape:
    """Axis `i` of the result is axis `order[i]` of `x`."""
    require(
        sorted(order) == list(range(len(x))),
        f"order {text(order)} is not a permutation of {len(x)} axes",
    )
    return tuple(x[axis] for axis in order)


def slice_(x: Shape, offsets: Sequence[int], sizes: Shape) -> None:
    """A box of `sizes` at `offsets` lies within `x`."""
    require(len(offsets) == len(x), f"{len(offsets)} offsets for {len(x)} axes")
    require(len(sizes) == len(x), f"the result has {len(sizes)} axes, x has {len(x)}")
    for axis, (offset, size, available) in enumerate(zip(offsets, sizes, x, strict=True)):
        require(
            offset >= 0 and offset + size <= available,
            f"{size} elements from {offset} do not lie within the {available} of axis {axis}",
        )


def concat(shapes: Sequence[Shape], axis: int) -> Shape:
    """Shapes joined along `axis`."""
    require(len(shapes) > 0, "at least one operand is needed")
    first = shapes[0]
    require(0 <= axis < len(first), f"axis {axis} is not one of {len(first)} axes")
    for shape in shapes[1:]:
        require(
            len(shape) == len(first)
            and shape[:axis] == first[:axis]
            and shape[axis + 1 :] == first[axis + 1 :],
            f"{text(shape)} does not join {text(first)} along axis {axis}",
        )
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def gather(table: Shape, indices: Shape) -> Shape:
    """Rows `[N, C]` of a table `[V, C]`."""
    require_rank("table", table, 2)
    require_rank("indices", indices, 1)
    return (indices[0], table[1])


def w8a16_gather(codes: Shape, scale: Shape, indices: Shape) -> Shape:
    """Rows `[N, C]` of codes `[V, C]` with a scale a row."""
    require_rank("codes", codes, 2)
    require_shape("scale", scale, (codes[0], 1))
    require_rank("indices", indices, 1)
    return (indices[0], codes[1])


def cache_update(cache: Shape, rows: Shape, positions: Shape) -> Shape:
    """Rows `[R, C]` into a cache `[L, C]` at `[R]` positions."""
    require_rank("cache", cache, 2)
    require_rank("rows", rows, 2)
    require_shape("rows", rows, (rows[0], cache[1]))
    require_shape("positions", positions, (rows[0],))
    require(rows[0] <= cache[0], f"{rows[0]} rows do not fit a cache of {cache[0]}")
    return cache
