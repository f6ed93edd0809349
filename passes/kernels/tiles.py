"""What builders share: loops that may run once, folds over the columns of wide rows, broadcasts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from xdsl.ir import SSAValue

from tilewright.dialects.bdc import BinaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder


@contextmanager
def over(b: KernelBuilder, stop: int, step: int, *, start: int = 0) -> Generator[SSAValue]:
    """`for index = start to stop step step`; no loop where it would run once."""
    if stop - start <= step:
        yield b.constant(start)
    else:
        with b.loop(stop, step, start=start) as loop:
            yield loop.index


def spans(size: int, step: int) -> list[tuple[int, int, int]]:
    """A range as pieces of `step` and what is left: start, stop and length of a piece, of each.

    For loops whose tiles end before the edge of their view, where no load would cut them.
    """
    whole = size - size % step
    parts = [(0, whole, step), (whole, size, size - whole)]
    return [part for part in parts if part[2] > 0 and part[0] < part[1]]


def reduce_columns(
    b: KernelBuilder,
    cols: int,
    width: int,
    partial: Callable[[SSAValue], SSAValue],
    combine: BinaryFunction,
    column: LocalType,
) -> SSAValue:
    """`combine` over `partial(first column)` of the chunks of `width` of `cols` columns."""
    first = partial(b.constant(0))
    if cols <= width:
        return first
    with b.loop(cols, width, start=width, carried=[first]) as loop:
        part = partial(loop.index)
        loop.carry(b.binary(combine, loop.carried[0], part, column))
    return loop.results[0]


def broadcast_sum(b: KernelBuilder, rows: int, parts: SSAValue, part_rows: int) -> SSAValue:
    """`[rows, 1]`, every element the sum of the column `parts` of `part_rows` f32 elements.

    The way from lane to lane is the matrix unit: `ones[rows, part_rows] @ parts`, whose products
    are exact.
    """
    ones = b.fill(1.0, LocalType.of(rows, part_rows, F32))
    return b.mm(ones, parts, LocalType.of(rows, 1, F32), transpose_right=False)
