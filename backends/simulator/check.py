"""The static check of a kernel: what the machine relies on, proved once instead of at every launch.

Beyond the rules of single records (`rules`): results do not overlap operands, both queues can run
to their end, and no command reads local memory, or an argument that is only written, before a
command has written it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tilewright.backends.accesses import bdc_accesses, share_bytes
from tilewright.backends.chip import Chip
from tilewright.backends.encoding.assembler import bdc_text, gdma_text
from tilewright.backends.encoding.operands import (
    OPERANDS,
    Int64Array,
    OperandName,
    column,
    has_flag,
    is_store,
    operand_element,
    operand_row_bytes,
    operand_shapes,
    row_bytes_of,
)
from tilewright.backends.encoding.records import (
    BDC_RECORD,
    GDMA_RECORD,
    BdcFlag,
    BdcOpcode,
    GdmaOpcode,
    Records,
)
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.definedness import first_undefined_read
from tilewright.backends.simulator.rules import Rule, bdc_rules, gdma_rules, queue_rules
from tilewright.backends.simulator.schedule import command_text, execution_order
from tilewright.dialects.errors import SimulationError


def check_kernel(kernel: Kernel, chip: Chip) -> None:
    """Raise `SimulationError`, naming the first command that breaks a rule, if one does."""
    if kernel.gdma.dtype != GDMA_RECORD or kernel.bdc.dtype != BDC_RECORD:
        raise SimulationError("its records are of another form", where=_kernel_text(kernel))
    if kernel.local_bytes > chip.lane_bytes:
        raise SimulationError(
            f"it uses {kernel.local_bytes} bytes of a lane, which has {chip.lane_bytes}",
            where=_kernel_text(kernel),
        )
    _apply(queue_rules(kernel.gdma, len(kernel.bdc)), kernel, kernel.gdma, gdma_text)
    _apply(queue_rules(kernel.bdc, len(kernel.gdma)), kernel, kernel.bdc, bdc_text)
    _apply(gdma_rules(kernel, chip), kernel, kernel.gdma, gdma_text)
    _apply(bdc_rules(kernel, chip), kernel, kernel.bdc, bdc_text)
    _check_overlaps(kernel, chip)
    order = np.array(execution_order(kernel, "late"), dtype=np.int64)
    _check_local_reads(kernel, chip, order)
    _check_global_reads(kernel)


def _apply(
    rules: Iterator[Rule], kernel: Kernel, records: Records, text: Callable[[Any], str]
) -> None:
    for holds, message in rules:
        if not holds.all():
            raise _error(kernel, message, text(records[int(np.argmin(holds))]))


def _check_overlaps(kernel: Kernel, chip: Chip) -> None:
    """A result may take the place of an operand of an element function; else they lie apart."""
    records = kernel.bdc
    element_wise = np.isin(records["opcode"], [BdcOpcode.UNARY, BdcOpcode.BINARY])
    start = {name: column(records[name], "offset") for name in OPERANDS}
    stop: dict[OperandName, Int64Array] = {}
    for name in OPERANDS:
        slots = -(-operand_shapes(records, name)[0] // chip.lanes)
        extent = (slots - 1) * column(records[name], "stride") + operand_row_bytes(records, name)
        stop[name] = start[name] + np.where(slots > 0, extent, 0)
    for name in OPERANDS[1:]:
        same = (
            element_wise
            & (records["dst"] == records[name])
            & (records["dst_element"] == operand_element(records, name))
            & (operand_row_bytes(records, "dst") == operand_row_bytes(records, name))
            & (operand_shapes(records, "dst")[2] == operand_shapes(records, name)[2])
        )
        near = (start["dst"] < stop[name]) & (start[name] < stop["dst"]) & ~same
        for index in np.flatnonzero(near):
            accesses = bdc_accesses(records[index : index + 1], chip.lanes).of(0)
            if share_bytes(accesses[0], accesses[OPERANDS.index(name)]):
                message = f"the result overlaps operand {name}"
                raise _error(kernel, message, bdc_text(records[index]))


def _check_local_reads(kernel: Kernel, chip: Chip, order: Int64Array) -> None:
    rank = {
        "gdma": np.zeros(len(kernel.gdma), np.int64),
        "bdc": np.zeros(len(kernel.bdc), np.int64),
    }
    places = np.arange(len(order))
    rank["gdma"][order[order > 0] - 1] = places[order > 0]
    rank["bdc"][-order[order < 0] - 1] = places[order < 0]

    gdma, bdc = kernel.gdma, kernel.bdc
    parts = [
        _accesses(
            rank["gdma"],
            ~is_store(gdma),
            column(gdma, "local_offset"),
            column(gdma, "local_stride"),
            column(gdma, "rows"),
            row_bytes_of(gdma),
            gdma["opcode"] == GdmaOpcode.LOAD_REPLICATED,
            chip,
        )
    ]
    reads: list[tuple[OperandName, Any]] = [
        ("a", None),
        ("b", None),
        ("c", None),
        ("dst", has_flag(bdc, BdcFlag.ACCUMULATE)),
    ]
    writes: list[tuple[OperandName, Any]] = [("dst", None)]
    for name, where in [*reads, *writes]:
        rows, _, replicated = operand_shapes(bdc, name)
        access = _accesses(
            rank["bdc"],
            np.full(len(bdc), name == "dst" and where is None),
            column(bdc[name], "offset"),
            column(bdc[name], "stride"),
            rows,
            operand_row_bytes(bdc, name),
            replicated,
            chip,
        )
        parts.append(access[(rows > 0) if where is None else where])
    table = np.concatenate(parts)
    # A command reads before it writes.
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    bad, byte, lane = first_undefined_read(np.ascontiguousarray(table), chip.lane_bytes)
    if bad >= 0:
        message = f"it reads byte {byte} of lane {lane}, which no command has written"
        raise _error(kernel, message, command_text(kernel, int(order[table[bad, 0]])))


def _accesses(
    rank: Int64Array,
    write: Any,
    offset: Int64Array,
    stride: Int64Array,
    rows: Int64Array,
    width: Int64Array,
    replicated: Any,
    chip: Chip,
) -> Int64Array:
    """Rows of the table of `first_undefined_read`."""
    slots = -(-rows // chip.lanes)
    last = np.where(replicated, chip.lanes, rows - (slots - 1) * chip.lanes)
    full = np.full(len(rank), chip.lanes)
    return np.stack([rank, write, offset, stride, slots, width, last, full], axis=1).astype(
        np.int64
    )


def _check_global_reads(kernel: Kernel) -> None:
    """What is loaded from an argument that is only written has been stored before.

    The GDMA engine alone touches global memory, in the order of its queue.
    """
    write_only = [i for i, a in enumerate(kernel.arguments) if a.access == "write"]
    stores = is_store(kernel.gdma)
    suspects = np.isin(kernel.gdma["argument"], write_only) & ~stores
    for number in np.unique(kernel.gdma["argument"][suspects]):
        written = _Written()
        for index in np.flatnonzero(kernel.gdma["argument"] == number):
            record = kernel.gdma[index]
            width = int(row_bytes_of(kernel.gdma[index : index + 1])[0])
            starts = int(record["global_offset"]) + int(record["pitch"]) * np.arange(
                int(record["rows"])
            )
            if record["opcode"] == GdmaOpcode.STORE:
                for start in starts.tolist():
                    written.add(start, start + width)
            elif record["opcode"] == GdmaOpcode.GATHER or (
                not stores[index] and not all(written.has(s, s + width) for s in starts.tolist())
            ):
                message = f"it reads what has not been written of argument {number}"
                raise _error(kernel, message, gdma_text(record))


class _Written:
    """Disjoint, sorted ranges of bytes."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        low, high = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high], self._stops[low:high] = [start], [stop]

    def has(self, start: int, stop: int) -> bool:
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and stop <= self._stops[place]


def _kernel_text(kernel: Kernel) -> str:
    return f"kernel {kernel.name} ({kernel.op})"


def _error(kernel: Kernel, message: str, command: str) -> SimulationError:
    return SimulationError(message, where=f"{_kernel_text(kernel)}, {command}")
