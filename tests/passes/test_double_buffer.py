"""The structure that `double-buffer` gives to loops; `test_lowering.py` has the numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.passes.lowering import KERNELS, in_place, lower, matmul, views
from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr
from xdsl.ir import Block, Operation

from tilewright.dialects import bdc, gdma
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.element_types import F32, I32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.kernels.commands import kernels_of
from tilewright.passes.kernels.index_arithmetic import known

TILE = LocalType.of(64, 64, F32)


def pipelined(kernel: func.FuncOp) -> Block:
    (result,) = kernels_of(lower(kernel, [DoubleBufferPass()]))
    return result.body.block


def shape(block: Block) -> list[str | list[object]]:
    """The names of the ops of a block, index arithmetic aside; loops as lists."""
    return [
        list(shape(op.body.block)) if isinstance(op, scf.ForOp) else op.name
        for op in block.ops
        if not isinstance(op, arith.ConstantOp | arith.AddiOp | arith.MuliOp | scf.YieldOp)
    ]


def test_one_loop():
    assert shape(pipelined(KERNELS["elementwise"]())) == [
        "gdma.load",
        ["gdma.load", "bdc.scalar", "bdc.unary", "gdma.store"],
        "bdc.scalar",
        "bdc.unary",
        "gdma.store",
        "func.return",
    ]


def test_next_loads_of_an_outer_loop_stand_behind_the_last_loop_that_loads():
    inner = ["gdma.load", "gdma.load", "bdc.mm_accumulate"]
    ahead = ["gdma.load", "gdma.load", "gdma.load"]
    finish = ["bdc.mm_accumulate", "bdc.binary", "gdma.store"]
    column = ["bdc.fill", inner, *ahead, *finish]
    last_column = ["bdc.fill", inner, *finish]
    assert shape(pipelined(matmul())) == [
        *ahead,
        [column, *column],
        column,
        *last_column,
        "func.return",
    ]


def test_a_loop_without_loads_keeps_next_loads_in_front():
    assert shape(pipelined(KERNELS["heads"]()))[2] == [
        "gdma.load",
        "bdc.fill",
        ["bdc.view", "bdc.mm_accumulate"],
        "gdma.store",
    ]


def test_what_a_store_may_change_is_not_loaded_ahead():
    before, after = lower(in_place(), []), lower(in_place(), [DoubleBufferPass()])
    assert print_module(before) == print_module(after)


def test_indices_that_are_written_are_not_read_ahead():
    build = views((64, 64, F32, "read"), (1, 64, I32, "update"), (64, 64, F32, "write"))
    table, indices, y = build.arguments
    row = LocalType.of(1, 32, I32)
    with build.loop(64, 32) as at:
        build.store(build.gather(table, 0, indices, at.index, LocalType.of(32, 64, F32)), y, 0, 0)
        build.store(build.load(indices, 0, at.index, row), indices, 0, at.index)
    block = pipelined(build.finish("f"))
    assert shape(block)[0] == ["gdma.gather", "gdma.store", "gdma.load", "gdma.store"]


def test_loops_that_run_once_or_never_are_gone():
    build = views((64, 128, F32, "read"), (64, 128, F32, "write"))
    x, y = build.arguments
    with build.loop(64, 64) as row, build.loop(128, 64) as col, build.loop(1, 1):
        with build.loop(row.index, 1):
            build.store(build.load(x, 0, 0, TILE), y, 0, 0)
        build.store(build.load(x, row.index, col.index, TILE), y, row.index, col.index)
    # The bound of the innermost loop is known once the outermost is gone: it never runs.
    assert shape(pipelined(build.finish("f"))) == [
        "gdma.load",
        ["gdma.load", "gdma.store"],
        "gdma.store",
        "func.return",
    ]


def test_a_loop_with_an_unknown_bound_stays():
    build = views((256, 64, F32, "read"), (256, 64, F32, "write"))
    x, y = build.arguments
    with build.loop(3, 1) as i, build.loop(build.mul(i.index, 64), 64) as row:
        build.store(build.load(x, row.index, 0, TILE), y, row.index, 0)
    kernel = build.finish("f")
    assert shape(pipelined(kernel)) == [[["gdma.load", "gdma.store"]], "func.return"]


def test_an_address_from_a_carried_index_is_computed_ahead():
    outer = next(op for op in pipelined(KERNELS["stacked"]()).ops if isinstance(op, scf.ForOp))
    # The tile of the next batch's first row is carried beside the start of the batch.
    assert [argument.type for argument in outer.body.block.args[2:]] == [LocalType.of(32, 70, F32)]


def test_an_address_that_a_loop_computes_is_not_known_ahead():
    build = views((256, 64, F32, "read"), (256, 64, F32, "write"))
    x, y = build.arguments
    with build.loop(128, 64) as row:
        with build.loop(2, 1, carried=[row.index]) as inner:
            inner.carry(build.add(inner.carried[0], 32))
        build.store(build.load(x, inner.results[0], 0, TILE), y, row.index, 0)
    assert shape(pipelined(build.finish("f")))[0] == [[], "gdma.load", "gdma.store"]


def test_a_carried_index_that_a_loop_computes_is_not_known_ahead():
    build = views((256, 64, F32, "read"), (256, 64, F32, "write"))
    x, y = build.arguments
    with build.loop(128, 64, carried=[build.constant(0)]) as row:
        build.store(build.load(x, row.carried[0], 0, TILE), y, row.index, 0)
        with build.loop(2, 1, carried=[row.carried[0]]) as inner:
            inner.carry(build.add(inner.carried[0], 32))
        row.carry(inner.results[0])
    assert shape(pipelined(build.finish("f")))[0] == ["gdma.load", "gdma.store", []]


@pytest.mark.parametrize("name", KERNELS)
def test_no_arithmetic_is_left_over(name: str):
    block = pipelined(KERNELS[name]())
    for op in block.walk():
        if isinstance(op, arith.ConstantOp | arith.AddiOp | arith.MuliOp):
            assert op.results[0].uses
        if isinstance(op, arith.AddiOp | arith.MuliOp):
            assert any(known(operand) is None for operand in op.operands) or op.parent_op() is None


@pytest.mark.parametrize("build", [matmul, KERNELS["elementwise"]])
def test_locations_stay(build: Callable[[], func.FuncOp]):
    kernel = build()
    location = FileLineColLoc(StringAttr("model.py"), IntAttr(3), IntAttr(1))

    def commands(block: Block) -> list[Operation]:
        return [op for op in block.walk() if op.name.startswith(("gdma.", "bdc.", "scf.for"))]

    for op in commands(kernel.body.block):
        op.location = location
    assert all(op.location == location for op in commands(pipelined(kernel)))


def test_only_kernels_are_touched():
    text = """
    func.func @f(%x : !gdma.global<128x64xf32>) {
      %zero = arith.constant 0 : index
      %one = arith.constant 1 : index
      scf.for %i = %zero to %one step %one {
        %t = gdma.load %x[%i, %zero] : !gdma.global<128x64xf32> -> !bdc.local<64x64xf32>
      }
      func.return
    }
    """
    module = parse_module(text, "test")
    before = print_module(module)
    DoubleBufferPass().apply(make_context(), module)
    assert print_module(module) == before
    assert [op for op in module.walk() if isinstance(op, gdma.LoadOp | bdc.ViewOp)]
