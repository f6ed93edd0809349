"""Where a function's cycles go: by layer of the model and by kernel, and by cause in each engine.

Every cycle of an engine is busy with a command, spent waiting for a command of the other engine, or
idle after its last command while the other engine finishes the kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tilewright.backends.program import Function, Launch
from tilewright.backends.simulator.timing import EngineTime, KernelTime
from tilewright.compiler.performance import ProgramTimes

END = "end"
"""The cause of waiting behind an engine's last command: the end of the kernel."""

_LAYER = re.compile(r"^(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class EngineProfile:
    """The cycles of one engine by cause: `busy + waiting + idle` are `cycles`."""

    cycles: int
    busy_by: Mapping[str, int]
    """Cycles of commands by their name, the most expensive first."""
    waiting_for: Mapping[str, int]
    """Cycles of waiting by the name of the other engine's command, likewise."""
    idle_cycles: int

    @staticmethod
    def of(times: Iterable[EngineTime], cycles: int) -> EngineProfile:
        """The sum of several launches that take `cycles`."""
        busy, waiting, idle = Counter[str](), Counter[str](), 0
        for time in times:
            busy.update(time.busy_by)
            waiting.update(time.waiting_for)
            idle += time.idle
        return EngineProfile(cycles, dict(busy.most_common()), dict(waiting.most_common()), idle)

    @property
    def busy(self) -> float:
        """Share of the cycles in which the engine works."""
        return self.share(sum(self.busy_by.values()))

    @property
    def waiting(self) -> float:
        """Share of the cycles in which it waits for the other engine."""
        return self.share(sum(self.waiting_for.values()))

    @property
    def idle(self) -> float:
        """Share of the cycles after its last command."""
        return self.share(self.idle_cycles)

    def share(self, cycles: int) -> float:
        """`cycles` as a share of all."""
        return cycles / self.cycles if self.cycles else 0.0

    def to_json(self, engine: str) -> dict[str, object]:
        """Its fields in a row of `tw profile --json`; what is not busy is waiting."""
        waiting_for = {**self.waiting_for, END: self.idle_cycles}
        return {
            f"{engine}_busy": self.busy,
            f"{engine}_waiting": self.waiting + self.idle,
            f"{engine}_busy_with": self._causes(self.busy_by),
            f"{engine}_waiting_for": self._causes(waiting_for),
        }

    def _causes(self, cycles: Mapping[str, int]) -> list[dict[str, object]]:
        return [{"cause": name, "share": self.share(n)} for name, n in cycles.items() if n]


@dataclass(frozen=True)
class ProfileRow:
    """Launches that belong together, and what they cost. Cycles are of the compute clock."""

    name: str
    op: str
    launches: int
    cycles: int
    gdma: EngineProfile
    bdc: EngineProfile
    bytes_moved: int
    ideal_cycles: float

    @property
    def roofline(self) -> float:
        """Share of the roofline: what the larger of bytes / DMA rate and compute takes, of all."""
        return self.ideal_cycles / self.cycles if self.cycles else 0.0

    def to_json(self) -> dict[str, object]:
        """A row of `tw profile --json` (docs/json.md)."""
        return {
            "name": self.name,
            "op": self.op,
            "launches": self.launches,
            "cycles": self.cycles,
            **self.gdma.to_json("gdma"),
            **self.bdc.to_json("bdc"),
            "bytes": self.bytes_moved,
            "roofline": self.roofline,
        }


def layer_of(name: str) -> str:
    """The layer of an op: its name up to a number (`encoder.layers.3`), else its first part."""
    match = _LAYER.match(name)
    return match.group(1) if match else name.split(".")[0]


def whole(times: ProgramTimes, function: Function) -> ProfileRow:
    """One row for the whole function."""
    costs = [times.kernels[launch.kernel] for launch in function.launches]
    return _row(times, function.name, "", costs)


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
    """A Chrome trace (chrome://tracing, Perfetto) of every command; microseconds of the chip."""
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
    cycles = sum(cost.cycles for cost in costs)
    return ProfileRow(
        name,
        op,
        len(costs),
        cycles,
        EngineProfile.of((cost.gdma for cost in costs), cycles),
        EngineProfile.of((cost.bdc for cost in costs), cycles),
        sum(cost.bytes_in + cost.bytes_out for cost in costs),
        sum(max((c.bytes_in + c.bytes_out) / rate, c.bdc.busy) for c in costs),
    )
