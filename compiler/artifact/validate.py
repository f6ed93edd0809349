"""What must hold before a program runs: every index and every address is inside its object.

Each check is a generator of problems, `(where, why)`; sums of offsets are made in float64, which
cannot wrap around.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.records import BdcOpcode, GdmaOpcode
from tilewright.backends.program import Buffer, Function, Kernel, Port, Program
from tilewright.dialects.element_types import ELEMENT_TYPES, I32

Problem = tuple[str, str]
Array = npt.NDArray[Any]

_GATHERS = (GdmaOpcode.GATHER, GdmaOpcode.SCATTER)
_STORES = (GdmaOpcode.STORE, GdmaOpcode.SCATTER)
_ELEMENT_BYTES = np.zeros(256, np.int64)
for _element in ELEMENT_TYPES:
    _ELEMENT_BYTES[_element.code] = _element.size_bytes


def program_problems(
    program: Program, chip: Chip, weight_bytes: Mapping[str, int]
) -> Iterator[Problem]:
    """Everything wrong with a program; `weight_bytes` are the stored weights' sizes by name."""
    if program.chip != chip.name:
        yield "chip", f"the program is for {program.chip}, the description is of {chip.name}"
    yield from _buffer_problems(program.buffers, chip, weight_bytes)
    for kernel in program.kernels:
        yield from _kernel_problems(kernel, chip)
    memory = _MemoryMap(program.buffers)
    for function in program.functions:
        for port in (*function.inputs, *function.outputs):
            yield from _port_problems(function, port, memory)
        yield from _launch_problems(function, program.kernels, memory)


def _buffer_problems(
    buffers: tuple[Buffer, ...], chip: Chip, weight_bytes: Mapping[str, int]
) -> Iterator[Problem]:
    end_of_memory = chip.global_base + chip.global_bytes
    names: set[str] = set()
    for buffer in buffers:
        where = f"buffer {buffer.name!r}"
        if buffer.name in names:
            yield where, "two buffers have this name"
        names.add(buffer.name)
        end = buffer.address + buffer.size_bytes
        if buffer.size_bytes < 0 or buffer.address < chip.global_base or end > end_of_memory:
            yield (
                where,
                f"{buffer.address:#x}..{end:#x} is not inside global memory, "
                f"{chip.global_base:#x}..{end_of_memory:#x}",
            )
        if buffer.kind == "weight":
            size = weight_bytes.get(buffer.name)
            if size is None:
                yield where, "there is no weight of this name"
            elif not size <= buffer.size_bytes < size + chip.global_alignment:
                yield where, f"it has {buffer.size_bytes:,} bytes; the weight has {size:,}"
    yield from _overlaps(buffers)


def _overlaps(buffers: tuple[Buffer, ...]) -> Iterator[Problem]:
    """Buffers must be apart, but activations may share memory with each other."""
    widest: dict[bool, Buffer] = {}  # of the buffers so far, the one that ends last
    for buffer in sorted(buffers, key=lambda b: (b.address, b.size_bytes)):
        activation = buffer.kind == "activation"
        for kind, other in widest.items():
            end = other.address + other.size_bytes
            if not (kind and activation) and buffer.size_bytes and end > buffer.address:
                yield f"buffer {buffer.name!r}", f"it overlaps buffer {other.name!r}"
        held = widest.get(activation)
        if held is None or buffer.address + buffer.size_bytes > held.address + held.size_bytes:
            widest[activation] = buffer


class _MemoryMap:
    """Finds the buffer that a span lies in."""

    def __init__(self, buffers: tuple[Buffer, ...]) -> None:
        apart = sorted((b for b in buffers if b.kind != "activation"), key=lambda b: b.address)
        self._apart = apart
        self._starts = np.array([b.address for b in apart], np.uint64)
        self._shared = [b for b in buffers if b.kind == "activation"]
        self._known: dict[tuple[int, int], Buffer | None] = {}

    def find(self, address: int, size_bytes: int) -> Buffer | None:
        span = (address, size_bytes)
        if span not in self._known:
            self._known[span] = self._find(address, address + size_bytes)
        return self._known[span]

    def _find(self, address: int, end: int) -> Buffer | None:
        index = int(np.searchsorted(self._starts, np.uint64(address), "right")) - 1
        candidates = [self._apart[index]] if index >= 0 else []
        for buffer in itertools.chain(candidates, self._shared):
            if buffer.address <= address and end <= buffer.address + buffer.size_bytes:
                return buffer
        return None


