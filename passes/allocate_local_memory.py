"""The pass `allocate-local-memory`: where the tiles of a kernel lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, ModuleOp, i32, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.dialects.errors import FitError
from tilewright.dialects.scopes import where_of
from tilewright.passes import actions
from tilewright.passes.kernels.commands import GDMA_OPS, kernels_of, tile_operands
from tilewright.passes.kernels.expansion import Expansion, ring_depths
from tilewright.passes.kernels.placement import (
    Conflicts,
    Memory,
    Places,
    Request,
    pack,
    place_in_banks,
)
from tilewright.passes.kernels.rings import Ring, find_rings

_LISTED_TILES = 5
"""How many of the largest tiles an error lists."""


@dataclass(frozen=True)
class AllocateLocalMemoryPass(ModulePass):
    """Give each tile of a kernel its place in local memory.

    ```mlir
    func.func @copy(
        %x : !gdma.global<128x64xf32> {tpu.access = "read"},
        %y : !gdma.global<128x64xf16> {tpu.access = "write"}
    ) attributes {tpu.kernel} {
      %zero = arith.constant 0 : index
      %step = arith.constant 64 : index
      %stop = arith.constant 128 : index
      scf.for %i = %zero to %stop step %step {
        %t = gdma.load %x[%i, %zero] : !gdma.global<128x64xf32> -> !bdc.local<64x64xf32>
        %s = bdc.unary cast %t : !bdc.local<64x64xf32> -> !bdc.local<64x64xf16>
        gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf16>, !gdma.global<128x64xf16>
      }
      func.return
    }
    ```

    -->

    ```mlir
    func.func @copy(
        %x : !gdma.global<128x64xf32> {tpu.access = "read"},
        %y : !gdma.global<128x64xf16> {tpu.access = "write"}
    ) attributes {tpu.kernel, tpu.lanes = 64 : i64} {
      %zero = arith.constant 0 : index
      %step = arith.constant 64 : index
      %stop = arith.constant 128 : index
      scf.for %i = %zero to %stop step %step {
        %t = gdma.load %x[%i, %zero] {offsets = array<i32: 0>} :
          !gdma.global<128x64xf32> -> !bdc.local<64x64xf32>
        %s = bdc.unary cast %t {offsets = array<i32: 16384, 32768>} :
          !bdc.local<64x64xf32> -> !bdc.local<64x64xf16>
        gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf16>, !gdma.global<128x64xf16>
      }
      func.return
    }
    ```

    A value that a loop carries shares a ring of buffers with its initial and yielded values, as
    deep as its reads need. A tile that is made and stored in a loop gets two buffers, so that the
    store overlaps the next tile; where memory is short these are given up first.

    Requires kernels. Guarantees that values that are live at the same time do not overlap, and that
    buffers of one command lie in different banks wherever there is room. It sets `tpu.lanes`, the
    lanes of the chip that the places are for.

    Raises `FitError` where the tiles do not fit, naming the largest. A step is `PlaceTiles`, of one
    kernel.

    Option `chip`: a chip's name, or the path of a chip file.
    """

    name = "allocate-local-memory"

    chip: str = "bm1684x"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        chip = load_chip(self.chip)
        for kernel in kernels_of(op):
            if actions.begin("PlaceTiles", kernel):
                _allocate(kernel, chip)
                actions.end((kernel,))


def _allocate(kernel: func.FuncOp, chip: Chip) -> None:
    rings, ring_of = find_rings(kernel)
    takers = {op: number for number, ring in enumerate(rings) for op in ring.tiles}
    depths, expansion = ring_depths(kernel, takers, len(rings))
    conflicts = _conflicts(expansion, rings, ring_of, chip)
    places = _place(kernel, rings, depths, conflicts, chip)
    for ring, offsets in zip(rings, places, strict=True):
        attribute = DenseArrayBase.from_list(i32, offsets)
        for op in ring.tiles:
            op.properties["offsets"] = attribute
    kernel.attributes["tpu.lanes"] = IntegerAttr(chip.lanes, i64)


def _place(
    kernel: func.FuncOp,
    rings: Sequence[Ring],
    depths: Sequence[int],
    conflicts: Conflicts,
    chip: Chip,
) -> Places:
    """The first of several ways that fits: from the fastest program to the smallest."""
    memory = Memory(chip.lane_bytes, chip.bank_bytes)
    fast = [
        max(depth, 2) if ring.stored_in_loop else depth
        for ring, depth in zip(rings, depths, strict=True)
    ]

    def requests(depths: Sequence[int], *, busy: bool) -> list[Request]:
        return [
            Request(
                ring.lane_bytes(chip.lanes),
                depth,
                ring.busy_first if busy else ring.first,
                ring.busy_last if busy else ring.last,
            )
            for ring, depth in zip(rings, depths, strict=True)
        ]

    for busy in (True, False):
        for whole_banks in (True, False):
            wanted = requests(fast, busy=busy)
            places = place_in_banks(wanted, conflicts, memory, whole_banks=whole_banks)
            if places is not None:
                return places
    needed = 0
    for least in (fast, depths):
        places, needed = pack(requests(least, busy=False))
        if needed <= chip.lane_bytes:
            return places
    raise FitError(
        f"the tiles of kernel @{kernel.sym_name.data} exceed local memory by "
        f"{needed - chip.lane_bytes} bytes a lane",
        where=where_of(kernel),
        why=f"they need {needed} of {chip.lane_bytes} bytes; the largest are "
        + ", ".join(_largest(requests(depths, busy=False), rings)),
        hint="smaller tiles, or a chip with more local memory",
    )


def _largest(requests: Sequence[Request], rings: Sequence[Ring]) -> list[str]:
    order = sorted(
        range(len(rings)), key=lambda i: (-requests[i].size_bytes * requests[i].depth, i)
    )
    return [
        f"{requests[i].depth} x {requests[i].size_bytes} bytes for {rings[i].tiles[0].name} "
        f"-> {rings[i].tiles[0].results[0].type}"
        for i in order[:_LISTED_TILES]
    ]


def _conflicts(
    expansion: Expansion, rings: Sequence[Ring], ring_of: dict[SSAValue, int], chip: Chip
) -> Conflicts:
    """What a common bank costs two tiles: the vectors of the larger, for each command with both."""
    executions = np.bincount(expansion.order, minlength=len(expansion.ops)).tolist()
    lost: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for op, times in zip(expansion.ops, executions, strict=True):
        if isinstance(op, GDMA_OPS):
            continue
        tiles = dict.fromkeys(tile for tile in tile_operands(op) if tile is not None)
        used = [ring_of[tile] for tile in tiles]
        vectors = max(rings[ring].lane_bytes(chip.lanes) for ring in used) / chip.vector_bytes
        for one, other in combinations(used, 2):
            lost[one][other] += times * vectors
            lost[other][one] += times * vectors
    return lost
