"""Orders in which the machine may execute the commands of a kernel one after the other.

Each engine keeps the order of its queue; a command comes after the one of the other engine that it
waits for. Two extremes of what is left: `early` runs every GDMA command as soon as its wait allows,
`late` runs it when a BDC command waits for it (or at the end). A program with all the waits that it
needs computes the same in both.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from tilewright.backends.encoding.assembler import bdc_text, gdma_text
from tilewright.backends.program import Kernel
from tilewright.dialects.errors import SimulationError

Schedule: TypeAlias = Literal["early", "late"]


def execution_order(kernel: Kernel, schedule: Schedule = "early") -> list[int]:
    """The commands in an order of execution: `g` for GDMA command `g`, `-b` for BDC command `b`.

    Raises `SimulationError` where both engines wait for each other.
    """
    gdma_waits: list[int] = kernel.gdma["wait"].tolist()
    bdc_waits: list[int] = kernel.bdc["wait"].tolist()
    order: list[int] = []
    g = b = 0
    while g < len(gdma_waits) or b < len(bdc_waits):
        gdma_ready = g < len(gdma_waits) and gdma_waits[g] <= b
        bdc_ready = b < len(bdc_waits) and bdc_waits[b] <= g
        if gdma_ready and (schedule == "early" or not bdc_ready):
            g += 1
            order.append(g)
        elif bdc_ready:
            b += 1
            order.append(-b)
        else:
            raise _deadlock(kernel, g, b)
    return order


def command_text(kernel: Kernel, command: int) -> str:
    """A command of `execution_order` as a line of a listing."""
    return (
        gdma_text(kernel.gdma[command - 1]) if command > 0 else bdc_text(kernel.bdc[-command - 1])
    )


def _deadlock(kernel: Kernel, g: int, b: int) -> SimulationError:
    stuck = [gdma_text(kernel.gdma[g])] if g < len(kernel.gdma) else []
    stuck += [bdc_text(kernel.bdc[b])] if b < len(kernel.bdc) else []
    return SimulationError(
        "deadlock: no engine can go on",
        where=f"kernel {kernel.name} ({kernel.op})",
        why="; ".join(stuck),
    )
