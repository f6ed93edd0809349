"""The pass `allocate-local-memory`: where the tiles of a kernel lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, ModuleOp, i32, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.cost import bdc_cycles_without_conflicts
from tilewright.dialects.errors import FitError
from tilewright.dialects.scopes import where_of
from tilewright.passes import actions
from tilewright.passes.kernels.commands import GDMA_OPS, STORES, kernels_of, tile_operands
from tilewright.passes.kernels.expansion import Expansion, ring_depths
from tilewright.passes.kernels.packing import Memory, Places, Request, pack
from tilewright.passes.kernels.placement import Operands, place
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
    places = _place(kernel, rings, ring_of, depths, expansion, chip)
    for ring, offsets in zip(rings, places, strict=True):
        attribute = DenseArrayBase.from_list(i32, offsets)
        for op in ring.tiles:
            op.properties["offsets"] = attribute
    kernel.attributes["tpu.lanes"] = IntegerAttr(chip.lanes, i64)


def _place(
    kernel: func.FuncOp,
    rings: Sequence[Ring],
    ring_of: dict[SSAValue, int],
    depths: Sequence[int],
    expansion: Expansion,
    chip: Chip,
) -> Places:
    """The first of several ways that fits: from the fastest program to the smallest."""
    memory = Memory(chip.lane_bytes, chip.bank_bytes)
    commands, moved = _commands(expansion, ring_of, chip), _moved(expansion, ring_of)
    fast = [
        max(depth, 2) if ring.stored_in_loop else depth
        for ring, depth in zip(rings, depths, strict=True)
    ]

    def requests(depths: Sequence[int], *, busy: bool) -> list[Request]:
        return [
            Request(
                ring.lane_bytes(chip.lanes),
                depths[number],
                ring.busy_first if busy else ring.first,
                ring.busy_last if busy else ring.last,
                number in moved,
            )
            for number, ring in enumerate(rings)
        ]

    for least, busy in ((fast, True), (fast, False), (depths, False)):
        places = place(requests(least, busy=busy), commands, memory)
        if places is not None:
            return places
    smallest = requests(depths, busy=False)
    _, needed = pack(smallest)
    raise FitError(
        f"the tiles of kernel @{kernel.sym_name.data} exceed local memory by "
        f"{needed - chip.lane_bytes} bytes a lane",
        where=where_of(kernel),
        why=f"they need {needed} of {chip.lane_bytes} bytes; the largest are "
        + ", ".join(_largest(smallest, rings)),
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


def _moved(expansion: Expansion, ring_of: dict[SSAValue, int]) -> set[int]:
    """The rings that the GDMA works on."""
    return {
        ring_of[op.tile if isinstance(op, STORES) else op.result]
        for op in expansion.ops
        if isinstance(op, GDMA_OPS)
    }


def _commands(expansion: Expansion, ring_of: dict[SSAValue, int], chip: Chip) -> list[Operands]:
    """What a common bank costs the operands of each command op, in all its executions.

    Left out are commands that use one tile twice: it meets itself wherever it lies.
    """
    cycles = bdc_cycles_without_conflicts(expansion.bdc, chip) - chip.bdc_command_cycles
    lost = np.bincount(expansion.bdc_ops, cycles, len(expansion.ops)) * (
        chip.bank_conflict_factor - 1
    )
    commands: dict[tuple[int, ...], float] = defaultdict(float)
    for op, lost_cycles in zip(expansion.ops, lost.tolist(), strict=True):
        if isinstance(op, GDMA_OPS):
            continue
        tiles = [tile for tile in tile_operands(op) if tile is not None]
        if len(set(tiles)) == len(tiles) > 1:
            commands[tuple(sorted(ring_of[tile] for tile in tiles))] += lost_cycles
    return [Operands(rings, lost_cycles) for rings, lost_cycles in commands.items()]
