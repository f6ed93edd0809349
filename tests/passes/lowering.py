"""Kernels that exercise the passes, and how tests lower and run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Access, Kernel
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.schedule import Schedule
from tilewright.dialects import bdc
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F16, F32, I32, ElementType
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.registry import check_stage

CHIP = load_chip("bm1684x")
PASSES: tuple[ModulePass, ...] = (
    DoubleBufferPass(),
    AllocateLocalMemoryPass(),
    InsertWaitsPass(),
    EmitCommandsPass(),
)

Array: TypeAlias = npt.NDArray[Any]


def lower(kernel: func.FuncOp, passes: Sequence[ModulePass] = PASSES) -> ModuleOp:
    """A module of `kernel` after `passes`, verified after each."""
    module, context = ModuleOp([kernel]), make_context()
    verify_module(module)
    for each in passes:
        each.apply(context, module)
        verify_module(module)
        check_stage(module, each.name)
    return module


def emitted(kernel: func.FuncOp, *, skip: Sequence[str] = ()) -> Kernel:
    """The encoded kernel, after all passes but those in `skip`."""
    module = lower(kernel, [each for each in PASSES if each.name not in skip])
    (program,) = module.body.ops
    assert isinstance(program, ProgramOp)
    return kernel_of(program)


def run(kernel: Kernel, arrays: Sequence[Array], schedule: Schedule) -> list[Array]:
    """The arrays of all arguments after the machine ran `kernel`; those given stay as they are."""
    machine, copies, addresses = Machine(CHIP, threads=1), [], list[int]()
    for array, argument in zip(arrays, kernel.arguments, strict=True):
        copies.append(array.copy())
        addresses.append(CHIP.global_base + len(addresses) * (1 << 24))
        machine.map(addresses[-1], copies[-1], writable=argument.access != "read")
    machine.run(kernel, addresses, schedule=schedule)
    return copies


def inputs_of(kernel: Kernel) -> list[Array]:
    """Random numbers for each argument; a permutation of the rows for indices."""
    numbers = np.random.default_rng(7)
    arrays: list[Array] = []
    for argument in kernel.arguments:
        width = argument.pitch_bytes // argument.element.size_bytes
        if argument.element == I32:
            arrays.append(numbers.permutation(width)[None, :].astype(np.int32))
        else:
            values = numbers.standard_normal((argument.rows, width))
            arrays.append(values.astype(argument.element.dtype))
    return arrays


def views(*arguments: tuple[int, int, ElementType, Access]) -> KernelBuilder:
    """A builder with contiguous arguments: rows, columns, element, access."""
    return KernelBuilder(
        [(GlobalType.of(rows, cols, element), access) for rows, cols, element, access in arguments]
    )


def matmul(m: int = 200, n: int = 140, k: int = 150, tile: int = 64) -> func.FuncOp:
    """Three nested loops with tails, sums carried by the innermost, a bias row, a stored result."""
    build = views(
        (m, k, F16, "read"), (n, k, F16, "read"), (1, n, F16, "read"), (m, n, F16, "write")
    )
    x, w, bias, y = build.arguments
    with build.loop(m, tile) as row, build.loop(n, tile) as col:
        b = build.load(bias, 0, col.index, LocalType.of(1, tile, F16, replicated=True))
        zero = build.fill(0.0, LocalType.of(tile, tile, F32))
        with build.loop(k, tile, carried=[zero]) as depth:
            left = build.load(x, row.index, depth.index, LocalType.of(tile, tile, F16))
            right = build.load(w, col.index, depth.index, LocalType.of(tile, tile, F16))
            depth.carry(build.mm_accumulate(depth.carried[0], 0, left, right, transpose_right=True))
        total = depth.results[0]
        result = build.binary(bdc.BinaryFunction.ADD, total, b, LocalType.of(tile, tile, F16))
        build.store(result, y, row.index, col.index)
    return build.finish("matmul")


def elementwise(rows: int = 200, cols: int = 96) -> func.FuncOp:
    """One loop: load, compute, store."""
    build = views((rows, cols, F32, "read"), (rows, cols, F16, "write"))
    x, y = build.arguments
    with build.loop(rows, 64) as row:
        tile = build.load(x, row.index, 0, LocalType.of(64, cols, F32))
        half = build.scalar(bdc.BinaryFunction.MUL, tile, 0.5, LocalType.of(64, cols, F32))
        root = build.unary(bdc.UnaryFunction.TANH, half, LocalType.of(64, cols, F16))
        build.store(root, y, row.index, 0)
    return build.finish("elementwise")


def running_maximum() -> func.FuncOp:
    """A loop that carries a new tile each time, which is read after its successor is made."""
    build = views((100, 256, F32, "read"), (100, 1, F32, "write"), (100, 1, F32, "write"))
    x, largest, products = build.arguments
    column = LocalType.of(64, 1, F32)
    with build.loop(100, 64) as row:
        low, zero = build.fill(-4.0, column), build.fill(0.0, column)
        with build.loop(256, 64, carried=[low, zero]) as col:
            tile = build.load(x, row.index, col.index, LocalType.of(64, 64, F32))
            here = build.reduce(bdc.ReduceFunction.MAX, tile, column)
            new = build.binary(bdc.BinaryFunction.MAX, col.carried[0], here, column)
            product = build.binary(bdc.BinaryFunction.MUL, new, col.carried[0], column)
            total = build.binary(bdc.BinaryFunction.ADD, col.carried[1], product, column)
            col.carry(new, total)
        build.store(col.results[0], largest, row.index, 0)
        build.store(col.results[1], products, row.index, 0)
    return build.finish("running_maximum")


def heads() -> func.FuncOp:
    """Views of a tile, read in an inner loop without loads and written through sums."""
    build = views((96, 256, F16, "read"), (64, 64, F16, "read"), (96, 256, F32, "write"))
    x, w, y = build.arguments
    weight = build.load(w, 0, 0, LocalType.of(64, 64, F16))
    with build.loop(96, 32) as row:
        tile = build.load(x, row.index, 0, LocalType.of(32, 256, F16))
        sums = build.fill(0.0, LocalType.of(32, 256, F32))
        with build.loop(256, 64, carried=[sums]) as head:
            part = build.view(tile, head.index, LocalType.of(32, 64, F16))
            head.carry(
                build.mm_accumulate(
                    head.carried[0], head.index, part, weight, transpose_right=False
                )
            )
        build.store(head.results[0], y, row.index, 0)
    return build.finish("heads")


def gather_scatter() -> func.FuncOp:
    """Rows of a table, rotated, written to where indices say."""
    build = views((300, 64, F16, "read"), (1, 300, I32, "read"), (300, 64, F16, "update"))
    table, indices, cache = build.arguments
    with build.loop(300, 128) as at:
        rows = build.gather(table, 0, indices, at.index, LocalType.of(128, 64, F16))
        turned = build.rotate(rows, LocalType.of(128, 64, F16), rotary_dim=32, interleaved=True)
        build.scatter(turned, cache, 0, indices, at.index)
    return build.finish("gather_scatter")


def in_place() -> func.FuncOp:
    """A loop that loads what the iteration before it has stored."""
    build = views((64, 320, F32, "update"))
    (x,) = build.arguments
    tile = LocalType.of(64, 64, F32)
    with build.loop(256, 64) as col:
        here = build.load(x, 0, col.index, tile)
        following = build.add(col.index, 64)
        total = build.binary(bdc.BinaryFunction.ADD, here, build.load(x, 0, following, tile), tile)
        build.store(total, x, 0, following)
    return build.finish("in_place")


def stacked() -> func.FuncOp:
    """Matrices on top of each other, tiles cut at the end of each, the loops' bounds in carried
    index arithmetic."""
    build = views((3 * 50, 70, F32, "read"), (3 * 50, 70, F32, "write"))
    x, y = build.arguments
    tile = LocalType.of(32, 70, F32)
    with build.loop(3, 1, carried=[build.constant(0)]) as batch:
        start = batch.carried[0]
        end = build.add(start, 50)
        with build.loop(64, 32) as row:
            at = build.add(start, row.index)
            loaded = build.load(x, at, 0, tile, limit=end)
            build.store(build.unary(bdc.UnaryFunction.NEG, loaded, tile), y, at, 0)
        batch.carry(end)
    return build.finish("stacked")


def transposed() -> func.FuncOp:
    """A transposition, and loops that run once and never."""
    build = views((64, 130, F16, "read"), (130, 64, F16, "write"))
    x, y = build.arguments
    with build.loop(64, 64) as row, build.loop(130, 64) as col:
        tile = build.load(x, row.index, col.index, LocalType.of(64, 64, F16))
        with build.loop(0, 1, carried=[tile]) as never:
            never.carry(build.load(x, 0, never.index, LocalType.of(64, 64, F16)))
        turned = build.transpose(never.results[0], LocalType.of(64, 64, F16))
        build.store(turned, y, col.index, row.index)
    return build.finish("transposed")


KERNELS: dict[str, Callable[[], func.FuncOp]] = {
    build.__name__: build
    for build in (
        matmul,
        elementwise,
        running_maximum,
        heads,
        gather_scatter,
        in_place,
        stacked,
        transposed,
    )
}


def expected(name: str, arrays: Sequence[Array]) -> dict[int, Array]:
    """What kernel `name` makes of its arguments, in float64: argument number and array."""
    wide = [array.astype(np.float64) for array in arrays]
    match name:
        case "matmul":
            return {3: wide[0] @ wide[1].T + wide[2]}
        case "elementwise":
            return {1: np.tanh(wide[0] * 0.5)}
        case "running_maximum":
            peaks = np.maximum.accumulate(
                np.stack([wide[0][:, i : i + 64].max(axis=1) for i in range(0, 256, 64)])
            )
            before = np.concatenate([np.full((1, 100), -4.0), peaks[:-1]])
            return {1: peaks[-1][:, None], 2: (before * peaks).sum(axis=0)[:, None]}
        case "heads":
            parts = [wide[0][:, i : i + 64] @ wide[1] for i in range(0, 256, 64)]
            return {2: np.concatenate(parts, axis=1)}
        case "gather_scatter":
            turned = np.zeros_like(wide[0])
            turned[:, 0:32:2], turned[:, 1:32:2] = -wide[0][:, 1:32:2], wide[0][:, 0:32:2]
            return {2: turned}
        case "in_place":
            return {0: np.concatenate(list(np.cumsum(np.split(wide[0], 5, axis=1), axis=0)), 1)}
        case "stacked":
            return {1: -wide[0]}
        case "transposed":
            return {1: wide[0].T}
        case _:
            raise KeyError(name)
