"""How many rows (and columns) of a tensor a tile may have, for what a kernel keeps in local memory.

Rows lie over the lanes, so tiles take whole sets of lanes; the last tile of a loop takes what is
left. A tile that is loaded or stored in a loop needs two buffers, as the next one moves meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import FitError
from tilewright.passes.kernel_language.recording import here
from tilewright.passes.kernel_language.tensors import Tensor
from tilewright.passes.tiling.rows import (
    Tile,
    TileBuffer,
    fold,
    row_tile,
    run_elements,
    split_tile,
)


@dataclass(frozen=True)
class _Needs:
    """What a kernel keeps for a tile of rows and columns."""

    moved: Sequence[Tensor]
    temporaries: int
    columns: int
    replicated: Sequence[Tensor]

    def buffers(self, copies: int) -> list[TileBuffer]:
        """All buffers; of replicated rows `copies` each."""
        return [
            *(TileBuffer(each.dtype, 2) for each in self.moved),
            *([TileBuffer(F32, self.temporaries)] if self.temporaries else []),
            *([TileBuffer(F32, self.columns, "column")] if self.columns else []),
            *(TileBuffer(each.dtype, copies, "row") for each in self.replicated),
        ]


def fit_rows(
    *moved: Tensor,
    chip: Chip,
    temporaries: int = 3,
    columns: int = 8,
    replicated: Sequence[Tensor] = (),
) -> int:
    """Rows of a tile of whole rows.

    `moved` are the tensors whose tiles are loaded and stored, all of the rows and columns of the
    first; `temporaries` and `columns` how many f32 tiles and columns are there at once;
    `replicated` the rows that every lane has. Raises `FitError` where not one row a lane fits.
    """
    buffers = _Needs(moved, temporaries, columns, replicated).buffers(1)
    return _at_the_users_line(lambda: row_tile(moved[0].rows, moved[0].cols, buffers, chip)).rows


def fit_tile(
    *moved: Tensor,
    chip: Chip,
    temporaries: int = 3,
    columns: int = 8,
    replicated: Sequence[Tensor] = (),
) -> tuple[int, int]:
    """Rows and columns of a tile, for kernels that take rows in pieces. As `fit_rows`."""
    buffers = _Needs(moved, temporaries, columns, replicated).buffers(2)
    step = max(run_elements(each.dtype, chip) for each in moved)
    tile = _at_the_users_line(lambda: split_tile(moved[0].rows, moved[0].cols, buffers, chip, step))
    return tile.rows, tile.cols


def flatten(*tensors: Tensor, chip: Chip) -> None:
    """View tensors of one shape, all without gaps, in the shape that fills the lanes best.

    For kernels that work element by element: one token then takes as few cycles as its bytes.
    Tensors with gaps are left as they are.
    """
    if all(tensor.is_contiguous for tensor in tensors):
        for tensor in tensors:
            tensor.reshape(*fold(tensor.rows * tensor.cols, chip))


def _at_the_users_line(choose: Callable[[], Tile]) -> Tile:
    try:
        return choose()
    except FitError as error:
        error.where = error.where or here()
        raise
