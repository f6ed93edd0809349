"""Cycles of a program by the timing model: kernels are timed once, launches are counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from tilewright.backends.chip import Chip
from tilewright.backends.program import Function, Program
from tilewright.backends.simulator.timing import KernelTime, time_kernel


@dataclass(frozen=True)
class FunctionTime:
    """One run of an entry function, in cycles of the compute clock; launches do not overlap."""

    name: str
    launches: int
    cycles: int
    gdma_busy_cycles: float
    bdc_busy_cycles: float
    bytes_in: int
    bytes_out: int
    clock_hz: float
    host_launch_s: float
    dma_bytes_per_cycle: float

    @property
    def seconds(self) -> float:
        """Cycles at the chip's clock plus the host's overhead of one network launch."""
        return self.cycles / self.clock_hz + self.host_launch_s

    @property
    def gdma_busy(self) -> float:
        """Share of all cycles in which the GDMA engine works."""
        return self.gdma_busy_cycles / self.cycles if self.cycles else 0.0

    @property
    def bdc_busy(self) -> float:
        """Share of all cycles in which the compute engine works."""
        return self.bdc_busy_cycles / self.cycles if self.cycles else 0.0

    @property
    def bound(self) -> str:
        """What limits it: `memory` or `compute`, whichever engine is busier."""
        return "memory" if self.gdma_busy_cycles >= self.bdc_busy_cycles else "compute"

    @property
    def roofline(self) -> float:
        """Share of the roofline: the busier engine's cycles of all cycles."""
        return max(self.gdma_busy, self.bdc_busy)


class ProgramTimes:
    """The timing model applied to a program."""

    def __init__(self, program: Program, chip: Chip) -> None:
        self.program = program
        self.chip = chip

    @cached_property
    def kernels(self) -> tuple[KernelTime, ...]:
        """The time of each kernel of the program."""
        return tuple(time_kernel(kernel, self.chip) for kernel in self.program.kernels)

    def function(self, function: Function) -> FunctionTime:
        """The time of one run of `function`."""
        counts = Counter(launch.kernel for launch in function.launches)
        cycles = bytes_in = bytes_out = 0
        gdma = bdc = 0.0
        for index, count in sorted(counts.items()):
            time = self.kernels[index]
            cycles += count * time.cycles
            gdma += count * time.gdma.busy
            bdc += count * time.bdc.busy
            bytes_in += count * time.bytes_in
            bytes_out += count * time.bytes_out
        return FunctionTime(
            function.name,
            len(function.launches),
            cycles,
            gdma,
            bdc,
            bytes_in,
            bytes_out,
            self.chip.clock_hz,
            self.chip.host_launch_s,
            self.chip.dma_bytes_per_cycle,
        )

    def by_name(self) -> dict[str, FunctionTime]:
        """The time of every entry function."""
        return {function.name: self.function(function) for function in self.program.functions}
