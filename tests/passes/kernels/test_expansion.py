"""The commands of kernels as they will run: extents, addresses, rings, and what is an error."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.passes.lowering import lower, views
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import DenseArrayBase, IndexType, i32
from xdsl.ir import Operation

from tilewright.backends.encoding import records
from tilewright.dialects import bdc
from tilewright.dialects.element_types import F16, F32, I32
from tilewright.dialects.errors import FitError, InternalError, IRError
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.kernels import expansion as expansions
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.commands import kernels_of, new_tile
from tilewright.passes.kernels.expansion import Expansion, expand


def expanded(build: KernelBuilder) -> Expansion:
    (kernel,) = kernels_of(lower(build.finish("f"), [AllocateLocalMemoryPass()]))
    return expand(kernel)


def placed(kernel: func.FuncOp, *offsets: Sequence[int]) -> func.FuncOp:
    """`kernel`, its tiles at `offsets` in the order of its ops."""
    makers: list[Operation] = [op for op in kernel.walk() if new_tile(op) is not None]
    for op, ring in zip(makers, offsets, strict=True):
        op.properties["offsets"] = DenseArrayBase.from_list(i32, list(ring))
    return kernel


def test_tiles_are_cut_at_the_edges_of_their_view():
    build = views((100, 70, F32, "read"), (100, 70, F32, "write"))
    x, y = build.arguments
    with build.loop(100, 64) as row, build.loop(70, 64) as col:
        tile = build.load(x, row.index, col.index, LocalType.of(64, 64, F32))
        build.store(tile, y, row.index, col.index)
    expansion = expanded(build)
    extents = [(64, 64), (64, 6), (36, 64), (36, 6)]
    moved = list(zip(expansion.gdma["rows"].tolist(), expansion.gdma["cols"].tolist(), strict=True))
    assert moved == [each for each in extents for _ in range(2)]
    places = [0, 256, 64 * 280, 64 * 280 + 256]
    assert expansion.gdma["global_offset"].tolist() == [each for each in places for _ in range(2)]


def test_tiles_are_cut_at_a_limit():
    build = views((100, 64, F32, "read"), (100, 64, F32, "write"))
    x, y = build.arguments
    for limit in (30, 90, 200):
        tile = build.load(x, 20, 0, LocalType.of(64, 64, F32), limit=limit)
        build.store(tile, y, 20, 0)
    assert expanded(build).gdma["rows"].tolist() == [10, 10, 64, 64, 64, 64]


def test_gathers_end_with_the_indices_and_stores_with_the_view():
    build = views((80, 40, F32, "read"), (1, 70, I32, "read"), (80, 20, F32, "write"))
    x, indices, y = build.arguments
    tile = build.gather(x, 8, indices, 64, LocalType.of(64, 20, F32))
    build.scatter(tile, y, 4, indices, 66)
    full = build.fill(0.0, LocalType.of(64, 20, F32))
    build.store(full, y, 60, 5)
    gdma = expanded(build).gdma
    assert gdma["rows"].tolist() == [6, 4, 20]
    assert gdma["cols"].tolist() == [20, 16, 15]
    assert gdma["index_offset"].tolist() == [256, 264, 0]
    assert gdma["global_offset"].tolist() == [32, 16, 60 * 80 + 20]


def test_ops_take_the_extents_of_their_operands():
    build = views((40, 50, F16, "read"), (30, 50, F16, "read"), (40, 32, F32, "write"))
    x, w, y = build.arguments
    tile = LocalType.of(32, 50, F16)
    one, other = build.load(x, 32, 0, tile), build.load(w, 20, 0, tile)
    product = build.mm(one, other, LocalType.of(32, 32, F32), transpose_right=True)
    turned = build.transpose(product, LocalType.of(32, 32, F32))
    high = build.reduce(bdc.ReduceFunction.SUM, turned, LocalType.of(32, 1, F32))
    scaled = build.binary(bdc.BinaryFunction.MUL, turned, high, LocalType.of(32, 32, F32))
    build.store(scaled, y, 0, 0)
    expansion = expanded(build)
    assert expansion.bdc[["rows", "cols", "depth"]].tolist() == [
        (8, 10, 50), (8, 10, 0), (10, 8, 0), (10, 8, 0),
    ]  # fmt: skip
    assert expansion.gdma["rows"].tolist() == [8, 10, 10]


def test_a_filled_tile_takes_the_extents_of_what_it_meets():
    build = views((40, 50, F32, "read"), (40, 50, F32, "write"), (40, 64, F32, "write"))
    x, y, z = build.arguments
    tile = LocalType.of(32, 64, F32)
    zero = build.fill(0.0, tile)
    one = build.scalar(bdc.BinaryFunction.ADD, zero, 1.0, tile)
    cut = build.view(build.load(x, 32, 0, LocalType.of(32, 50, F32)), 0, LocalType.of(32, 50, F32))
    narrow = build.view(one, 0, LocalType.of(32, 50, F32))
    build.store(
        build.binary(bdc.BinaryFunction.ADD, narrow, cut, LocalType.of(32, 50, F32)), y, 0, 0
    )
    build.store(build.binary(bdc.BinaryFunction.ADD, one, zero, tile), z, 0, 0)
    assert expanded(build).bdc[["rows", "cols"]].tolist() == [(32, 64), (32, 64), (8, 50), (32, 64)]


def test_sums_shrink_to_what_is_added():
    build = views((40, 64, F16, "read"), (90, 64, F16, "read"), (40, 90, F32, "write"))
    x, w, y = build.arguments
    left = build.load(x, 32, 0, LocalType.of(32, 64, F16))
    sums = build.fill(0.0, LocalType.of(32, 128, F32))
    with build.loop(90, 64, carried=[sums]) as col:
        right = build.load(w, col.index, 0, LocalType.of(64, 64, F16))
        col.carry(build.mm_accumulate(col.carried[0], col.index, left, right, transpose_right=True))
    result = build.unary(bdc.UnaryFunction.CAST, col.results[0], LocalType.of(32, 128, F32))
    build.store(build.view(result, 0, LocalType.of(32, 90, F32)), y, 0, 0)
    rows = expanded(build).bdc[["rows", "cols"]].tolist()
    assert rows == [(32, 128), (8, 64), (8, 26), (8, 90)]


def test_index_arithmetic():
    build = views((640, 64, F32, "read"), (640, 64, F32, "write"))
    x, y = build.arguments
    index = IndexType()
    with build.loop(5, 2, start=1, carried=[build.constant(2)]) as i:
        ten, three = build.constant(10), build.constant(3)
        value = build.mul(i.index, i.carried[0])
        value = build.insert(arith.SubiOp(build.mul(value, 10), three, index)).results[0]
        whole = build.insert(arith.DivUIOp(value, ten, index)).results[0]
        rest = build.insert(arith.RemUIOp(value, ten, index)).results[0]
        tile = build.load(x, build.add(whole, rest), 0, LocalType.of(1, 64, F32))
        build.store(tile, y, i.carried[0], 0)
        i.carry(build.add(i.carried[0], 7))
    rows = (expanded(build).gdma["global_offset"] // 256).tolist()
    # 1 * 2 * 10 - 3 = 17 and 3 * 9 * 10 - 3 = 267.
    assert rows == [1 + 7, 2, 26 + 7, 9]


def test_ops_with_the_same_offsets_take_turns():
    build = views((64, 320, F32, "read"), (64, 320, F32, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 64, F32)
    build.store(build.load(x, 0, 0, tile), y, 0, 0)
    with build.loop(320, 64, start=64) as col:
        build.store(build.load(x, 0, col.index, tile), y, 0, col.index)
    ring = (0, 1024, 4096)
    gdma = expand(placed(build.finish("f"), ring, ring)).gdma
    loads = gdma["local_offset"][gdma["opcode"] == records.GdmaOpcode.LOAD]
    assert loads.tolist() == [0, 1024, 4096, 0, 1024]


def test_the_order_of_the_program():
    build = views((64, 128, F32, "read"), (64, 128, F32, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 64, F32)
    with build.loop(128, 64) as col:
        loaded = build.load(x, 0, col.index, tile)
        build.store(build.unary(bdc.UnaryFunction.NEG, loaded, tile), y, 0, col.index)
    expansion = expanded(build)
    assert [expansion.ops[i].name for i in expansion.order] == [
        "gdma.load", "bdc.unary", "gdma.store",
    ] * 2  # fmt: skip
    assert expansion.on_gdma.tolist() == [True, False, True] * 2
    assert expansion.gdma_ops.tolist() == [0, 2, 0, 2]
    assert expansion.bdc_ops.tolist() == [1, 1]


# Errors.


def test_a_tile_behind_the_edge():
    build = views((64, 64, F32, "read"), (64, 64, F32, "write"))
    x, y = build.arguments
    with build.loop(128, 64) as row:
        build.store(build.load(x, row.index, 0, LocalType.of(64, 64, F32)), y, 0, 0)
    with pytest.raises(InternalError, match=r"gdma\.load has an empty tile: 0x64"):
        expanded(build)


@pytest.mark.parametrize("op", ["store", "gather", "scatter", "view"])
def test_other_tiles_behind_the_edge(op: str):
    build = views((64, 64, F32, "update"), (1, 64, I32, "read"))
    x, indices = build.arguments
    tile = build.fill(0.0, LocalType.of(64, 64, F32))
    behind = build.add(build.constant(32), build.constant(32))
    match op:
        case "store":
            build.store(tile, x, behind, 0)
        case "gather":
            build.gather(x, 0, indices, behind, LocalType.of(64, 64, F32))
        case "scatter":
            build.scatter(tile, x, 0, indices, behind)
        case _:
            build.view(tile, behind, LocalType.of(64, 32, F32))
    with pytest.raises(InternalError, match=rf"{op} has an empty tile"):
        expanded(build)


def test_a_negative_position():
    build = views((64, 64, F32, "read"), (64, 64, F32, "write"))
    x, y = build.arguments
    before = build.insert(arith.SubiOp(build.constant(0), build.constant(8), IndexType()))
    build.store(build.load(x, before.results[0], 0, LocalType.of(8, 64, F32)), y, 0, 0)
    with pytest.raises(InternalError, match="empty tile"):
        expanded(build)


def test_extents_that_differ():
    build = views((64, 60, F32, "read"), (64, 50, F32, "read"), (64, 64, F32, "write"))
    x, w, y = build.arguments
    del y
    tile = LocalType.of(64, 50, F32)
    one, other = build.load(x, 0, 20, tile), build.load(w, 0, 0, tile)
    build.binary(bdc.BinaryFunction.ADD, one, other, tile)
    with pytest.raises(InternalError, match=r"bdc\.binary: the extents .* differ: 40 and 50"):
        expanded(build)


def test_depths_that_differ():
    build = views((64, 60, F32, "read"), (64, 50, F32, "read"), (64, 64, F32, "write"))
    x, w, y = build.arguments
    del y
    tile = LocalType.of(64, 50, F32)
    build.mm(
        build.load(x, 0, 20, tile),
        build.load(w, 0, 0, tile),
        LocalType.of(64, 64, F32),
        transpose_right=True,
    )
    with pytest.raises(InternalError, match=r"bdc\.mm: the extents .* differ: 40 and 50"):
        expanded(build)


def test_sums_that_are_too_narrow():
    build = views((64, 64, F32, "read"), (64, 64, F32, "write"))
    x, y = build.arguments
    del y
    tile = build.load(x, 0, 0, LocalType.of(64, 64, F32))
    sums = build.fill(0.0, LocalType.of(64, 128, F32))
    wide = build.view(sums, 80, LocalType.of(64, 64, F32))
    build.mm_accumulate(wide, 0, tile, tile, transpose_right=True)
    with pytest.raises(InternalError, match="64x64 products at column 0 do not fit sums of 64x48"):
        expanded(build)


def test_a_rotation_wider_than_what_is_left():
    build = views((64, 60, F32, "read"), (64, 64, F32, "write"))
    x, y = build.arguments
    del y
    tile = LocalType.of(64, 32, F32)
    build.rotate(build.load(x, 0, 40, tile), tile, rotary_dim=32, interleaved=True)
    with pytest.raises(InternalError, match="20 columns are left of the 32 that turn"):
        expanded(build)


def test_a_buffer_that_is_taken_again_too_early():
    build = views((64, 256, F32, "read"), (64, 256, F32, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 64, F32)
    with build.loop(256, 64, start=64, carried=[build.load(x, 0, 0, tile)]) as col:
        loaded = build.load(x, 0, col.index, tile)
        build.store(col.carried[0], y, 0, 0)
        col.carry(loaded)
    kernel = build.finish("f")
    assert len(expand(placed(kernel, (0, 256), (0, 256))).gdma) == 7
    with pytest.raises(InternalError, match="buffer has been taken again") as caught:
        expand(placed(kernel, (0,), (0,)))
    assert caught.value.why == "the ring [0] has 1 buffers, the read needs 2"


def test_tiles_without_offsets():
    build = views((64, 64, F32, "write"))
    build.store(build.fill(0.0, LocalType.of(64, 64, F32)), build.arguments[0], 0, 0)
    with pytest.raises(IRError, match=r"bdc\.fill has no offsets"):
        expand(build.finish("f"))


def test_an_op_that_has_no_place_in_a_kernel():
    build = views((64, 64, F32, "write"))
    build.insert(arith.MaxUIOp(build.constant(1), build.constant(2), IndexType()))
    with pytest.raises(IRError, match=r"arith\.maxui has no place in a kernel"):
        expand(build.finish("f"))


def test_more_commands_than_ids(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(expansions, "MAX_COMMAND_ID", 3)
    build = views((64, 256, F32, "write"))
    tile = build.fill(0.0, LocalType.of(64, 64, F32))
    with build.loop(256, 64) as col:
        build.store(tile, build.arguments[0], 0, col.index)
    with pytest.raises(FitError, match="has more commands than there are ids") as caught:
        expand(placed(build.finish("f"), (0,)))
    assert caught.value.why == "4 GDMA and 1 BDC commands; ids go to 3"
