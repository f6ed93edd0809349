"""Which tiles share buffers, and where those are live."""

from __future__ import annotations

from tests.passes.lowering import views
from xdsl.dialects import func
from xdsl.ir import Operation

from tilewright.dialects import bdc
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.rings import Ring, find_rings

TILE = LocalType.of(64, 64, F32)
ADD = bdc.BinaryFunction.ADD


def kernel() -> func.FuncOp:
    """Two loads in front of a loop that reads one and carries sums; another loop and a store."""
    build = views((64, 256, F32, "read"), (64, 256, F32, "write"))
    x, y = build.arguments
    outside, start = build.load(x, 0, 0, TILE), build.fill(0.0, TILE)
    with build.loop(256, 64, carried=[start]) as col:
        inside = build.load(x, 0, col.index, TILE)
        sums = build.mm_accumulate(col.carried[0], 0, inside, outside, transpose_right=True)
        col.carry(sums)
    total = col.results[0]
    with build.loop(256, 64) as col:
        part = build.view(total, 0, LocalType.of(64, 32, F32))
        made = build.unary(bdc.UnaryFunction.NEG, part, LocalType.of(64, 32, F32))
        build.store(made, y, 0, col.index)
    return build.finish("f")


def text(ring: Ring, ops: list[Operation]) -> tuple[str, str]:
    return ops[ring.first].name, ops[ring.last].name


def positions(function: func.FuncOp) -> list[Operation]:
    """The ops by position; the end of a loop is the loop again."""
    found: list[Operation] = []

    def visit(op: Operation) -> None:
        found.append(op)
        if op.regions:
            for inner in op.regions[0].block.ops:
                visit(inner)
            found.append(op)

    for op in function.body.block.ops:
        visit(op)
    return found


def test_rings_and_their_lives():
    function = kernel()
    rings, ring_of = find_rings(function)
    ops = positions(function)
    outside, start, inside, made = rings
    assert [[op.name for op in ring.tiles] for ring in rings] == [
        ["gdma.load"],
        ["bdc.fill"],
        ["gdma.load"],
        ["bdc.unary"],
    ]
    # Read in a loop: live until that loop ends.
    first_loop, second_loop = (op for op in function.body.block.ops if op.name == "scf.for")
    assert ops[outside.last] is first_loop
    assert outside.last > ops.index(first_loop)
    # The sums are the filled tile, and the view in the second loop reads them until it ends.
    assert set(ring_of.values()) == {0, 1, 2, 3}
    assert ops[start.last] is second_loop
    assert text(inside, ops) == ("gdma.load", "bdc.mm_accumulate")
    assert text(made, ops) == ("bdc.unary", "gdma.store")


def test_tiles_that_the_gdma_works_on_in_a_loop_are_busy_all_along():
    rings, _ = find_rings(kernel())
    outside, start, inside, made = rings
    assert (outside.busy_first, outside.busy_last) == (outside.first, outside.last)
    assert (start.busy_first, start.busy_last) == (start.first, start.last)
    assert inside.busy_first < inside.first
    assert inside.busy_last > inside.last
    assert made.busy_last - made.busy_first == 5


def test_only_what_is_made_and_stored_in_one_loop_is_marked():
    assert [ring.stored_in_loop for ring in find_rings(kernel())[0]] == [False, False, False, True]


def test_bytes_of_a_ring():
    rings, _ = find_rings(kernel())
    assert [ring.lane_bytes(64) for ring in rings] == [256, 256, 256, 128]
    assert [ring.lane_bytes(16) for ring in rings] == [1024, 1024, 1024, 512]
