"""Which tiles of a kernel share buffers, and from where to where in the text those are live.

A value that a loop carries, its initial value, the value it yields and the loop's result are one
*ring* of buffers that the ops making them take in turn. `bdc.view` and `bdc.mm_accumulate` make no
tile of their own: their results belong to their operand's ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects import func, scf
from xdsl.ir import Block, Operation, SSAValue

from tilewright.dialects import bdc
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.commands import GDMA_OPS, STORES, local_type, new_tile


@dataclass
class Ring:
    """Buffers that some ops take in turn. Positions count the kernel's ops as they stand."""

    tiles: list[Operation]
    """The ops that make its tiles."""
    first: int
    last: int
    busy_first: int
    busy_last: int
    """As `first` and `last`; where the GDMA works on it in a loop, those of that loop."""
    stored_in_loop: bool = False
    """Its tiles are made and stored in one loop, so that a store can overlap the next tile."""

    def lane_bytes(self, lanes: int) -> int:
        """Bytes of one of its buffers in each lane."""
        return max(local_type(op.results[0]).lane_bytes(lanes) for op in self.tiles)


@dataclass
class _Positions:
    """Positions of ops, and the begin and end of each loop."""

    at: dict[Operation, int] = field(default_factory=dict[Operation, int])
    loops: dict[Operation, tuple[int, int]] = field(
        default_factory=dict[Operation, tuple[int, int]]
    )
    count: int = 0

    def visit(self, block: Block) -> None:
        for op in block.ops:
            self.at[op] = self.count
            self.count += 1
            if isinstance(op, scf.ForOp):
                self.visit(op.body.block)
                self.loops[op] = (self.at[op], self.count)
                self.count += 1


def find_rings(kernel: func.FuncOp) -> tuple[list[Ring], dict[SSAValue, int]]:
    """The rings of a kernel, in the order in which they are taken; and the ring of each tile."""
    parent: dict[SSAValue, SSAValue] = {}

    def find(value: SSAValue) -> SSAValue:
        root = value
        while parent.setdefault(root, root) is not root:
            root = parent[root]
        while parent[value] is not root:
            parent[value], value = root, parent[value]
        return root

    def join(*values: SSAValue) -> None:
        if isinstance(values[0].type, LocalType):
            for value in values[1:]:
                parent[find(value)] = find(values[0])

    for op in kernel.walk():
        if isinstance(op, bdc.ViewOp):
            join(op.tile, op.result)
        elif isinstance(op, bdc.MmAccumulateOp):
            join(op.sums, op.result)
        elif isinstance(op, scf.ForOp):
            terminator = op.body.block.last_op
            assert terminator is not None
            carried = zip(
                op.iter_args, op.body.block.args[1:], terminator.operands, op.results, strict=True
            )
            for values in carried:
                join(*values)
        elif (tile := new_tile(op)) is not None:
            find(tile)
    return _measure(kernel, parent, find_root=find)


def _measure(
    kernel: func.FuncOp,
    tiles: dict[SSAValue, SSAValue],
    *,
    find_root: Callable[[SSAValue], SSAValue],
) -> tuple[list[Ring], dict[SSAValue, int]]:
    positions = _Positions()
    positions.visit(kernel.body.block)
    numbers: dict[SSAValue, int] = {}
    rings: list[Ring] = []
    for op in kernel.walk():
        tile = new_tile(op)
        if tile is not None:
            at = positions.at[op]
            number = numbers.setdefault(find_root(tile), len(rings))
            if number == len(rings):
                rings.append(Ring([], at, at, at, at))
            rings[number].tiles.append(op)
    ring_of = {value: numbers[find_root(value)] for value in list(tiles)}
    for value, number in ring_of.items():
        _live(rings[number], value, positions)
    for ring in rings:
        ring.busy_first = min(ring.busy_first, ring.first)
        ring.busy_last = max(ring.busy_last, ring.last)
    for op in kernel.walk():
        if isinstance(op, STORES):
            ring = rings[ring_of[op.tile]]
            ring.stored_in_loop |= any(_common_loop(op, tile) for tile in ring.tiles)
    return rings, ring_of


def _live(ring: Ring, value: SSAValue, positions: _Positions) -> None:
    """Extend `ring` by the life of one of its values."""
    owner = value.owner
    if isinstance(owner, Block):
        # The loop's operands and its yield are uses from its begin to its end.
        home = owner
    else:
        _extend(ring, positions.at[owner], positions.at[owner])
        home = owner.parent_block()
        _keep_busy(ring, owner, positions)
    for use in value.uses:
        op = use.operation
        _extend(ring, positions.at[op], positions.at[op])
        _keep_busy(ring, op, positions)
        # A value from outside of a loop is read in every iteration.
        while op.parent_block() is not home:
            parent = op.parent_op()
            assert parent is not None
            op = parent
            _extend(ring, *positions.loops[op])


def _extend(ring: Ring, first: int, last: int) -> None:
    ring.first, ring.last = min(ring.first, first), max(ring.last, last)


def _keep_busy(ring: Ring, op: Operation, positions: _Positions) -> None:
    loop = op.parent_op()
    if isinstance(op, GDMA_OPS) and loop is not None and loop in positions.loops:
        first, last = positions.loops[loop]
        ring.busy_first, ring.busy_last = min(ring.busy_first, first), max(ring.busy_last, last)


def _common_loop(one: Operation, other: Operation) -> bool:
    def loops(op: Operation) -> list[Operation]:
        found: list[Operation] = []
        parent = op.parent_op()
        while isinstance(parent, scf.ForOp):
            found.append(parent)
            parent = parent.parent_op()
        return found

    around = loops(other)
    return any(loop in around for loop in loops(one))
