"""Shapes that leave remainders: of groups, of nibbles, of vector lanes, of unrolled loops."""

from __future__ import annotations

from hypothesis import strategies as st

from tilewright.dialects.quantization import Scheme

Shape = tuple[int, ...]
ShapeLike = Shape | st.SearchStrategy[Shape]
"""A shape, or a strategy of shapes."""

LANES = 64
"""Lanes of the machine; a multiple of what vector units of CPUs hold."""


def as_strategy(shape: ShapeLike) -> st.SearchStrategy[Shape]:
    """A strategy of shapes, whatever is given."""
    return st.just(shape) if isinstance(shape, tuple) else shape


def lengths(most: int = 2 * LANES + 1) -> st.SearchStrategy[int]:
    """Lengths from 1: small ones, and those next to multiples of 16 and of the lanes.

    `4 * 16 - 1`, `64`, `65` and the like find loops that forget their remainder.
    """
    near = [n + d for n in range(16, most + 1, 16) for d in (-1, 0, 1) if 0 < n + d <= most]
    small = st.integers(1, min(most, 17))
    return small | st.sampled_from(near) if near else small


@st.composite
def matrix_shapes(
    draw: st.DrawFn, scheme: Scheme | None = None, *, most_rows: int = 4, most_depth: int = 70
) -> tuple[int, int]:
    """`(N, K)` of a weight; K is a multiple of the scheme's group, 1 to 3 groups.

    @given(matrix_shapes(parse_scheme("w4a16-g32")))
    def test_every_shape(shape): ...
    """
    rows = draw(st.integers(1, most_rows))
    group = scheme.group if scheme else 0
    depth = group * draw(st.integers(1, 3)) if group else draw(lengths(most_depth))
    return rows, depth
