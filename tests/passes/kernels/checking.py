"""Runs the kernel of one op on the machine and holds it against the references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.program import Kernel
from tilewright.backends.reference import bounds, float64, typed
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import Schedule
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import (
    BF16,
    ELEMENT_TYPES,
    F16,
    F32,
    ElementType,
    tensor_type,
)
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

FLOATS = (F16, BF16, F32)
SCHEDULES: tuple[Schedule, ...] = ("early", "late")
SEGMENT_BYTES = 1 << 24
"""Global memory for each argument: far enough apart for every test."""

Array: TypeAlias = npt.NDArray[Any]
Build: TypeAlias = Callable[..., Operation]


@dataclass(frozen=True)
class Pitched:
    """An operand that is a range of columns of a wider tensor: NaN (or -1) lies around it."""

    values: Array
    left: int
    right: int

    def wide(self) -> Array:
        pad = [(0, 0)] * (self.values.ndim - 1) + [(self.left, self.right)]
        filler = np.nan if element_of(self.values).is_float else -1
        return np.pad(self.values, pad, constant_values=filler)


Operand: TypeAlias = Array | Pitched


def element_of(array: Array) -> ElementType:
    """The element type of an array."""
    return next(element for element in ELEMENT_TYPES if element.dtype == array.dtype)


def normal(shape: Sequence[int], element: ElementType, seed: int = 0, scale: float = 1.0) -> Array:
    """Normally distributed numbers."""
    numbers = np.random.default_rng([seed, *shape])
    return (numbers.standard_normal(tuple(shape)) * scale).astype(element.dtype)


def chip_file(folder: Path, lane_bytes: int) -> str:
    """A chip with so much local memory, and else like the default one."""
    text = resources.files("tilewright.backends.chips").joinpath("bm1684x.toml").read_text()
    path = folder / f"lanes_of_{lane_bytes}_bytes.toml"
    path.write_text(text.replace("lane_bytes = 262144", f"lane_bytes = {lane_bytes}"))
    return str(path)


def values_of(operand: Operand) -> Array:
    return operand.values if isinstance(operand, Pitched) else operand


@dataclass(frozen=True)
class Lowered:
    """An op with its kernel. `operands` are what the op reads, in order."""

    op: Operation
    kernel: Kernel
    operands: tuple[Operand, ...]
    chip: Chip

    def run(self, schedule: Schedule = "early") -> Array:
        """What the machine writes; operands it only reads are mapped read-only."""
        machine = Machine(self.chip, threads=1)
        shape, element = graph.shape_of(self.op.results[0]), graph.storage_of(self.op.results[0])
        in_place = isinstance(self.op, tpu.CacheUpdateOp)
        result = np.frombuffer(b"\xff" * (int(np.prod(shape)) * element.size_bytes), element.dtype)
        result = result.reshape(shape).copy()
        addresses: list[int] = []
        for operand in self.operands:
            array = operand.wide() if isinstance(operand, Pitched) else operand.copy()
            left = operand.left if isinstance(operand, Pitched) else 0
            base = self.chip.global_base + len(addresses) * SEGMENT_BYTES
            writable = in_place and not addresses
            result = array if writable else result
            machine.map(base, array, writable=writable)
            addresses.append(base + left * array.dtype.itemsize)
        if not in_place:
            addresses.append(self.chip.global_base + len(addresses) * SEGMENT_BYTES)
            machine.map(addresses[-1], result, writable=True)
        machine.run(self.kernel, addresses, schedule=schedule, name="test")
        return result


def lowered(build: Build, *operands: Operand, chip: str = "bm1684x") -> Lowered:
    """The kernel that the passes make of `build(*values)`; the op stays for the references."""
    wide = [each.wide() if isinstance(each, Pitched) else each for each in operands]
    block = Block(arg_types=[tensor_type(each.shape, element_of(each)) for each in wide])
    values: list[SSAValue] = list(block.args)
    for number, operand in enumerate(operands):
        if isinstance(operand, Pitched):
            shape = operand.values.shape
            offsets = [0] * (len(shape) - 1) + [operand.left]
            part = tpu.SliceOp(values[number], offsets, shape)
            block.add_op(part)
            values[number] = part.result
    op = build(*values)
    block.add_ops([op, func.ReturnOp(op.results[0])])
    types = [argument.type for argument in block.args]
    module = ModuleOp([func.FuncOp("f", (types, [op.results[0].type]), Region(block))])
    module.verify()
    kept = build(*values)
    passes: tuple[ModulePass, ...] = (
        TileForLocalMemoryPass(chip=chip),
        DoubleBufferPass(),
        AllocateLocalMemoryPass(chip=chip),
        InsertWaitsPass(),
        EmitCommandsPass(),
    )
    for each in passes:
        each.apply(make_context(), module)
        module.verify()
    (program,) = (item for item in module.walk() if isinstance(item, ProgramOp))
    return Lowered(kept, kernel_of(program), operands, load_chip(chip))


def check(build: Build, *operands: Operand, chip: str = "bm1684x", exact: bool = False) -> Lowered:
    """The kernel has no races, computes the same under both schedules, and is within the bound of
    the float64 reference; `exact`: equal to the typed reference to the bit. Returns it for more."""
    item = lowered(build, *operands, chip=chip)
    assert find_races(item.kernel, item.chip) == []
    early, late = (item.run(schedule) for schedule in SCHEDULES)
    assert_same_bits(early, late)
    inputs = [values_of(operand) for operand in operands]
    (wanted,) = float64.evaluate(item.op, inputs)
    wrong = bounds.outside(early, wanted, bounds.bound(item.op, inputs, wanted))
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} wrong, first at {np.argwhere(wrong)[0]}"
    if exact:
        assert_same_bits(early, typed.evaluate(item.op, inputs)[0])
    return item


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Equal bytes, but that any NaN equals any other."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    words = np.dtype(f"u{actual.dtype.itemsize}")
    same = np.ascontiguousarray(actual).view(words) == np.ascontiguousarray(expected).view(words)
    if element_of(actual).is_float:
        same |= np.isnan(actual) & np.isnan(expected)
    assert same.all(), f"{(~same).sum()} of {same.size} differ, first at {np.argwhere(~same)[0]}"
