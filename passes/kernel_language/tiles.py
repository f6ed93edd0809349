"""Tiles in local memory, and the arithmetic of the vector unit on them.

Every operation computes in f32 and makes an f32 tile; `tk.cast` rounds once. (Where the rounded
tile is all that is used, the operation before it writes it at once: `finishing.fuse_casts`.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from xdsl.ir import SSAValue

from tilewright.dialects.bdc import BinaryFunction, UnaryFunction
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernel_language.indexes import Index, index_of
from tilewright.passes.kernel_language.recording import current, fit_error, kernel_error

Number = int | float
_COMMUTES = {BinaryFunction.ADD, BinaryFunction.MUL, BinaryFunction.MAX, BinaryFunction.MIN}


class Operators(ABC):
    """What tiles and local buffers share: `+ - * /` with tiles, columns, replicated rows and
    numbers. The smaller operand meets every row or column of the larger one.
    """

    @property
    @abstractmethod
    def tile(self) -> Tile:
        """The tile to compute with."""

    @property
    @abstractmethod
    def type(self) -> LocalType:
        """Largest extents and element type."""

    @property
    def rows(self) -> int:
        return self.type.rows

    @property
    def cols(self) -> int:
        return self.type.cols

    @property
    def dtype(self) -> ElementType:
        return self.type.element

    def __add__(self, other: Operators | Number) -> Tile:
        return combine(BinaryFunction.ADD, self, other)

    def __radd__(self, other: Number) -> Tile:
        return combine(BinaryFunction.ADD, self, other)

    def __sub__(self, other: Operators | Number) -> Tile:
        return combine(BinaryFunction.SUB, self, other)

    def __rsub__(self, other: Number) -> Tile:
        return combine(BinaryFunction.ADD, -self, other)

    def __mul__(self, other: Operators | Number) -> Tile:
        return combine(BinaryFunction.MUL, self, other)

    def __rmul__(self, other: Number) -> Tile:
        return combine(BinaryFunction.MUL, self, other)

    def __truediv__(self, other: Operators | Number) -> Tile:
        return combine(BinaryFunction.DIV, self, other)

    def __rtruediv__(self, other: Number) -> Tile:
        inverse = unary(UnaryFunction.RECIPROCAL, self)
        return inverse if other == 1 else combine(BinaryFunction.MUL, inverse, other)

    def __neg__(self) -> Tile:
        return unary(UnaryFunction.NEG, self)

    def __getitem__(self, index: slice | tuple[slice, slice]) -> Tile:
        return _columns(self.tile, index)


class Tile(Operators):
    """A tile that a command makes. `rows` and `cols` are the largest that it can have: a tile that
    is loaded across the edge of its tensor ends there, and so does what is computed from it.
    """

    def __init__(self, value: SSAValue) -> None:
        self._value = value

    @property
    def tile(self) -> Tile:
        return self

    @property
    def value(self) -> SSAValue:
        """Its value in the kernel. Raises `IRError` outside of the loop that makes it."""
        current().require_visible(self._value, f"a tile of {self.describe()}")
        return self._value

    @property
    def type(self) -> LocalType:
        assert isinstance(self._value.type, LocalType)
        return self._value.type

    @property
    def replicated(self) -> bool:
        """Whether it is one row, of which every lane has a copy."""
        return self.type.replicated

    def describe(self) -> str:
        """`f16[64, 128]`."""
        return f"{self.dtype.name}[{self.rows}, {self.cols}]{' replicated' * self.replicated}"

    def __repr__(self) -> str:
        return f"Tile({self.describe()})"


class Local(Operators):
    """A local buffer with a name: it holds the tile that was assigned last, also from one iteration
    of a loop to the next.

        total = tk.zeros(rows, 1)
        for col in tk.range(0, x.cols, width):
            total[:] = total + tk.sum(x[row : row + rows, col : col + width].load())
    """

    def __init__(self, kind: LocalType, tile: Tile | None = None) -> None:
        require_fit(kind)
        self._type = kind
        self._tile = tile
        self._place = current().scopes[-1]
        self._place.locals.append(self)

    @property
    def type(self) -> LocalType:
        return self._type

    @property
    def is_set(self) -> bool:
        return self._tile is not None

    @property
    def tile(self) -> Tile:
        if self._tile is None:
            raise kernel_error(
                "a tk.local is read before anything is assigned to it",
                hint="assign first, outside of the loop that reads it, or begin with tk.zeros",
            )
        return self._tile

    def put(self, tile: Tile) -> None:
        """Assign without a check, as the loops do."""
        self._tile = tile

    def __setitem__(self, index: slice | tuple[slice, slice], value: Operators) -> None:
        if any(part != slice(None) for part in (index if isinstance(index, tuple) else (index,))):
            raise kernel_error(
                "a part of a tk.local is assigned",
                hint="assign all of it: buffer[:] = tile; matrix products add to columns with "
                "tk.accumulate(buffer, left, right, col=...)",
            )
        tile = value.tile
        if tile.type != self.type:
            wanted = Tile.describe(_OfType(self.type))
            raise kernel_error(
                f"a buffer of {wanted} is assigned {tile.describe()}",
                hint="tk.cast rounds to another type" if tile.rows == self.rows else None,
            )
        if self._tile is None and current().scopes[-1] is not self._place:
            raise kernel_error(
                "the first assignment to a tk.local is in a loop",
                hint="make the buffer in the loop, or begin with tk.zeros",
            )
        self._tile = tile


class _OfType(Tile):
    """A type without a value, to describe."""

    def __init__(self, kind: LocalType) -> None:
        self._kind = kind

    @property
    def type(self) -> LocalType:
        return self._kind


def wide(tile: Tile) -> LocalType:
    """The type of an f32 tile of the extents of `tile`."""
    return LocalType.of(tile.rows, tile.cols, F32, replicated=tile.replicated)


def require_fit(kind: LocalType) -> None:
    """Raise `FitError` for a tile that is larger than local memory."""
    chip = current().chip
    size = kind.lane_bytes(chip.lanes)
    if size > chip.lane_bytes:
        raise fit_error(
            f"a tile of {kind.rows}x{kind.cols} {kind.element.name} exceeds local memory",
            why=f"it takes {size} bytes of every lane, {chip.name} has {chip.lane_bytes}",
            hint="fewer rows or columns at a time: see tk.fit_rows and tk.fit_tile",
        )


def require_float(*tiles: Tile) -> None:
    """Raise `IRError` for tiles of integers."""
    for tile in tiles:
        if not tile.dtype.is_float:
            raise kernel_error(
                f"arithmetic on {tile.describe()}",
                hint="tk.dequant(codes, scale, dtype) makes floats of int8 codes"
                if tile.dtype.name == "i8"
                else "i32 tensors are row indices: x[indices[a:b]].load()",
            )


def unary(function: UnaryFunction, x: Operators) -> Tile:
    """`function` of each element."""
    tile = x.tile
    require_float(tile)
    return Tile(current().unary(function, tile.value, wide(tile)))


def combine(function: BinaryFunction, a: Operators, b: Operators | Number) -> Tile:
    """`a function b`: of equal shapes, or one of them a number, a column or a replicated row."""
    if not isinstance(b, Operators):
        return _with_number(function, a.tile, b)
    left, right = a.tile, b.tile
    require_float(left, right)
    if _meets(left, right):
        return Tile(current().binary(function, left.value, right.value, wide(left)))
    if not _meets(right, left):
        raise _shape_error(left, right)
    if function in _COMMUTES:
        return combine(function, right, left)
    # The machine takes the smaller operand on the right.
    if function == BinaryFunction.SUB:
        return combine(BinaryFunction.ADD, -right, left)
    return combine(BinaryFunction.MUL, unary(UnaryFunction.RECIPROCAL, right), left)


def _with_number(function: BinaryFunction, tile: Tile, number: Number) -> Tile:
    require_float(tile)
    if function == BinaryFunction.DIV:
        if number == 0:
            raise kernel_error("division by the number 0")
        function, number = BinaryFunction.MUL, 1 / number
    if function == BinaryFunction.SUB:
        function, number = BinaryFunction.ADD, -number
    return Tile(current().scalar(function, tile.value, float(number), wide(tile)))


def _meets(left: Tile, right: Tile) -> bool:
    """Whether the machine combines them: `right` is as large, a column or a replicated row."""
    same = (right.rows, right.cols, right.replicated) == (left.rows, left.cols, left.replicated)
    row = right.replicated and right.cols == left.cols
    column = right.cols == 1 and right.rows == left.rows and not right.replicated
    return same or row or column


def _shape_error(left: Tile, right: Tile) -> Exception:
    hint = "equal shapes, a column [rows, 1], or a row loaded with replicated=True go together"
    if 1 in (left.rows, right.rows) and left.cols == right.cols:
        hint = "a row that meets every row is in every lane: load(replicated=True)"
    return kernel_error(f"{left.describe()} does not meet {right.describe()}", hint=hint)


def _columns(tile: Tile, index: slice | tuple[slice, slice]) -> Tile:
    """`tile[:, first : first + n]`: a view of columns, without a command."""
    if isinstance(index, slice) or index[0] != slice(None):
        raise kernel_error(
            "a tile is indexed by columns only", hint="tile[:, first : first + count]"
        )
    columns = index[1]
    first: Index | int = 0 if columns.start is None else columns.start
    stop: Index | int = tile.cols if columns.stop is None else columns.stop
    count = int(index_of(stop) - first)
    last = index_of(stop)
    outside = last.is_constant and last.constant > tile.cols
    if columns.step is not None or not 1 <= count <= tile.cols or outside:
        raise kernel_error(f"columns {first} to {stop} of {tile.describe()}")
    if count == tile.cols:
        return tile
    kind = LocalType.of(tile.rows, count, tile.dtype, replicated=tile.replicated)
    return Tile(current().view(tile.value, index_of(first).emit(), kind))
