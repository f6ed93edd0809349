"""Which DEQUANT commands may be computed with the MM that reads their tile, and from where.

A tile of weights that one MM reads, and nothing reads again before it is written over (or the
launch ends: no kernel reads what another has left), need never be in local memory. Then codes,
scales and zero points must still be there when the MM runs. The codes' own tile may be left out
likewise, if one LOAD has brought it: the MM then reads global memory, which must not have changed;
whether arguments overlap is known at the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.backends.accesses import LocalAccess, bdc_accesses, gdma_accesses, share_bytes
from tilewright.backends.encoding.operands import OPERANDS, operand_shapes
from tilewright.backends.encoding.records import BdcFlag, BdcOpcode, GdmaOpcode
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.dot_products import VECTOR
from tilewright.dialects.element_types import BF16, F16, I8

FEW_ROWS = 4
"""An operand of at most so many rows is multiplied with the other one where it lies."""

FARTHEST = 4096
"""Commands behind a tile that are looked at: where its end is farther, it counts as needed."""


@dataclass(frozen=True)
class Fusion:
    """A MM that dequantizes its own weights, or reads int8 ones where they are in global memory:
    indices of commands in their queues."""

    product: int
    dequant: int | None
    load: int | None


@dataclass(frozen=True)
class _Command:
    """What a command does to local memory. A sum that is added to is read, too."""

    reads: list[LocalAccess]
    read_rows: list[int]
    write: LocalAccess | None
    rows: int
    """Of what it writes; 0 where every lane has a copy."""


def fusions(kernel: Kernel, order: Sequence[int], lanes: int) -> list[Fusion]:
    """What may be fused where the commands run in `order` (`schedule.execution_order`)."""
    bdc = kernel.bdc
    candidates = [
        place
        for place, command in enumerate(order)
        if command < 0 and _can_dequantize(bdc[-command - 1])
    ]
    of_codes = [
        place
        for place, command in enumerate(order)
        if command < 0 and _multiplies_codes(bdc[-command - 1])
    ]
    if not candidates and not of_codes:
        return []
    timeline = _timeline(kernel, order, lanes)
    found: list[Fusion] = []
    for place in of_codes:
        load = _loaded_for(kernel, timeline, order, place)
        if load is not None:
            found.append(Fusion(-order[place] - 1, None, load))
    for place in candidates:
        product = _reader(timeline, place)
        if product is not None and order[product] < 0:
            dequant, multiply = -order[place] - 1, -order[product] - 1
            if _reads_all(bdc[dequant], bdc[multiply]):
                load = _loaded_for(kernel, timeline, order, place)
                found.append(Fusion(multiply, dequant, load))
    return found


def _can_dequantize(record: Any) -> bool:
    """Whether the fused loop knows what this command does."""
    element = int(record["dst_element"])
    return (
        record["opcode"] == BdcOpcode.DEQUANT
        and element in (F16.code, BF16.code)
        and record["b_element"] == element
        and int(record["depth"]) % VECTOR == 0
    )


def _multiplies_codes(record: Any) -> bool:
    """Whether a MM is of int8, and its left operand meets few rows."""
    few = int(record["cols"]) <= min(FEW_ROWS, int(record["rows"]))
    turned = int(record["flags"]) & BdcFlag.TRANSPOSE_RIGHT
    is_int8 = record["opcode"] == BdcOpcode.MM and record["a_element"] == I8.code
    return bool(is_int8 and turned and few)


def _reads_all(dequant: Any, multiply: Any) -> bool:
    """Whether a MM has few rows, and as its other operand all of the dequantized tile."""
    rows, cols = int(multiply["rows"]), int(multiply["cols"])
    turned = int(multiply["flags"]) & BdcFlag.TRANSPOSE_RIGHT
    if multiply["opcode"] != BdcOpcode.MM or not turned or min(rows, cols) > FEW_ROWS:
        return False
    name, many = ("b", cols) if rows < cols else ("a", rows)
    return (
        dequant["dst"] == multiply[name]
        and dequant["dst_element"] == multiply[f"{name}_element"]
        and dequant["rows"] == many
        and dequant["cols"] == multiply["depth"]
    )


def _timeline(kernel: Kernel, order: Sequence[int], lanes: int) -> list[_Command]:
    bdc, gdma = bdc_accesses(kernel.bdc, lanes), gdma_accesses(kernel.gdma, lanes)
    shapes = [operand_shapes(kernel.bdc, name) for name in OPERANDS]
    rows_of = np.stack([rows for rows, _, _ in shapes], axis=1)
    replicated = np.stack([copied & (rows > 0) for rows, _, copied in shapes], axis=1)
    timeline: list[_Command] = []
    for command in order:
        if command > 0:
            record = kernel.gdma[command - 1]
            (access,) = gdma.of(command - 1)
            reads = [] if access.write else [access]
            rows = 0 if record["opcode"] == GdmaOpcode.LOAD_REPLICATED else int(record["rows"])
            written = access if access.write else None
            timeline.append(_Command(reads, [rows] * len(reads), written, rows))
        else:
            index = -command - 1
            written, *reads = bdc.of(index)
            there = rows_of[index] > 0
            read_rows = np.where(replicated[index], lanes, rows_of[index])[there][1:].tolist()
            rows = 0 if replicated[index, 0] else int(rows_of[index, 0])
            if int(kernel.bdc[index]["flags"]) & BdcFlag.ACCUMULATE:
                reads.append(written)
                read_rows.append(rows)
            timeline.append(_Command(reads, read_rows, written, rows))
    return timeline


def _touches(one: LocalAccess, other: LocalAccess) -> bool:
    return one.start < other.stop and other.start < one.stop and share_bytes(one, other)


def _reader(timeline: Sequence[_Command], place: int) -> int | None:
    """Where the only reader of the tile that is made at `place` is, if the operands of its maker
    are still what they were."""
    made, rows = timeline[place].write, timeline[place].rows
    assert made is not None
    operands = timeline[place].reads
    for later in range(place + 1, min(len(timeline), place + FARTHEST)):
        command = timeline[later]
        if command.write is not None and any(_touches(command.write, o) for o in operands):
            return None
        reads = sum(_touches(access, made) for access in command.reads)
        if reads:
            fits = reads == 1 and _is_dead(timeline, made, rows, later + 1)
            return later if fits else None
        if command.write is not None and _touches(command.write, made):
            return None
    return None


def _is_dead(timeline: Sequence[_Command], tile: LocalAccess, rows: int, start: int) -> bool:
    """Whether nothing reads `tile` from `start` on before it is written over."""
    renewed: list[tuple[LocalAccess, int]] = []
    for later in range(start, len(timeline)):
        command, write = timeline[later], timeline[later].write
        if later - start > FARTHEST:
            return False
        for access, read_rows in zip(command.reads, command.read_rows, strict=True):
            new = any(_covers(other, most, access, read_rows) for other, most in renewed)
            if not new and _touches(access, tile):
                return False
        if write is not None and _touches(write, tile):
            if _covers(write, command.rows, tile, rows):
                return True
            renewed.append((write, command.rows))
    return True


def _covers(one: LocalAccess, one_rows: int, other: LocalAccess, other_rows: int) -> bool:
    """Whether all of `other` is in `one`. (False may also mean: not seen.)"""
    same = one.start == other.start and (one.stride == other.stride or other.slots == 1)
    return same and one.width >= other.width and one_rows >= other_rows


def _loaded_for(
    kernel: Kernel, timeline: Sequence[_Command], order: Sequence[int], place: int
) -> int | None:
    """The LOAD that has brought operand a of the command at `place`, and for nothing else."""
    codes = timeline[place].reads[0]
    rows = timeline[place].rows
    for earlier in range(place - 1, max(-1, place - FARTHEST), -1):
        command, write = timeline[earlier], timeline[earlier].write
        if any(_touches(access, codes) for access in command.reads):
            return None
        if write is not None and _touches(write, codes):
            index = order[earlier] - 1
            is_load = index >= 0 and kernel.gdma[index]["opcode"] == GdmaOpcode.LOAD
            fits = is_load and command.rows == rows and write[:4] == codes[:4]
            return index if fits and _is_dead(timeline, codes, rows, place + 1) else None
    return None
