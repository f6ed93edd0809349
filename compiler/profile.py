"""Where a function's cycles go: by layer of the model and by kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tilewright.backends.program import Function, Launch
from tilewright.backends.simulator.timing import KernelTime
from tilewright.compiler.performance import ProgramTimes

_LAYER = re.compile(r"^(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class ProfileRow:
    """Launches that belong together, and what they cost. Cycles are of the chip's compute clock."""

    name: str
    op: str
    launches: int
    cycles: int
    gdma_busy_cycles: float
    bdc_busy_cycles: float
    bytes_moved: int
    ideal_cycles: float

    @property
    def gdma_busy(self) -> float:
        return self.gdma_busy_cycles / self.cycles if self.cycles else 0.0

    @property
    def bdc_busy(self) -> float:
        return self.bdc_busy_cycles / self.cycles if self.cycles else 0.0

    @property
    def roofline(self) -> float:
        """Share of the roofline: the cycles that the busier of bytes / DMA rate and compute takes,
        of all cycles.
        """
        return self.ideal_cycles / self.cycles if self.cycles else 0.0

    def to_json(self) -> dict[str, object]:
        """A row of `tw profile --json` (docs/json.md)."""
        return {
            "name": self.name,
            "op": self.op,
            "launches": self.launches,
            "cycles": self.cycles,
            "gdma_busy": self.gdma_busy,
            "gdma_waiting": 1 - self.gdma_busy,
            "bdc_busy": self.bdc_busy,
            "bdc_waiting": 1 - self.bdc_busy,
            "bytes": self.bytes_moved,
            "roofline": self.roofline,
        }


def layer_of(name: str) -> str:
    """The layer that an op's name belongs to: up to its first number (`encoder.layers.3`), else its
    first part.
    """
    match = _LAYER.match(name)
    return match.group(1) if match else name.split(".")[0]


def by_layer(times: ProgramTimes, function: Function) -> list[ProfileRow]:
    """A row for each layer, in order of first execution."""
    return _grouped(times, function.launches, lambda launch: layer_of(launch.name), lambda _: "")


def by_kernel(times: ProgramTimes, function: Function) -> list[ProfileRow]:
    """A row for each kernel, the most expensive first."""
    kernels = times.program.kernels
    rows = _grouped(
        times,
        function.launches,
        lambda launch: kernels[launch.kernel].name,
        lambda launch: kernels[launch.kernel].op,
    )
    return sorted(rows, key=lambda row: -row.cycles)


def merge_equal(rows: Iterable[ProfileRow]) -> list[tuple[str, int, ProfileRow]]:
    """Runs of neighbouring rows that cost the same, as (first to last name, how many, row)."""
    runs: list[tuple[str, int, ProfileRow]] = []
    for row in rows:
        if runs and runs[-1][2].cycles == row.cycles and runs[-1][2].launches == row.launches:
            first, count, sample = runs[-1]
            start = first.split(" .. ")[0]
            runs[-1] = (f"{start} .. {row.name}", count + 1, sample)
        else:
            runs.append((row.name, 1, row))
    return runs


def chrome_trace(times: ProgramTimes, function: Function) -> dict[str, object]:
    """A Chrome trace (chrome://tracing, Perfetto) of every command of `function`; microseconds are
    those of the chip.
    """
    events: list[dict[str, object]] = []
    scale = 1e6 / times.chip.clock_hz
    base = 0
    for launch in function.launches:
        kernel, time = times.program.kernels[launch.kernel], times.kernels[launch.kernel]
        events.append(_event(launch.name, "kernels", base * scale, time.cycles * scale))
        for lane, engine in (("gdma", time.gdma), ("bdc", time.bdc)):
            for index, (start, end) in enumerate(zip(engine.start, engine.end, strict=True), 1):
                name = f"{kernel.op} {lane} #{index}"
                events.append(
                    _event(name, lane, (base + float(start)) * scale, float(end - start) * scale)
                )
        base += time.cycles
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _event(name: str, lane: str, start_us: float, duration_us: float) -> dict[str, object]:
    return {"name": name, "ph": "X", "pid": 1, "tid": lane, "ts": start_us, "dur": duration_us}


def _grouped(
    times: ProgramTimes,
    launches: Iterable[Launch],
    key: Callable[[Launch], str],
    op: Callable[[Launch], str],
) -> list[ProfileRow]:
    groups: dict[str, list[Launch]] = {}
    for launch in launches:
        groups.setdefault(key(launch), []).append(launch)
    return [
        _row(times, name, op(group[0]), [times.kernels[launch.kernel] for launch in group])
        for name, group in groups.items()
    ]


def _row(times: ProgramTimes, name: str, op: str, costs: list[KernelTime]) -> ProfileRow:
    rate = times.chip.dma_bytes_per_cycle
    return ProfileRow(
        name,
        op,
        len(costs),
        sum(cost.cycles for cost in costs),
        sum(cost.gdma.busy for cost in costs),
        sum(cost.bdc.busy for cost in costs),
        sum(cost.bytes_in + cost.bytes_out for cost in costs),
        sum(max((c.bytes_in + c.bytes_out) / rate, c.bdc.busy) for c in costs),
    )
