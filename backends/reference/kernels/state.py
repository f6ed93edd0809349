"""What a running kernel has: its arguments in global memory, its values, its local memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from tilewright.backends.reference import primitives
from tilewright.backends.reference.balls import EXACT, Arithmetic, Ball
from tilewright.backends.reference.kernels.tiles import Buffer, LocalMemory, Tile
from tilewright.dialects.errors import IRError
from tilewright.dialects.memory_types import LocalType
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]


class GlobalView:
    """An argument: a matrix in global memory."""

    __slots__ = ("_changes", "radius", "value")

    def __init__(self, ball: Ball, rows: int, cols: int) -> None:
        self.value = ball.value.reshape(rows, cols)
        self.radius = None if ball.is_exact else ball.radii.reshape(rows, cols)
        self._changes = False

    def own(self) -> None:
        """Have data of its own, with a radius an element, before anything is written."""
        self.value = self.value.copy()
        self.radius = np.zeros(self.value.shape) if self.radius is None else self.radius.copy()
        self._changes = True

    def read(self, at: tuple[Any, Any]) -> Ball:
        """A part as it is now."""
        value, radius = self.value[at], EXACT if self.radius is None else self.radius[at]
        return Ball(value.copy(), radius.copy()) if self._changes else Ball(value, radius)

    def write(self, at: tuple[Any, Any], ball: Ball) -> None:
        """Replace a part. A poisoned integer becomes the lowest."""
        assert self.radius is not None
        value = ball.value
        if self.value.dtype.kind in "iu" and value.dtype.kind == "f":
            value = np.nan_to_num(value, nan=float(np.iinfo(self.value.dtype).min))
        self.value[at] = value
        self.radius[at] = ball.radius

    def ball(self, shape: tuple[int, ...]) -> Ball:
        """What it holds, as a tensor of that shape."""
        radius = EXACT if self.radius is None else self.radius.reshape(shape)
        return Ball(self.value.reshape(shape), radius).settled()


class State:
    """A kernel while it runs. `memory` is there where tiles have addresses."""

    def __init__(self, arithmetic: Arithmetic, memory: LocalMemory | None) -> None:
        self.arithmetic = arithmetic
        self.memory = memory
        self.values: dict[SSAValue, Any] = {}
        self.turns: dict[tuple[int, ...], int] = {}
        """For each ring how many of its buffers have been taken."""

    def make(
        self,
        result: Result,
        operands: Sequence[Tile],
        compute: Callable[[], Ball],
        *,
        uniform: bool,
    ) -> None:
        """Bind the tile that an op makes from its operands.

        It takes its memory before operands are read: one that lies there is lost to the op too.
        """
        m, memory = self.arithmetic, self.memory
        buffer = Buffer(primitives.store(m, compute(), result.element))
        if memory is not None:
            before = [tile.buffer.losses for tile in operands]
            self._place(memory, buffer, result)
            if before != [tile.buffer.losses for tile in operands]:
                again = Buffer(primitives.store(m, compute(), result.element))
                buffer.value, buffer.radius = again.value, again.radius
        rows, cols = buffer.value.shape
        self.values[result.value] = Tile(buffer, 0, rows, cols, uniform)

    def _place(self, memory: LocalMemory, buffer: Buffer, result: Result) -> None:
        offsets = result.offsets
        if offsets is None:
            raise IRError(
                f"{result.op.name} has no offsets",
                where=where_of(result.op),
                why="the kernel says for how many lanes its tiles have been placed",
                hint="run allocate-local-memory",
            )
        turn = self.turns.get(offsets, 0)
        self.turns[offsets] = turn + 1
        offset = offsets[turn % len(offsets)]
        memory.put(
            buffer, offset, result.stride, result.element.size_bytes, replicated=result.replicated
        )


class Result:
    """What is known of an op's tile before the kernel runs."""

    __slots__ = ("cols", "element", "offsets", "op", "replicated", "rows", "stride", "value")

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.value = op.results[0]
        tile = local_type(self.value)
        self.rows, self.cols, self.element = tile.rows, tile.cols, tile.element
        self.stride, self.replicated = tile.slot_bytes, tile.replicated
        offsets = getattr(op, "offsets", None)
        self.offsets = None if offsets is None else tuple(offsets.get_values())


Step: TypeAlias = Callable[[State], None]
"""One op of a kernel, compiled."""


def local_type(value: SSAValue) -> LocalType:
    """The type of a tile; raises `IRError` for anything else."""
    if not isinstance(value.type, LocalType):
        raise IRError(f"a kernel has {value.type} where a tile is needed")
    return value.type


def empty(op: Operation, rows: int, cols: int) -> NoReturn:
    """Report a tile that lies behind the edge of its view."""
    raise IRError(
        f"{op.name} has an empty tile: {rows}x{cols}",
        where=where_of(op),
        why="its loop runs past the edge of the view",
    )


def meet(op: Operation, one: int, other: int, *, uniform: bool) -> int:
    """The common extent of two operands of `op`; they may differ only if one is uniform."""
    if one != other and not uniform:
        raise IRError(
            f"{op.name}: the extents of its operands differ: {one} and {other}", where=where_of(op)
        )
    return min(one, other)
