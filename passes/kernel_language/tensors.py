"""Tensors in global memory, windows of them, and how tiles come and go."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from tilewright.backends.program import Access
from tilewright.dialects.element_types import I32, ElementType
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernel_language.indexes import Index, index_of
from tilewright.passes.kernel_language.recording import (
    Recording,
    current,
    here,
    kernel_error,
)
from tilewright.passes.kernel_language.tiles import Operators, Tile, require_fit
from tilewright.passes.kernels.registry import View

Position = Index | int


class Argument:
    """An argument of the kernel: it is viewed in one shape, chosen before its first use."""

    def __init__(self, recording: Recording, number: int, view: View, access: Access) -> None:
        self.recording, self.number, self.view, self.access = recording, number, view, access
        self.shape = (view.rows, view.cols)
        self.used_at: str | None = None

    def view_as(self, rows: int, cols: int) -> None:
        """View it as `rows` x `cols`."""
        if (rows, cols) == self.shape:
            return
        if self.used_at is not None:
            raise kernel_error(
                f"a tensor viewed as {self.shape[0]}x{self.shape[1]} is viewed as {rows}x{cols}",
                why=f"it is in use since {self.used_at}",
                hint="choose one view before the first load or store",
            )
        if rows * cols != self.view.rows * self.view.cols:
            raise kernel_error(f"{self.view.rows}x{self.view.cols} elements as {rows}x{cols}")
        if not self.view.is_contiguous and cols != self.view.cols:
            raise kernel_error(
                f"a tensor with gaps between its rows is viewed as {rows}x{cols}",
                hint="check tensor.is_contiguous first",
            )
        self.shape = (rows, cols)
        self.recording.retype_argument(self.number, self.view.reshaped(rows, cols))

    def use(self, place: str) -> SSAValue:
        """Its value; from now on the view is fixed."""
        self.used_at = self.used_at or place
        return self.recording.arguments[self.number]


class Tensor:
    """An operand or result of the op, as `rows` x `cols`: all leading dimensions are rows.

    `x[r : r + 64, c : c + 128]` is a window; of a vector, or of all columns, one range is enough.
    """

    def __init__(
        self, argument: Argument, first: Index | None = None, height: int | None = None
    ) -> None:
        self.argument = argument
        self._first = first if first is not None else Index()
        self._height = height

    @property
    def shape(self) -> tuple[int, ...]:
        """The op's own shape of it."""
        return self.argument.view.shape

    @property
    def rows(self) -> int:
        return self.argument.shape[0] if self._height is None else self._height

    @property
    def cols(self) -> int:
        return self.argument.shape[1]

    @property
    def dtype(self) -> ElementType:
        return self.argument.view.element

    @property
    def is_contiguous(self) -> bool:
        """Whether its rows follow each other without gaps."""
        return self.argument.view.is_contiguous

    def reshape(self, rows: int, cols: int) -> Tensor:
        """The same elements as `rows` x `cols`, for the whole kernel."""
        self.argument.view_as(rows, cols)
        return self

    def matrix(self, number: Position, rows: int) -> Tensor:
        """Matrix `number` of a stack of matrices of `rows` rows: tiles end at its last row."""
        if self.argument.shape[0] % rows:
            raise kernel_error(f"{self.argument.shape[0]} rows as matrices of {rows}")
        return Tensor(self.argument, index_of(number) * rows, rows)

    def __getitem__(self, index: object) -> Window:
        return self._window(index)

    def __setitem__(self, index: object, tile: object) -> None:
        if not isinstance(tile, Operators):
            raise kernel_error(f"a tensor is assigned {tile!r}, not a tile")
        self._window(index).store(tile)

    def load(self, *, replicated: bool = False) -> Tile:
        """All of it as one tile."""
        return self[:, :].load(replicated=replicated)

    def store(self, tile: Operators) -> None:
        """Write a tile to its first row and column."""
        self[: tile.tile.rows, : tile.tile.cols].store(tile)

    def _window(self, index: object) -> Window:
        ranges = index if isinstance(index, tuple) else (index,)
        if len(ranges) == 1 and len(self.shape) == 1 and isinstance(ranges[0], slice):
            ranges = (slice(None), ranges[0])
        if len(ranges) == 1:
            ranges = (ranges[0], slice(None))
        rows, columns = ranges if len(ranges) == 2 else (None, None)
        if not isinstance(columns, slice) or not isinstance(rows, slice | Window):
            raise kernel_error(
                f"a tensor is indexed by {index!r}",
                hint="one or two ranges: x[row : row + 64, :], or rows by number: x[indices[a:b]]",
            )
        col, cols = self._range(columns, self.cols, "columns")
        if isinstance(rows, Window):
            return Window(self, Index(), rows.cols, col, cols, by=rows)
        row, count = self._range(rows, self.rows, "rows")
        return Window(self, row, count, col, cols)

    def _range(self, part: slice, size: int, what: str) -> tuple[Index, int]:
        """First and number of the rows or columns; a range beyond the end is cut there."""
        first = index_of(0 if part.start is None else part.start)
        stop = index_of(size if part.stop is None else part.stop)
        length = stop - first
        if not length.is_constant or part.step is not None:
            raise kernel_error(
                f"the number of {what} of a window is not known",
                hint="x[row : row + 64, :]: a position, and a number that Python knows",
            )
        count = min(length.constant, size)
        if count < 1 or (first.is_constant and not 0 <= first.constant < size):
            raise kernel_error(
                f"{what} {first.constant} to {first.constant + length.constant} of {size}"
            )
        return first, min(count, size - first.constant) if first.is_constant else count

    def describe(self) -> str:
        """`f16[512, 4096]`."""
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    def __repr__(self) -> str:
        return f"Tensor({self.describe()})"

    def position(self, row: Index, count: int) -> tuple[Index, Index | None]:
        """`row` in the argument, and the row at which tiles of `count` rows must end, if any."""
        if self._height is None:
            return row, None
        limit = None if self._height % count == 0 else self._first + self._height
        return self._first + row, limit


