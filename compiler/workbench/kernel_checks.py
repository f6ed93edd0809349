"""Whether a kernel that a pass has changed still does what it did.

A pass that changes kernels and leaves the functions that launch them alone is checked kernel by
kernel, on the arguments of the first launch of each: by the reference, its waits by vector clocks,
its encoded commands on the simulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.records import Records
from tilewright.backends.program import Kernel
from tilewright.backends.reference.balls import FLOAT64, MACHINE, VALUES, Ball
from tilewright.backends.reference.kernels.running import Kernel as CompiledKernel
from tilewright.backends.reference.numerics import ulp
from tilewright.backends.simulator.machine import Schedule
from tilewright.backends.simulator.order import find_races
from tilewright.compiler.workbench.evaluation import LOOSE, Launched, difference
from tilewright.compiler.workbench.simulation import Simulation, seen, stored
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import MiscompileError
from tilewright.passes.kernels.commands import GDMA_OPS, global_type
from tilewright.passes.kernels.expansion import expand

Array = npt.NDArray[Any]

_SCHEDULES: tuple[Schedule, ...] = ("early", "late")


def check_numbers(
    kernel: FuncOp, compiled: CompiledKernel, launched: Launched, pass_name: str
) -> None:
    """The kernel makes of the arguments of a launch what it made of them before the pass."""
    views = [global_type(argument) for argument in kernel.body.block.args]
    if len(views) != len(launched.before):
        why = f"it takes {len(views)} arguments, its launch has {len(launched.before)}"
        raise _error(kernel, launched, pass_name, "changes what {} is launched with", why)
    given = [
        seen(ball, view.rows, view.cols, view.pitch_bytes, view.element)
        for ball, view in zip(launched.before, views, strict=True)
    ]
    if _writes_the_same(compiled, given, launched):
        return
    after = compiled.run(given, FLOAT64)
    for index, (was, is_) in enumerate(zip(launched.after, after, strict=True)):
        if is_ is given[index]:
            continue
        found = difference(f"argument {index}", was, reshaped(is_, was), loose=LOOSE)
        if found is not None:
            raise _error(kernel, launched, pass_name, "changes what {} computes", str(found))


def _writes_the_same(compiled: CompiledKernel, given: list[Ball], launched: Launched) -> bool:
    """Whether the values are the same to the bit, as after most passes: radii need no look then."""
    values = compiled.run([Ball.exact(ball.value) for ball in given], VALUES)
    return all(
        np.array_equal(was.value.reshape(-1), is_.value.reshape(-1), equal_nan=True)
        for was, is_, access in zip(launched.after, values, compiled.access, strict=True)
        if access != "read"
    )


def has_waits(kernel: FuncOp) -> bool:
    """Whether every command of the kernel says what it waits for."""
    commands = [op for op in kernel.walk() if op.name.startswith(("gdma.", "bdc."))]
    waiting = ["waits" in op.properties for op in commands if op.name != "bdc.view"]
    return all(waiting) and bool(waiting)


def check_waits(kernel: FuncOp, launched: Launched | None, chip: Chip, pass_name: str) -> Kernel:
    """The commands of a kernel as they are to be encoded, which race nowhere."""
    encoded = _encoded(kernel)
    races = find_races(encoded, chip)
    if races:
        what = "leaves a race in {}" if len(races) == 1 else f"leaves {len(races)} races in {{}}"
        raise _error(kernel, launched, pass_name, what, str(races[0]))
    return encoded


def check_commands(
    program: ProgramOp,
    kernel: CompiledKernel,
    planned: Kernel | None,
    launched: Launched,
    simulation: Simulation,
    pass_name: str,
) -> list[str]:
    """The commands do what the kernel did: they race nowhere, keep the machine's rules, and give
    values within the bounds of the machine's arithmetic, whatever the timing of the engines.

    `planned` are commands that are known to race nowhere. Returns which arguments cannot be judged
    at all, since no element has a finite bound.
    """
    encoded = simulation.kernel(program)
    if planned is None or not _same_commands(planned, encoded):
        races = find_races(encoded, simulation.chip)
        if races:
            raise _error(program, launched, pass_name, "leaves a race in {}", str(races[0]))
    arrays = stored(encoded, launched.before)
    limits = kernel.run([Ball.exact(array) for array in arrays], MACHINE)
    written = [
        (index, limits[index], _radius(limits[index], argument.element))
        for index, argument in enumerate(encoded.arguments)
        if argument.access != "read"
    ]
    seen_before: list[Array] = []
    for schedule in _SCHEDULES:
        values = simulation.run(encoded, arrays, schedule)
        if seen_before and all(map(_same_bits, seen_before, values)):
            continue
        seen_before = values
        for index, limit, radius in written:
            value = Ball(values[index].reshape(radius.shape), radius)
            found = difference(f"argument {index}", limit, value)
            if found is not None:
                timing = f" (the GDMA as {schedule} as it may be)"
                what = "changes what the commands of {} compute"
                raise _error(program, launched, pass_name, what, f"{found}{timing}")
    return [
        f"argument {index} of {kernel_text(program)}: no bound is finite"
        for index, _, radius in written
        if bool(np.isposinf(radius).all())
    ]


def _same_bits(one: Array, other: Array) -> bool:
    return np.array_equal(one.view(np.uint8), other.view(np.uint8))


def _same_commands(one: Kernel, other: Kernel) -> bool:
    return np.array_equal(one.gdma, other.gdma) and np.array_equal(one.bdc, other.bdc)


def _radius(ball: Ball, element: ElementType) -> Array:
    """How far the simulator's value may be from the exact one, if the reference's is in `ball`.

    Both are rounded at the same places, so the same radius; more where the simulator's may lie
    beyond a power of two, behind which values have twice the distance.
    """
    if not element.is_float:
        return ball.radii
    size, reach = np.abs(ball.value), np.abs(ball.value) + 2 * ball.radii
    with np.errstate(all="ignore"):
        return ball.radii + ulp(reach, element) - ulp(size, element)


def _error(
    kernel: Operation, launched: Launched | None, pass_name: str, what: str, why: str
) -> MiscompileError:
    name = kernel_text(kernel)
    return MiscompileError(
        f"pass {pass_name} {what.format(name)}",
        where=None if launched is None else f"{launched.op}, run by @{launched.function}",
        why=why,
    )


def reshaped(ball: Ball, like: Ball) -> Ball:
    """What a kernel has written through a view, in the shape of its tensor."""
    shape = like.value.shape
    return Ball(ball.value.reshape(shape), ball.radii.reshape(shape))


def kernel_text(kernel: Operation) -> str:
    """A kernel as messages name it: `kernel @rms_norm_1x64_f16_12345678 (tpu.RMSNorm)`."""
    name, op = kernel.properties.get("sym_name"), kernel.attributes.get("tpu.op")
    if isinstance(kernel, ProgramOp):
        op = kernel.op
    text = f"kernel @{name.data}" if isinstance(name, StringAttr) else "a kernel"
    return f"{text} ({op.data})" if isinstance(op, StringAttr) else text


def _encoded(kernel: FuncOp) -> Kernel:
    """What `emit-commands` is to make of a kernel, made here without it."""
    expansion = expand(kernel)
    _number(expansion.gdma)
    _number(expansion.bdc)
    for number, op in enumerate(expansion.ops):
        assert op.waits is not None
        waits = np.frombuffer(op.waits.data.data, "<i4")
        if isinstance(op, GDMA_OPS):
            expansion.gdma["wait"][expansion.gdma_ops == number] = waits
        else:
            expansion.bdc["wait"][expansion.bdc_ops == number] = waits
    op = kernel.attributes.get("tpu.op")
    name = kernel.sym_name.data
    text = op.data if isinstance(op, StringAttr) else name
    return Kernel(name, text, (), expansion.gdma, expansion.bdc, 0)


def _number(records: Records) -> None:
    records["id"] = np.arange(1, len(records) + 1)
