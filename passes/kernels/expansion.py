"""A kernel as it will run: its loops walked once, every command with its extents and addresses.

`expand` gives the records of both engines, waits aside, and for each command the op that it comes
from. Passes that need to know what really happens (how many buffers a value needs, which command
must wait for which) read it here, so that they agree with what `emit-commands` emits. The rules are
those of docs/architecture.md (Kernels):

- A tile that reaches across the edge of its view is cut there; ops take the actual extents of their
  operands. A tile made by `bdc.fill` has no edge: it meets a smaller one in the size of that one.
- Ops with the same `offsets` share a ring: each execution of any of them takes the next buffer.
- A value may be read until its ring comes round to it again.

Each op is compiled to a closure once (`moves`, `computes`); a command then takes about 2 us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Block, Operation

from tilewright.backends.encoding.records import MAX_COMMAND_ID, Records
from tilewright.dialects import bdc
from tilewright.dialects.errors import FitError, IRError
from tilewright.dialects.scopes import where_of
from tilewright.passes.kernels import computes, moves
from tilewright.passes.kernels.commands import (
    BDC_OPS,
    GDMA_OPS,
    CommandOp,
    argument_numbers,
    bdc_templates,
    gdma_templates,
    new_tile,
)
from tilewright.passes.kernels.walk import Step, Walk

Integers: TypeAlias = npt.NDArray[np.int64]

_ARITHMETIC: dict[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: lambda left, right: left + right,
    arith.SubiOp: lambda left, right: left - right,
    arith.MuliOp: lambda left, right: left * right,
    arith.DivUIOp: lambda left, right: left // right,
    arith.RemUIOp: lambda left, right: left % right,
}
INDEX_OPS = tuple(_ARITHMETIC)
"""The ops of index arithmetic, constants aside."""


def evaluate(op: Operation, left: int, right: int) -> int:
    """The value of an op of `INDEX_OPS`."""
    return _ARITHMETIC[type(op)](left, right)


@dataclass(frozen=True)
class Expansion:
    """The commands of a kernel, in the order of their queues, `id` and `wait` left 0."""

    ops: tuple[CommandOp, ...]
    """Its ops that are commands, as they stand in the text."""
    order: Integers
    """For each command of both engines, in the order of the program, the index of its op."""
    gdma: Records
    bdc: Records
    gdma_ops: Integers
    """For each GDMA command the index of its op."""
    bdc_ops: Integers

    @property
    def on_gdma(self) -> npt.NDArray[np.bool_]:
        """For each command of `order`, whether the GDMA executes it."""
        return _on_gdma(self.ops)[self.order]


def expand(kernel: func.FuncOp) -> Expansion:
    """The commands of a kernel whose tiles have addresses.

    Raises `IRError` where they have none, `InternalError` where the kernel breaks a rule: an empty
    tile, tiles that do not fit each other, a value read after its buffer was taken again.
    """
    rings: dict[tuple[int, ...], int] = {}
    ring_of: dict[Operation, int] = {}
    for op in kernel.walk():
        if new_tile(op) is not None:
            offsets = getattr(op, "offsets", None)
            if offsets is None:
                raise IRError(
                    f"{op.name} has no offsets",
                    where=where_of(op),
                    hint="run allocate-local-memory",
                )
            ring_of[op] = rings.setdefault(tuple(offsets.get_values()), len(rings))
    return _run(kernel, Walk(ring_of, list(rings), strict=True))


def ring_depths(
    kernel: func.FuncOp, ring_of: Mapping[Operation, int], rings: int
) -> tuple[list[int], Expansion]:
    """How many buffers each of `rings` rings needs for every value to live until its last read.

    `ring_of` names the ring of each op that makes a tile. The expansion has no addresses yet.
    """
    walk = Walk(ring_of, [(0,)] * rings, strict=False)
    expansion = _run(kernel, walk)
    return walk.depths, expansion


def _run(kernel: func.FuncOp, walk: Walk) -> Expansion:
    ops: list[CommandOp] = []
    for step in _block(walk, kernel.body.block, ops):
        step()
    if max(len(walk.gdma), len(walk.bdc)) > MAX_COMMAND_ID:
        raise FitError(
            f"the kernel {kernel.sym_name.data} has more commands than there are ids",
            why=f"{len(walk.gdma)} GDMA and {len(walk.bdc)} BDC commands; "
            f"ids go to {MAX_COMMAND_ID}",
            hint="larger tiles make fewer commands",
        )
    return _records(kernel, walk, ops)


def _on_gdma(ops: list[CommandOp] | tuple[CommandOp, ...]) -> npt.NDArray[np.bool_]:
    return np.array([isinstance(op, GDMA_OPS) for op in ops], np.bool_)


def _records(kernel: func.FuncOp, walk: Walk, ops: list[CommandOp]) -> Expansion:
    order, on_gdma = np.array(walk.order, np.int64), _on_gdma(ops)
    # The number of each op among those of its engine.
    within = np.where(on_gdma, np.cumsum(on_gdma), np.cumsum(~on_gdma)) - 1
    moved = on_gdma[order]
    gdma_ops, bdc_ops = order[moved], order[~moved]
    gdma = gdma_templates([op for op in ops if isinstance(op, GDMA_OPS)], argument_numbers(kernel))[
        within[gdma_ops]
    ]
    bdc = bdc_templates([op for op in ops if isinstance(op, BDC_OPS)])[within[bdc_ops]]
    fields = np.array(walk.gdma, np.int64).reshape(-1, len(moves.FIELDS))
    for i, name in enumerate(moves.FIELDS):
        gdma[name] = fields[:, i]
    fields = np.array(walk.bdc, np.int64).reshape(-1, 9)
    for i, name in enumerate(("rows", "cols", "depth")):
        bdc[name] = fields[:, i]
    for i, name in enumerate(("dst", "a", "b")):
        bdc[name]["offset"] = fields[:, 3 + 2 * i]
        bdc[name]["stride"] = fields[:, 4 + 2 * i]
    for command, offset, stride in walk.zero_points:
        bdc[command]["c"] = (offset, stride)
    return Expansion(tuple(ops), order, gdma, bdc, gdma_ops, bdc_ops)


def _block(walk: Walk, block: Block, ops: list[CommandOp]) -> list[Step]:
    steps = [_step(walk, op, ops) for op in block.ops]
    return [step for step in steps if step is not None]


def _step(walk: Walk, op: Operation, ops: list[CommandOp]) -> Step | None:
    if isinstance(op, GDMA_OPS):
        ops.append(op)
        return moves.move(walk, op, len(ops) - 1)
    if isinstance(op, BDC_OPS):
        ops.append(op)
        return computes.compute(walk, op, len(ops) - 1)
    if isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
        walk.values[walk.slot(op.result)] = op.value.value.data
        return None
    if isinstance(op, INDEX_OPS):
        return _arithmetic(walk, op)
    if isinstance(op, bdc.ViewOp):
        return computes.view(walk, op)
    if isinstance(op, scf.ForOp):
        return _loop(walk, op, ops)
    if isinstance(op, scf.YieldOp | func.ReturnOp):
        return None
    raise IRError(
        f"{op.name} has no place in a kernel",
        where=where_of(op),
        hint="kernels have index arithmetic, scf.for, gdma and bdc ops",
    )


def _arithmetic(walk: Walk, op: Operation) -> Step:
    values, function = walk.values, _ARITHMETIC[type(op)]
    left, right = (walk.slot(operand) for operand in op.operands)
    result = walk.slot(op.results[0])

    def step() -> None:
        values[result] = function(values[left], values[right])

    return step


def _loop(walk: Walk, op: scf.ForOp, ops: list[CommandOp]) -> Step:
    values = walk.values
    lower, upper, stride = walk.slot(op.lb), walk.slot(op.ub), walk.slot(op.step)
    inits = [walk.slot(value) for value in op.iter_args]
    index, *carried = [walk.slot(value) for value in op.body.block.args]
    body = _block(walk, op.body.block, ops)
    terminator = op.body.block.last_op
    assert isinstance(terminator, scf.YieldOp)
    yielded = [walk.slot(value) for value in terminator.operands]
    results = [walk.slot(value) for value in op.results]

    def step() -> None:
        current = [values[slot] for slot in inits]
        for i in range(values[lower], values[upper], values[stride]):
            values[index] = i
            for slot, value in zip(carried, current, strict=True):
                values[slot] = value
            for run in body:
                run()
            current = [values[slot] for slot in yielded]
        for slot, value in zip(results, current, strict=True):
            values[slot] = value

    return step
