"""The `bdc.program` that `emit-commands` makes of a kernel."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.lowering import PASSES, elementwise, emitted, heads, lower, matmul, views
from xdsl.dialects import func
from xdsl.dialects.builtin import (
    DenseArrayBase,
    FileLineColLoc,
    IntAttr,
    ModuleOp,
    StringAttr,
    i32,
)

from tilewright.backends.encoding.records import BdcFlag, BdcOpcode, BMode, GdmaOpcode, ReduceCode
from tilewright.backends.program import KernelArgument
from tilewright.dialects import bdc, gdma
from tilewright.dialects.bdc.program import ProgramOp, RecordsAttr
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.element_types import F16, F32, I8, I32
from tilewright.dialects.errors import IRError
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.program import kernel_of


def program_of(module: ModuleOp) -> ProgramOp:
    (program,) = module.body.ops
    assert isinstance(program, ProgramOp)
    return program


def test_ids_count_from_one():
    kernel = emitted(matmul())
    for records in (kernel.gdma, kernel.bdc):
        assert records["id"].tolist() == list(range(1, len(records) + 1))


def test_arguments_name_and_op():
    build = KernelBuilder(
        [(GlobalType.of(8, 64, F16, 256), "read"), (GlobalType.of(8, 64, F16), "write")]
    )
    tile = build.load(build.arguments[0], 0, 0, LocalType.of(8, 64, F16))
    build.store(
        build.unary(bdc.UnaryFunction.ABS, tile, LocalType.of(8, 64, F16)), build.arguments[1], 0, 0
    )
    function = build.finish("absolute")
    function.attributes["tpu.op"] = StringAttr("tpu.Abs")
    kernel = emitted(function)
    assert (kernel.name, kernel.op) == ("absolute", "tpu.Abs")
    assert kernel.arguments == (
        KernelArgument(8, 64, F16, 256, "read"),
        KernelArgument(8, 64, F16, 128, "write"),
    )


def test_the_program_has_the_kernels_location_and_place():
    function = elementwise()
    location = FileLineColLoc(StringAttr("model.py"), IntAttr(3), IntAttr(1))
    function.location = location
    other = func.FuncOp("other", ((), ()))
    other.body.block.add_op(func.ReturnOp())
    module = ModuleOp([function, other])
    for each in PASSES:
        each.apply(make_context(), module)
    program, last = module.body.ops
    assert isinstance(program, ProgramOp)
    assert program.location == location
    assert last is other


def test_local_bytes_end_with_the_highest_tile():
    kernel = emitted(elementwise(64, 96))
    ends = [
        *(kernel.gdma["local_offset"] + kernel.gdma["local_stride"]),
        *(kernel.bdc["dst"]["offset"] + kernel.bdc["dst"]["stride"]),
    ]
    assert kernel.local_bytes == max(ends)


def test_records_of_every_op():
    build = views(
        (40, 128, F16, "read"), (1, 64, I32, "read"), (40, 128, I8, "read"),
        (40, 1, F32, "read"), (64, 128, F16, "write"), (40, 40, F32, "write"),
    )  # fmt: skip
    table, indices, codes, scale, y, z = build.arguments
    tile, square = LocalType.of(40, 128, F16), LocalType.of(40, 40, F32)
    gathered = build.gather(table, 0, indices, 4, tile)
    loaded = build.load(codes, 0, 0, LocalType.of(40, 128, I8))
    factor = build.load(scale, 0, 0, LocalType.of(40, 1, F32))
    row = build.load(table, 3, 0, LocalType.of(1, 128, F16, replicated=True))
    weight = build.dequant(loaded, factor, tile)
    shifted = build.binary(bdc.BinaryFunction.SUB, weight, row, tile)
    doubled = build.unary(bdc.UnaryFunction.NEG, row, LocalType.of(1, 128, F16, replicated=True))
    mixed = build.binary(bdc.BinaryFunction.MAX, shifted, doubled, tile)
    scaled = build.binary(bdc.BinaryFunction.DIV, mixed, factor, tile)
    product = build.mm(gathered, scaled, square, transpose_right=True)
    high = build.reduce(bdc.ReduceFunction.MAX, product, LocalType.of(40, 1, F32))
    part = build.view(product, 8, LocalType.of(40, 32, F32))
    halved = build.scalar(bdc.BinaryFunction.MUL, part, 0.5, LocalType.of(40, 32, F32))
    build.store(halved, z, 0, 8)
    turned = build.transpose(high, LocalType.of(1, 40, F32))
    build.store(turned, z, 0, 0)
    rotated = build.rotate(gathered, tile, rotary_dim=64, interleaved=False)
    build.scatter(rotated, y, 0, indices, 4)
    kernel = emitted(build.finish("all"))

    assert kernel.gdma["opcode"].tolist() == [
        GdmaOpcode.GATHER, GdmaOpcode.LOAD, GdmaOpcode.LOAD, GdmaOpcode.LOAD_REPLICATED,
        GdmaOpcode.STORE, GdmaOpcode.STORE, GdmaOpcode.SCATTER,
    ]  # fmt: skip
    assert kernel.gdma["argument"].tolist() == [0, 2, 3, 0, 5, 5, 4]
    assert kernel.gdma["index_offset"].tolist() == [16, 0, 0, 0, 0, 0, 16]
    assert kernel.gdma["index_argument"].tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert kernel.gdma["table_rows"].tolist() == [40, 0, 0, 0, 0, 0, 64]
    assert kernel.gdma["global_offset"].tolist() == [0, 0, 0, 3 * 256, 32, 0, 0]
    assert kernel.gdma["pitch"].tolist() == [256, 128, 4, 256, 160, 160, 256]
    assert kernel.gdma["rows"].tolist() == [40, 40, 40, 1, 40, 1, 40]
    assert kernel.gdma["cols"].tolist() == [128, 128, 1, 128, 32, 40, 128]

    names = ["opcode", "rows", "cols", "depth", "b_mode", "flags"]
    rows = [tuple(record) for record in kernel.bdc[names].tolist()]
    assert rows == [
        (BdcOpcode.DEQUANT, 40, 128, 0, BMode.FULL, 0),
        (BdcOpcode.BINARY, 40, 128, 0, BMode.ROW, 0),
        (BdcOpcode.UNARY, 1, 128, 0, BMode.FULL, BdcFlag.REPLICATED),
        (BdcOpcode.BINARY, 40, 128, 0, BMode.ROW, 0),
        (BdcOpcode.BINARY, 40, 128, 0, BMode.COLUMN, 0),
        (BdcOpcode.MM, 40, 40, 128, BMode.FULL, BdcFlag.TRANSPOSE_RIGHT),
        (BdcOpcode.REDUCE, 40, 40, 0, BMode.FULL, 0),
        (BdcOpcode.BINARY, 40, 32, 0, BMode.IMMEDIATE, 0),
        (BdcOpcode.TRANSPOSE, 40, 1, 0, BMode.FULL, 0),
        (BdcOpcode.ROTATE, 40, 128, 64, BMode.FULL, 0),
    ]
    mm, reduce, halve = kernel.bdc[5], kernel.bdc[6], kernel.bdc[7]
    assert reduce["function"] == ReduceCode.MAX
    assert halve["immediate"] == np.float32(0.5)
    # A view is its tile, some columns on, with its tile's stride.
    assert halve["a"]["offset"] == mm["dst"]["offset"] + 8 * 4
    assert halve["a"]["stride"] == mm["dst"]["stride"] == 192
    assert mm["dst_element"] == F32.code
    assert mm["a_element"] == mm["b_element"] == F16.code


def test_sums_are_written_at_their_column():
    kernel = emitted(heads())
    sums = kernel.bdc[kernel.bdc["opcode"] == BdcOpcode.MM]
    assert (sums["flags"] == BdcFlag.ACCUMULATE).all()
    assert (sums["dst"]["offset"][:4] - sums["dst"]["offset"][0]).tolist() == [0, 256, 512, 768]
    assert set(sums["dst"]["stride"].tolist()) == {1024}


def test_the_program_is_text_that_reads_back():
    module = lower(matmul())
    text = print_module(module)
    kernel, again = kernel_of(program_of(module)), kernel_of(program_of(parse_module(text, "text")))
    assert np.array_equal(kernel.gdma, again.gdma)
    assert np.array_equal(kernel.bdc, again.bdc)
    assert kernel.arguments == again.arguments


def test_waits_are_required():
    passes = [each for each in PASSES if each.name not in ("insert-waits", "emit-commands")]
    module = lower(elementwise(), passes)
    with pytest.raises(IRError, match=r"has no waits: run insert-waits"):
        EmitCommandsPass().apply(make_context(), module)


def test_waits_for_another_number_of_executions():
    module = lower(elementwise(), PASSES[:-1])
    load = next(op for op in module.walk() if isinstance(op, gdma.LoadOp))
    load.waits = DenseArrayBase.from_list(i32, [0, 0, 0])
    with pytest.raises(IRError, match=r"gdma\.load has 3 waits and is executed 1 times"):
        EmitCommandsPass().apply(make_context(), module)


@pytest.mark.parametrize("attribute", [None, StringAttr("sometimes")])
def test_the_access_of_an_argument_is_required(attribute: StringAttr | None):
    module = lower(elementwise(), PASSES[:-1])
    (function,) = module.body.ops
    assert isinstance(function, func.FuncOp)
    if attribute is None:
        function.arg_attrs = None
    else:
        assert function.arg_attrs is not None
        first = type(function.arg_attrs.data[0])({"tpu.access": attribute})
        function.arg_attrs = type(function.arg_attrs)([first, function.arg_attrs.data[1]])
    with pytest.raises(IRError, match="argument 0 of the kernel @elementwise"):
        EmitCommandsPass().apply(make_context(), module)


def test_cut_records_are_an_error():
    program = program_of(lower(elementwise()))
    program.bdc = RecordsAttr(program.bdc.data[:-1])
    with pytest.raises(IRError, match="the bdc records of @elementwise are cut"):
        kernel_of(program)
