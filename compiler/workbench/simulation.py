"""Programs on the simulated machine, for what they are checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.program import Kernel, KernelArgument, Program
from tilewright.backends.reference.balls import Ball
from tilewright.backends.simulator.machine import Machine, Schedule
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.memory_types import align_up
from tilewright.passes.kernels.program import kernel_of

Array = npt.NDArray[Any]

_POISON = 0xFF
_LEAST_ARENA = 1 << 20


class Simulation:
    """Runs single kernels on one machine, on arrays of the host."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self._machine = Machine(chip)
        self._arena = np.empty(0, np.uint8)
        self._kernels: dict[ProgramOp, Kernel] = {}

    def run(
        self, kernel: Kernel, arrays: Sequence[Array], schedule: Schedule = "early"
    ) -> list[Array]:
        """The arguments of a kernel after it ran on `arrays`: matrices of the rows and columns of
        its views, in their storage types.

        What it only writes is poison before. Raises `SimulationError`.
        """
        alignment = self.chip.global_alignment
        offsets: list[int] = []
        end = 0
        for argument in kernel.arguments:
            offsets.append(end)
            end = align_up(end + argument.span_bytes, alignment)
        self._map(end)
        self._arena[:end] = _POISON
        for argument, array, offset in zip(kernel.arguments, arrays, offsets, strict=True):
            if argument.access != "write":
                self._rows(argument, offset)[...] = _bytes_of(array, argument)
        base = self.chip.global_base
        self._machine.run(kernel, [base + offset for offset in offsets], schedule=schedule)
        return [
            np.array(self._rows(argument, offset)).view(argument.element.dtype)
            for argument, offset in zip(kernel.arguments, offsets, strict=True)
        ]

    def run_program(self, program: ProgramOp, balls: list[Ball]) -> list[Ball]:
        """The arguments of a `bdc.program` after it ran on the values of `balls`."""
        kernel = self.kernel(program)
        after = self.run(kernel, stored(kernel, balls))
        return [
            ball if argument.access == "read" else Ball.exact(array.reshape(ball.value.shape))
            for ball, array, argument in zip(balls, after, kernel.arguments, strict=True)
        ]

    def kernel(self, program: ProgramOp) -> Kernel:
        """What a program holds; once for each, as the machine decodes kernels once."""
        if program not in self._kernels:
            self._kernels[program] = kernel_of(program)
        return self._kernels[program]

    def known(self, program: Program) -> Program:
        """`program` with kernels that have been run here in the place of equal ones."""
        run = {kernel.name: kernel for kernel in self._kernels.values()}
        kernels = [run.get(kernel.name, kernel) for kernel in program.kernels]
        return replace(
            program,
            kernels=tuple(
                one if _are_equal(one, other) else other
                for one, other in zip(kernels, program.kernels, strict=True)
            ),
        )

    def machine(self) -> Machine:
        """A machine with no global memory mapped, which knows the kernels that have been run."""
        return self._machine.beside()

    def _map(self, size_bytes: int) -> None:
        """Have so much global memory mapped."""
        if len(self._arena) < size_bytes:
            self._arena = np.empty(max(2 * size_bytes, _LEAST_ARENA), np.uint8)
            self._machine = self._machine.beside()
            self._machine.map(self.chip.global_base, self._arena, writable=True, name="arguments")

    def _rows(self, argument: KernelArgument, offset: int) -> npt.NDArray[np.uint8]:
        """The bytes of an argument's elements in the arena, a row each."""
        row_bytes = argument.cols * argument.element.size_bytes
        return np.lib.stride_tricks.as_strided(
            self._arena[offset:], (argument.rows, row_bytes), (argument.pitch_bytes, 1)
        )


def stored(kernel: Kernel, balls: Sequence[Ball]) -> list[Array]:
    """What a kernel sees of tensors: their elements through its views, in storage types."""
    with np.errstate(all="ignore"):
        return [
            seen(
                ball, argument.rows, argument.cols, argument.pitch_bytes, argument.element
            ).value.astype(argument.element.dtype)
            for ball, argument in zip(balls, kernel.arguments, strict=True)
        ]


def seen(ball: Ball, rows: int, cols: int, pitch_bytes: int, element: ElementType) -> Ball:
    """The elements of a tensor where a view of `rows` x `cols` finds them.

    A view may have other rows, columns and pitch than its tensor, over the same bytes.
    """
    pitch = pitch_bytes // element.size_bytes

    def through(array: Array) -> Array:
        steps = (pitch * array.itemsize, array.itemsize)
        return np.lib.stride_tricks.as_strided(array, (rows, cols), steps, writeable=False)

    return Ball(through(ball.value), ball.radius if ball.is_exact else through(ball.radius))


def _are_equal(one: Kernel, other: Kernel) -> bool:
    return (
        (one.arguments, one.local_bytes) == (other.arguments, other.local_bytes)
        and np.array_equal(one.gdma, other.gdma)
        and np.array_equal(one.bdc, other.bdc)
    )


def _bytes_of(array: Array, argument: KernelArgument) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(argument.rows, argument.cols).view(np.uint8)