def _port_problems(function: Function, port: Port, memory: _MemoryMap) -> Iterator[Problem]:
    size = math.prod(port.shape) * port.element.size_bytes
    if memory.find(port.address, size) is None:
        yield (
            f"port {port.name!r} of function {function.name!r}",
            f"{port.address:#x}..{port.address + size:#x} is not inside one buffer",
        )


def _launch_problems(
    function: Function, kernels: tuple[Kernel, ...], memory: _MemoryMap
) -> Iterator[Problem]:
    for number, launch in enumerate(function.launches):
        where = f"launch {number} of function {function.name!r} ({launch.name})"
        if not 0 <= launch.kernel < len(kernels):
            yield where, f"it is of kernel {launch.kernel}; there are {len(kernels)}"
            continue
        arguments = kernels[launch.kernel].arguments
        if len(arguments) != len(launch.addresses):
            yield where, f"{len(launch.addresses)} addresses for {len(arguments)} arguments"
            continue
        for index, (argument, address) in enumerate(zip(arguments, launch.addresses, strict=True)):
            buffer = memory.find(address, argument.span_bytes)
            if buffer is None:
                end = address + argument.span_bytes
                yield where, f"argument {index}, {address:#x}..{end:#x}, is not inside one buffer"
            elif argument.access != "read" and buffer.kind == "weight":
                yield where, f"argument {index} writes to the weight {buffer.name!r}"


def _kernel_problems(kernel: Kernel, chip: Chip) -> Iterator[Problem]:
    where = f"kernel {kernel.name!r}"
    if not 0 <= kernel.local_bytes <= chip.lane_bytes:
        yield where, f"it uses {kernel.local_bytes:,} of {chip.lane_bytes:,} local bytes"
    for argument in kernel.arguments:
        if argument.rows < 1 or argument.cols < 1 or argument.pitch_bytes < 0:
            yield where, "an argument is empty"
    for engine, records, others, opcodes in (
        ("GDMA", kernel.gdma, kernel.bdc, GdmaOpcode),
        ("BDC", kernel.bdc, kernel.gdma, BdcOpcode),
    ):
        legal = np.isin(records["opcode"], [int(code) for code in opcodes])
        yield from _at_first(where, engine, ~legal, "has an unknown opcode")
        wrong = records["id"] != np.arange(1, len(records) + 1)
        yield from _at_first(where, engine, wrong, "is out of sequence")
        late = records["wait"] > len(others)
        yield from _at_first(where, engine, late, "waits for a command that does not exist")
    for name in ("dst_element", "a_element", "b_element"):
        unknown = _ELEMENT_BYTES[kernel.bdc[name]] == 0
        yield from _at_first(where, "BDC", unknown, "has an unknown element type")
    yield from _transfer_problems(kernel, where)


def _transfer_problems(kernel: Kernel, where: str) -> Iterator[Problem]:
    records = kernel.gdma
    sizes = _ELEMENT_BYTES[records["element"]]
    yield from _at_first(where, "GDMA", sizes == 0, "has an unknown element type")
    gathers = np.isin(records["opcode"], _GATHERS)
    count = len(kernel.arguments)
    foreign = (records["argument"] >= count) | (gathers & (records["index_argument"] >= count))
    yield from _at_first(where, "GDMA", foreign, "addresses an argument that does not exist")
    if bool(foreign.any()) or not len(records):
        return
    spans = np.array([argument.span_bytes for argument in kernel.arguments], np.float64)
    rows = np.where(gathers, records["table_rows"], records["rows"]).astype(np.float64)
    reach = np.maximum(rows - 1, 0) * records["pitch"].astype(np.float64)
    end = records["global_offset"] + reach + records["cols"] * sizes.astype(np.float64)
    outside = end > spans[records["argument"]]
    yield from _at_first(where, "GDMA", outside, "goes beyond its argument")
    index_end = records["index_offset"] + records["rows"] * float(I32.size_bytes)
    outside = gathers & (index_end > spans[np.where(gathers, records["index_argument"], 0)])
    yield from _at_first(where, "GDMA", outside, "reads indices beyond its argument")
    readable = np.array([argument.access == "read" for argument in kernel.arguments])
    wrong = np.isin(records["opcode"], _STORES) & readable[records["argument"]]
    yield from _at_first(where, "GDMA", wrong, "writes to an argument that is only read")


def _at_first(where: str, engine: str, bad: Array, why: str) -> Iterator[Problem]:
    if bool(bad.any()):
        yield where, f"{engine} command {int(np.argmax(bad)) + 1} {why}"
