"""`tk.check`: a kernel run on the simulated machine and held against what its op means.

For every shape that is asked for, and others with remainders, on every chip: the kernel has no
races and breaks no rule of the machine, computes the same bits under the earliest and the latest
schedule, reads and writes nothing beside its tensors, and stays within the error bound of the op's
float64 reference. It says what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.backends.program import Kernel as MachineKernel
from tilewright.backends.reference import bounds, float64
from tilewright.backends.simulator.check import check_kernel
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import Schedule
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import ELEMENT_TYPES, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import AccuracyError, OptionError, SimulationError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.kernel_language.attach import Kernel
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.kernels.registry import register, temporarily
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

Array = NDArray[Any]
Build = Callable[..., Operation]
"""Makes the op of values of its operands: a class of ops, or a function."""
Operand = tuple[tuple[int, ...], ElementType]
Shape = tuple[int, ...]

CODES_FROM, CODES_TO = -127, 128
GUARD_BYTES = 1 << 12
"""Unmapped bytes around each tensor: an access beside it is found."""


@dataclass(frozen=True)
class Checked:
    """A kernel that is right for `shapes` on `chip`."""

    chip: str
    shapes: tuple[Shape, ...]
    cycles: int
    worst: float
    """The largest error, as a share of its bound."""

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) or "1" for shape in self.shapes)
        return (
            f"{self.chip:8s} {self.cycles:12,d} cycles, error {self.worst:4.0%} of its bound"
            f"  {shapes}"
        )


@dataclass(frozen=True)
class Built:
    """An op with the commands of its kernel."""

    op: Operation
    kernel: MachineKernel
    chip: Chip

    @property
    def cycles(self) -> int:
        """By the time model."""
        return time_kernel(self.kernel, self.chip).cycles

    def run(self, inputs: Sequence[Array], schedule: Schedule = "early") -> Array:
        """What the machine makes of `inputs`, which it cannot write to.

        Raises `SimulationError` for an access beside a tensor.
        """
        machine = Machine(self.chip, threads=1)
        result = self.op.results[0]
        shape, dtype = shape_of(result), storage_of(result).dtype
        output = np.frombuffer(b"\xff" * (int(np.prod(shape)) * dtype.itemsize), dtype)
        output = output.reshape(shape).copy()
        addresses: list[int] = []
        base = self.chip.global_base
        for array in (*inputs, output):
            machine.map(base, array, writable=array is output)
            addresses.append(base)
            step = array.nbytes + GUARD_BYTES
            base += -(-step // self.chip.global_alignment) * self.chip.global_alignment
        machine.run(self.kernel, addresses, schedule=schedule, name=self.op.name)
        return output


def build(
    make: Build | Kernel,
    *operands: Operand,
    chip: str = "bm1684x",
    pipelined: bool = True,
) -> Built:
    """The op `make(*values)` on tensors of those shapes and types, and its kernel for `chip`.

    Where an op has several kernels, `make` is the one that is meant. One that is not `pipelined` is
    built without `double-buffer`: nothing overlaps.

    Raises what op, kernel and passes raise.
    """
    module = trace(make, *operands, chip=chip)
    passes: tuple[ModulePass, ...] = (
        *([DoubleBufferPass()] if pipelined else []),
        AllocateLocalMemoryPass(chip=chip),
        InsertWaitsPass(),
        EmitCommandsPass(),
    )
    for each in passes:
        each.apply(make_context(), module)
        verify_module(module)
    (program,) = (item for item in module.walk() if isinstance(item, ProgramOp))
    kept = _maker(make)(*Block(arg_types=_types(operands)).args)
    return Built(kept, kernel_of(program), load_chip(chip))


def trace(make: Build | Kernel, *operands: Operand, chip: str = "bm1684x") -> ModuleOp:
    """The module of `make(*values)` with its kernel as traced: loops of loads, compute and stores,
    before the passes that `build` runs. `tw opt` takes its text.
    """
    block = Block(arg_types=_types(operands))
    op = _maker(make)(*block.args)
    block.add_ops([op, func.ReturnOp(op.results[0])])
    types = ([argument.type for argument in block.args], [op.results[0].type])
    module = ModuleOp([func.FuncOp("main", types, Region(block))])
    verify_module(module)
    with temporarily():
        if isinstance(make, Kernel):
            register(make.op_class)(make.build)
        TileForLocalMemoryPass(chip=chip).apply(make_context(), module)
    verify_module(module)
    return module


def _maker(make: Build | Kernel) -> Build:
    return make.op_class if isinstance(make, Kernel) else make


def _types(operands: Sequence[Operand]) -> list[TensorType]:
    return [tensor_type(tuple(shape), element) for shape, element in operands]


def check(
    make: Build | Kernel,
    *operands: tuple[Shape, ElementType] | Array,
    chips: Sequence[str] = CHIP_NAMES,
    remainders: bool = True,
    seed: int = 0,
) -> list[Checked]:
    """Check the kernel of `make(*operands)`: see the module. Returns what it costs, by chip and
    shapes.

    `operands` are shapes with element types, for which numbers are made up, or arrays. With
    `remainders` also with one row less and 37 rows more (of the leading size that the first operand
    and others share); shapes that the op refuses are left out.

    Raises `AccuracyError` for a wrong number and `SimulationError` for a command that is illegal or
    in a race, with what op, kernel and passes raise.
    """
    checked: list[Checked] = []
    for number, arrays in enumerate(_cases(operands, remainders=remainders, seed=seed)):
        for chip in chips:
            kinds = [(array.shape, _element(array)) for array in arrays]
            try:
                built = build(make, *kinds, chip=chip)
            except VerifyException:
                if number == 0:
                    raise
                continue
            shapes = tuple(array.shape for array in arrays)
            checked.append(Checked(chip, shapes, built.cycles, _compare(built, arrays)))
    return checked


def _compare(built: Built, arrays: Sequence[Array]) -> float:
    """Run both schedules against the reference; the largest error as a share of its bound."""
    where = f"{built.op.name} of {', '.join(map(_describe, arrays))} on {built.chip.name}"
    check_kernel(built.kernel, built.chip)
    races = find_races(built.kernel, built.chip)
    if races:
        raise SimulationError(f"{len(races)} races, the first: {races[0]}", where=where)
    early, late = built.run(arrays, "early"), built.run(arrays, "late")
    if early.tobytes() != late.tobytes():
        raise SimulationError("the result depends on how the engines' queues overlap", where=where)
    (exact,) = float64.evaluate(built.op, arrays)
    limit = bounds.bound(built.op, arrays, exact)
    wrong = bounds.outside(early, exact, limit)
    if bool(wrong.any()):
        at = tuple(int(part) for part in np.argwhere(wrong)[0])
        allowed = 0.0 if limit is None else float(limit[at])
        raise AccuracyError(
            f"{int(wrong.sum())} of {wrong.size} elements are wrong",
            where=where,
            why=f"element {list(at)} is {float(early[at])!r}, not {float(exact[at])!r} "
            f"within {allowed:.3g}",
            hint="compare the kernel with the op's definition at these shapes"
            + (": other rows are right" if not wrong.all() else ""),
        )
    if limit is None:
        return 0.0
    with np.errstate(all="ignore"):
        shares = np.abs(early.astype(np.float64) - exact) / limit
    return float(np.max(shares, initial=0.0, where=np.isfinite(shares)))


def _cases(
    operands: Sequence[tuple[Shape, ElementType] | Array], *, remainders: bool, seed: int
) -> Iterator[list[Array]]:
    """The operands as given, and with other numbers of rows."""
    if not operands:
        raise OptionError(
            "tk.check needs operands", hint="tk.check(Op, ((512, 4096), tk.f16), ...)"
        )
    yield [_array(each, _shape(each), seed, n) for n, each in enumerate(operands)]
    rows = _shape(operands[0])[0] if _shape(operands[0]) else 0
    for changed in (rows - 1, rows + 37) if remainders else ():
        if changed > 0:
            shapes = [_with_rows(_shape(each), rows, changed) for each in operands]
            yield [_array(each, shapes[n], seed, n) for n, each in enumerate(operands)]


def _shape(operand: tuple[Shape, ElementType] | Array) -> Shape:
    """The shape of an operand of `check`."""
    return operand.shape if isinstance(operand, np.ndarray) else tuple(operand[0])


def _with_rows(shape: Shape, rows: int, changed: int) -> Shape:
    return (changed, *shape[1:]) if len(shape) > 1 and shape[0] == rows else shape


def _array(
    operand: tuple[Shape, ElementType] | Array, shape: Shape, seed: int, number: int
) -> Array:
    """Numbers for an operand: normal floats, codes of all sizes, row 0 or 1, or rows as given."""
    rng = np.random.default_rng([seed, number, *shape])
    if isinstance(operand, np.ndarray):
        return np.ascontiguousarray(np.resize(operand, shape))
    element = operand[1]
    if element == I8:
        return rng.integers(CODES_FROM, CODES_TO, shape).astype(np.int8)
    if element == I32:
        return rng.integers(0, 2, shape).astype(np.int32)
    numbers = rng.standard_normal(shape)
    # Scales of codes are columns of positive numbers: sums then keep the size of their operands.
    if len(shape) == 2 and shape[1] == 1:
        numbers = (np.abs(numbers) + 0.5) / CODES_TO
    return numbers.astype(element.dtype)


def _element(array: Array) -> ElementType:
    return next(element for element in ELEMENT_TYPES if element.dtype == array.dtype)


def _describe(array: Array) -> str:
    return f"{_element(array).name}{list(array.shape)}"
