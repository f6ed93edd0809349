"""A bench: kernels from listings, arrays as arguments, one command at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.encoding.assembler import assemble
from tilewright.backends.program import Access, Kernel, KernelArgument
from tilewright.backends.simulator.machine import Machine, Schedule
from tilewright.dialects.element_types import ELEMENT_TYPES, ElementType

Array = npt.NDArray[Any]

OFFSETS = {"a": 0, "b": 65536, "dst": 131072, "c": 196608}
"""Where `Bench.compute` puts the operands: in different banks."""


def element_of_array(array: Array) -> ElementType:
    return next(element for element in ELEMENT_TYPES if element.dtype == array.dtype)


class Bench:
    """Runs listings on a machine of its own."""

    def __init__(self, chip: Chip, threads: int | None = 1) -> None:
        self.chip = chip
        self.threads = threads

    def kernel(
        self, listing: str, arguments: Sequence[tuple[Array, Access]], local_bytes: int = 0
    ) -> Kernel:
        gdma, bdc = assemble(listing)
        described = [
            KernelArgument(
                array.shape[0],
                array.shape[1],
                element_of_array(array),
                array.shape[1] * array.itemsize,
                access,
            )
            for array, access in arguments
        ]
        size = local_bytes or self.chip.lane_bytes
        return Kernel("bench", "test.Op", tuple(described), gdma, bdc, size)

    def run(
        self,
        listing: str,
        arguments: Sequence[tuple[Array, Access]],
        schedule: Schedule = "early",
    ) -> None:
        """Run a listing; arguments that it writes are changed in place."""
        machine = Machine(self.chip, threads=self.threads)
        addresses = [self.chip.global_base + (i << 28) for i in range(len(arguments))]
        for (array, access), address in zip(arguments, addresses, strict=True):
            machine.map(address, array, writable=access != "read", name=f"argument {address:#x}")
        machine.run(self.kernel(listing, arguments), addresses, schedule=schedule, name="layer.0")

    def compute(
        self,
        command: str,
        inputs: Mapping[str, Array],
        result: tuple[int, int, ElementType],
        replicated: str = "",
    ) -> Array:
        """The result of one BDC command; its line names the operands `{dst}`, `{a}`, ...

        Operands named in `replicated` are loaded to every lane.
        """
        rows, cols, element = result
        lines: list[str] = []
        words = {"dst": _operand("dst", cols, element)}
        for number, (name, array) in enumerate(inputs.items()):
            kind = element_of_array(array)
            opcode = "load_replicated" if name in replicated.split() else "load"
            words[name] = _operand(name, array.shape[1], kind)
            lines.append(_transfer(number, opcode, name, array.shape, kind))
        lines.append(f"bdc 1 {command.format(**words)} wait={len(lines)}")
        store = _transfer(len(inputs), "store", "dst", (rows, cols), element)
        lines.append(f"{store} wait=1")
        out = np.full(rows * cols * element.size_bytes, 0xFF, np.uint8).view(element.dtype)
        out = out.reshape(rows, cols)
        arguments: list[tuple[Array, Access]] = [(array, "read") for array in inputs.values()]
        self.run("\n".join(lines), [*arguments, (out, "write")])
        return out


def _stride(cols: int, element: ElementType) -> int:
    return -(-cols * element.size_bytes // 64) * 64


def _operand(name: str, cols: int, element: ElementType) -> str:
    return f"{name}={element.name}:{OFFSETS[name]}/{_stride(cols, element)}"


def _transfer(
    number: int, opcode: str, name: str, shape: tuple[int, ...], element: ElementType
) -> str:
    rows, cols = shape
    return (
        f"gdma {number + 1} {opcode} {rows}x{cols}x{element.name} "
        f"local={OFFSETS[name]}/{_stride(cols, element)} "
        f"global={number}+0/{cols * element.size_bytes}"
    )


@pytest.fixture(scope="session")
def chip() -> Chip:
    return load_chip("bm1684x")


@pytest.fixture(scope="session")
def bench(chip: Chip) -> Bench:
    return Bench(chip)