@dataclass(frozen=True)
class Window:
    """Rows and columns of a tensor; the rows one after the other, or those that `by` names."""

    tensor: Tensor
    row: Index
    rows: int
    col: Index
    cols: int
    by: Window | None = None

    def load(self, *, replicated: bool = False) -> Tile:
        """The tile of this window; with `replicated`, its one row in every lane.

        Raises `IRError` for a result of the op and `FitError` where it exceeds local memory.
        """
        recording, argument = current(), self.tensor.argument
        if argument.access == "write":
            raise kernel_error("a result of the op is loaded", hint="results are only stored")
        if replicated and (self.rows != 1 or self.by is not None):
            raise kernel_error(f"{self.rows} rows are loaded replicated", hint="one row is")
        kind = LocalType.of(self.rows, self.cols, self.tensor.dtype, replicated=replicated)
        require_fit(kind)
        view = argument.use(here())
        if self.by is not None:
            indices, at = self.by.as_indices()
            return Tile(recording.gather(view, self.col.emit(), indices, at, kind))
        row, end = self.tensor.position(self.row, self.rows)
        cut = None if end is None else end.emit()
        return Tile(recording.load(view, row.emit(), self.col.emit(), kind, limit=cut))

    def store(self, value: Operators) -> None:
        """Write a tile here. It has the window's type and, cut at the tensor's edge, its size."""
        recording, tile, argument = current(), value.tile, self.tensor.argument
        if argument.access == "read":
            raise kernel_error("an operand of the op is stored to", hint="results are stored")
        if tile.dtype != self.tensor.dtype:
            raise kernel_error(
                f"a tile of {tile.dtype.name} is stored to a tensor of {self.tensor.dtype.name}",
                hint=f"round it: tk.cast(tile, {self.tensor.dtype.name})",
            )
        if tile.replicated:
            raise kernel_error("a replicated row is stored", hint="store a tile over the lanes")
        if (tile.rows, tile.cols) != (self.rows, self.cols):
            raise kernel_error(
                f"a tile of {tile.rows}x{tile.cols} is stored to a window of "
                f"{self.rows}x{self.cols}",
                hint="the window has the tile's rows and columns",
            )
        view = argument.use(here())
        if self.by is not None:
            indices, at = self.by.as_indices()
            recording.scatter(tile.value, view, self.col.emit(), indices, at)
            return
        row, _ = self.tensor.position(self.row, self.rows)
        recording.store(tile.value, view, row.emit(), self.col.emit())

    def as_indices(self) -> tuple[SSAValue, SSAValue]:
        """The argument of row indices, as one row, and the first of them."""
        tensor = self.tensor
        if tensor.dtype != I32 or tensor.rows != 1:
            raise kernel_error(
                f"rows are named by {tensor.describe()}", hint="by one row of i32: [n] or [1, n]"
            )
        return tensor.argument.use(here()), self.col.emit()


def load(tensor: Tensor | Window, *, replicated: bool = False) -> Tile:
    """The tile of a window, or of a whole tensor; with `replicated`, one row in every lane."""
    return tensor.load(replicated=replicated)


def store(target: Tensor | Window, tile: Operators) -> None:
    """Write a tile to a window, or to the first rows and columns of a tensor."""
    target.store(tile)
