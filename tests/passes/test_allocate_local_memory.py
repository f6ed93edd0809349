"""Where `allocate-local-memory` puts tiles: rings, depths, banks, and errors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from tests.passes.lowering import CHIP, KERNELS, elementwise, lower, matmul, views
from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation

from tilewright.backends import chip as chips
from tilewright.backends.cost import bank_conflicts
from tilewright.dialects import bdc, gdma
from tilewright.dialects.context import print_module
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.kernels.commands import kernels_of, new_tile
from tilewright.passes.kernels.expansion import expand

ALLOCATE = AllocateLocalMemoryPass()


def allocated(kernel: func.FuncOp, *, pipelined: bool = True) -> func.FuncOp:
    passes = [DoubleBufferPass(), ALLOCATE] if pipelined else [ALLOCATE]
    (result,) = kernels_of(lower(kernel, passes))
    return result


def offsets(op: Operation) -> tuple[int, ...]:
    values = getattr(op, "offsets", None)
    assert values is not None, op.name
    return tuple(values.get_values())


def of_kind(kernel: func.FuncOp, kind: type[Operation]) -> list[tuple[int, ...]]:
    return [offsets(op) for op in kernel.walk() if isinstance(op, kind)]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("pipelined", [True, False])
def test_every_tile_has_aligned_offsets_in_local_memory(name: str, pipelined: bool):
    kernel = allocated(KERNELS[name](), pipelined=pipelined)
    for op in kernel.walk():
        if (tile := new_tile(op)) is not None:
            assert isinstance(tile.type, LocalType)
            for offset in offsets(op):
                assert offset % 64 == 0
                assert 0 <= offset <= CHIP.lane_bytes - tile.type.lane_bytes(CHIP.lanes)
    lanes = kernel.attributes["tpu.lanes"]
    assert isinstance(lanes, IntegerAttr)
    assert lanes.value.data == CHIP.lanes


def test_tiles_loaded_ahead_share_a_ring_of_two():
    loads = of_kind(allocated(matmul()), gdma.LoadOp)
    assert len(set(loads)) == 3
    assert all(len(ring) == 2 for ring in loads)


def test_without_double_buffer_loads_have_one_buffer():
    assert {len(ring) for ring in of_kind(allocated(matmul(), pipelined=False), gdma.LoadOp)} == {1}


def test_a_tile_stored_in_a_loop_has_two_buffers():
    kernel = allocated(elementwise(), pipelined=False)
    assert [len(ring) for ring in of_kind(kernel, bdc.UnaryOp)] == [2]
    assert [len(ring) for ring in of_kind(kernel, bdc.ScalarOp)] == [1]


def test_a_carried_tile_has_as_many_buffers_as_its_reads_need():
    build = views((64, 640, F32, "read"), (64, 64, F32, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 64, F32)
    start = [build.load(x, 0, col, tile) for col in (0, 64)]
    with build.loop(640, 64, start=128, carried=start) as col:
        older, newer = col.carried
        loaded = build.load(x, 0, col.index, tile)
        build.store(build.binary(bdc.BinaryFunction.ADD, older, loaded, tile), y, 0, 0)
        col.carry(newer, loaded)
    kernel = allocated(build.finish("f"), pipelined=False)
    loads = of_kind(kernel, gdma.LoadOp)
    assert len(set(loads)) == 1
    assert len(loads[0]) == 3


def test_big_operands_of_a_command_lie_in_different_banks():
    kernel = allocated(matmul(512, 512, 512, tile=256))
    assert not bank_conflicts(expand(kernel).bdc, CHIP).any()


def test_dead_space_is_used_again():
    build = views((64, 32768, F16, "read"), (64, 32768, F16, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 32768, F16)
    value = build.load(x, 0, 0, tile)
    for _ in range(5):
        value = build.unary(bdc.UnaryFunction.ABS, value, tile)
    build.store(value, y, 0, 0)
    kernel = allocated(build.finish("f"))
    places = [offsets(op)[0] for op in kernel.walk() if new_tile(op) is not None]
    assert max(places) + 65536 <= CHIP.lane_bytes
    assert all(one != other for one, other in pairwise(places))


def test_second_buffers_are_given_up_where_memory_is_short():
    build = views((256, 40960, F16, "read"), (256, 40960, F16, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 40960, F16)
    with build.loop(256, 64) as row:
        loaded = build.load(x, row.index, 0, tile)
        build.store(build.unary(bdc.UnaryFunction.ABS, loaded, tile), y, row.index, 0)
    kernel = allocated(build.finish("f"), pipelined=False)
    assert [len(ring) for ring in of_kind(kernel, bdc.UnaryOp)] == [2]

    build = views((256, 60000, F16, "read"), (256, 60000, F16, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 60000, F16)
    with build.loop(256, 64) as row:
        loaded = build.load(x, row.index, 0, tile)
        build.store(build.unary(bdc.UnaryFunction.ABS, loaded, tile), y, row.index, 0)
    kernel = allocated(build.finish("f"), pipelined=False)
    assert [len(ring) for ring in of_kind(kernel, bdc.UnaryOp)] == [1]


def test_tiles_that_do_not_fit_are_named():
    build = views((64, 80000, F16, "read"), (64, 80000, F16, "write"))
    x, y = build.arguments
    tile = LocalType.of(64, 80000, F16)
    build.store(build.unary(bdc.UnaryFunction.ABS, build.load(x, 0, 0, tile), tile), y, 0, 0)
    with pytest.raises(FitError) as caught:
        allocated(build.finish("big"))
    assert caught.value.what == "the tiles of kernel @big exceed local memory by 57856 bytes a lane"
    assert caught.value.why == (
        "they need 320000 of 262144 bytes; the largest are "
        "1 x 160000 bytes for gdma.load -> !bdc.local<64x80000xf16>, "
        "1 x 160000 bytes for bdc.unary -> !bdc.local<64x80000xf16>"
    )


def test_the_chip_is_an_option(tmp_path: Path):
    text = Path(chips.__file__).with_name("chips").joinpath("bm1684x.toml").read_text()
    small = tmp_path / "small.toml"
    small.write_text(text.replace("lanes = 64\n", "lanes = 16\n", 1))
    (kernel,) = kernels_of(lower(elementwise(), [AllocateLocalMemoryPass(chip=str(small))]))
    assert kernel.attributes["tpu.lanes"] == IntegerAttr(16, 64)


def test_allocation_is_deterministic():
    passes = [DoubleBufferPass(), ALLOCATE]
    assert print_module(lower(matmul(), passes)) == print_module(lower(matmul(), passes))
