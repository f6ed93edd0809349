"""`commands.bin`: the records of all kernels, the launches of all functions.

Five sections behind a header of 64 bytes: GDMA records, BDC records, launches, addresses (u64),
names (UTF-8). Kernels and functions stand in the manifest and say how many records and launches are
theirs, in order.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD
from tilewright.backends.program import (
    Buffer,
    Function,
    Kernel,
    KernelArgument,
    Launch,
    Port,
    Program,
)
from tilewright.compiler.artifact.manifest import (
    ArgumentRecord,
    BufferRecord,
    FunctionRecord,
    KernelRecord,
    PortRecord,
    ProgramRecord,
)
from tilewright.dialects.element_types import element_by_name

LAUNCH_RECORD: np.dtype[Any] = np.dtype(
    [
        ("kernel", "<u4"),
        ("addresses", "<u4"),
        ("first_address", "<u8"),
        ("first_name_byte", "<u8"),
        ("name_bytes", "<u4"),
        ("reserved", "<u4"),
    ]
)
"""32 bytes: a kernel's index, and ranges of the sections of addresses and names."""

_MAGIC = b"TWCMDS\x00\x01"
_HEADER = struct.Struct("<8s5Q16x")


def encode_program(program: Program) -> tuple[ProgramRecord, bytes]:
    """The program's part of the manifest, and `commands.bin`."""
    launches = [launch for function in program.functions for launch in function.launches]
    names: dict[str, tuple[int, int]] = {}
    blob = bytearray()
    for launch in launches:
        if launch.name not in names:
            text = launch.name.encode()
            names[launch.name] = (len(blob), len(text))
            blob += text
    table = np.zeros(len(launches), LAUNCH_RECORD)
    addresses: list[int] = []
    for row, launch in zip(table, launches, strict=True):
        begin = len(addresses)
        addresses += launch.addresses
        row["kernel"], row["addresses"] = launch.kernel, len(launch.addresses)
        row["first_address"] = begin
        row["first_name_byte"], row["name_bytes"] = names[launch.name]
    gdma = [np.ascontiguousarray(kernel.gdma, GDMA_RECORD) for kernel in program.kernels]
    bdc = [np.ascontiguousarray(kernel.bdc, BDC_RECORD) for kernel in program.kernels]
    header = _HEADER.pack(
        _MAGIC,
        sum(map(len, gdma)),
        sum(map(len, bdc)),
        len(launches),
        len(addresses),
        len(blob),
    )
    parts = [header, *(part.tobytes() for part in (*gdma, *bdc, table))]
    parts += [np.array(addresses, "<u8").tobytes(), bytes(blob)]
    return _record(program), b"".join(parts)


def _record(program: Program) -> ProgramRecord:
    return ProgramRecord(
        chip=program.chip,
        kernels=tuple(
            KernelRecord(
                name=kernel.name,
                op=kernel.op,
                arguments=tuple(
                    ArgumentRecord(a.rows, a.cols, a.element.name, a.pitch_bytes, a.access)
                    for a in kernel.arguments
                ),
                gdma_commands=len(kernel.gdma),
                bdc_commands=len(kernel.bdc),
                local_bytes=kernel.local_bytes,
            )
            for kernel in program.kernels
        ),
        functions=tuple(
            FunctionRecord(
                f.name, _port_records(f.inputs), _port_records(f.outputs), len(f.launches)
            )
            for f in program.functions
        ),
        buffers=tuple(
            BufferRecord(b.name, b.address, b.size_bytes, b.kind) for b in program.buffers
        ),
    )


def _port_records(ports: Iterable[Port]) -> tuple[PortRecord, ...]:
    return tuple(PortRecord(p.name, p.shape, p.element.name, p.address) for p in ports)


def decode_program(record: ProgramRecord, data: memoryview) -> Program:
    """The program; its records are views of `data`.

    Raises `ValueError` where sizes or indices do not fit.
    """
    sections = _sections(data)
    gdma = _split(sections[0], [kernel.gdma_commands for kernel in record.kernels], "GDMA records")
    bdc = _split(sections[1], [kernel.bdc_commands for kernel in record.kernels], "BDC records")
    kernels = tuple(
        Kernel(
            name=kernel.name,
            op=kernel.op,
            arguments=tuple(_argument(argument) for argument in kernel.arguments),
            gdma=gdma_part,
            bdc=bdc_part,
            local_bytes=kernel.local_bytes,
        )
        for kernel, gdma_part, bdc_part in zip(record.kernels, gdma, bdc, strict=True)
    )
    tables = _split(sections[2], [function.launches for function in record.functions], "launches")
    addresses, names = sections[3].tolist(), sections[4].tobytes()
    functions = tuple(
        Function(
            name=function.name,
            inputs=_ports(function.inputs),
            outputs=_ports(function.outputs),
            launches=tuple(_launch(row, kernels, addresses, names) for row in table.tolist()),
        )
        for function, table in zip(record.functions, tables, strict=True)
    )
    buffers = tuple(Buffer(b.name, b.address, b.size_bytes, b.kind) for b in record.buffers)
    return Program(record.chip, kernels, functions, buffers)


def _sections(data: memoryview) -> list[npt.NDArray[Any]]:
    if len(data) < _HEADER.size:
        raise ValueError("the commands have no header")
    magic, *counts = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("the commands are of another form")
    types = (GDMA_RECORD, BDC_RECORD, LAUNCH_RECORD, np.dtype("<u8"), np.dtype(np.uint8))
    sizes = [count * dtype.itemsize for count, dtype in zip(counts, types, strict=True)]
    if _HEADER.size + sum(sizes) != len(data):
        raise ValueError(
            f"the sections take {_HEADER.size + sum(sizes):,} bytes; there are {len(data):,}"
        )
    starts = itertools.accumulate(sizes[:-1], initial=_HEADER.size)
    return [
        np.frombuffer(data, dtype, count, start)
        for dtype, count, start in zip(types, counts, starts, strict=True)
    ]


def _split(section: npt.NDArray[Any], counts: list[int], what: str) -> list[npt.NDArray[Any]]:
    if min(counts, default=0) < 0 or sum(counts) != len(section):
        raise ValueError(f"{sum(counts)} {what} are described; there are {len(section)}")
    ends = list(itertools.accumulate(counts, initial=0))
    return [section[begin:end] for begin, end in itertools.pairwise(ends)]


def _launch(
    row: tuple[int, ...], kernels: tuple[Kernel, ...], addresses: list[int], names: bytes
) -> Launch:
    kernel, count, first, name, name_bytes, _ = row
    if kernel >= len(kernels):
        raise ValueError(f"a launch is of kernel {kernel}; there are {len(kernels)}")
    if count != len(kernels[kernel].arguments) or first + count > len(addresses):
        raise ValueError(f"a launch of kernel {kernels[kernel].name!r} has {count} addresses")
    if name + name_bytes > len(names):
        raise ValueError("a launch has no name")
    text = names[name : name + name_bytes].decode()
    return Launch(kernel, tuple(addresses[first : first + count]), text)


def _argument(record: ArgumentRecord) -> KernelArgument:
    element = element_by_name(record.element)
    return KernelArgument(record.rows, record.cols, element, record.pitch_bytes, record.access)


def _ports(records: Iterable[PortRecord]) -> tuple[Port, ...]:
    return tuple(Port(p.name, p.shape, element_by_name(p.element), p.address) for p in records)
