"""Chips as plain data, loaded and validated from TOML files (see `backends/chips/` and
docs/chips.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tilewright.dialects import plugins
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import CodeFormat

CHIP_NAMES = ("bm1684x", "bm1688", "bm1690")


@dataclass(frozen=True)
class Chip:
    """What the simulator, the cost model and the passes know of a chip. Units are in the names;
    rates are a cycle of `clock_hz`.
    """

    name: str
    lanes: int
    lane_bytes: int
    banks: int
    vector_bytes: int
    """Bytes that a lane's vector unit takes a cycle."""
    matrix_rows: int
    """Columns of the result that a lane's matrix unit computes at once."""
    matrix_width: Mapping[str, int]
    """Products that it adds up a cycle, for each element type."""
    clock_hz: float
    dma_clock_hz: float
    global_base: int
    global_bytes: int
    global_alignment: int
    dma_run_bytes: int
    """A contiguous run of global memory is charged in whole units of this."""
    ddr_bytes_per_s: float
    ddr_efficiency: float
    gdma_command_cycles: int
    """What a DMA command costs beside its bytes, in cycles of the DMA clock."""
    bdc_command_cycles: int
    special_function_passes: int
    """Vector passes that a transcendental function takes."""
    transpose_passes: int
    bank_conflict_factor: float
    host_launch_s: float
    code_formats: tuple[CodeFormat, ...]
    """What the vector unit can dequantize; all formats if the file does not say."""
    sources: Mapping[str, str]

    @property
    def bank_bytes(self) -> int:
        return self.lane_bytes // self.banks

    @property
    def gdma_issue_cycles(self) -> float:
        """What a DMA command costs beside its bytes, in cycles of the compute clock."""
        return self.gdma_command_cycles * self.clock_hz / self.dma_clock_hz

    @property
    def dma_bytes_per_cycle(self) -> float:
        """Global-memory bytes that the GDMA moves in a cycle of the compute clock."""
        return self.ddr_bytes_per_s * self.ddr_efficiency / self.clock_hz


def load_chip(name_or_path: str) -> Chip:
    """The shipped chip of that name, or the chip described by a TOML file, or that of a plugin.

    Raises `OptionError` where there is no such chip or file, or its values are impossible, and
    `PluginError` where they are a plugin's.
    """
    if name_or_path in CHIP_NAMES:
        return _shipped(name_or_path)
    path = Path(name_or_path)
    if path.is_file():
        return _chip_in(path)
    if name_or_path in plugins.given("chips"):
        return _chip_of_plugin(name_or_path)
    raise OptionError(
        f"no chip {name_or_path!r}",
        why=plugins.left_out(),
        hint=f"one of {', '.join(chip_names())}, or the path of a chip file",
    )


def chip_names() -> tuple[str, ...]:
    """The names that `load_chip` knows: the shipped chips, then those of plugins."""
    return (*CHIP_NAMES, *plugins.given("chips"))


def _chip_in(path: Path) -> Chip:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            "the chip file cannot be read", where=str(path), why=str(error)
        ) from error
    return chip_from_toml(text, where=str(path))


@cache
def _chip_of_plugin(name: str) -> Chip:
    giver = plugins.given("chips")[name]
    assert giver.plugin is not None
    path = giver.plugin.chips[name]
    try:
        chip = _chip_in(path)
        if chip.name != name:
            raise OptionError(f"it describes {chip.name!r}", where=str(path))
    except OptionError as error:
        raise giver.failure(f"chip {name!r} cannot be used", error) from error
    return chip


@cache
def _shipped(name: str) -> Chip:
    text = resources.files("tilewright.backends.chips").joinpath(f"{name}.toml").read_text()
    return chip_from_toml(text, where=f"{name}.toml")


def chip_from_toml(text: str, *, where: str) -> Chip:
    """The chip that a TOML document describes; `where` names it in errors (`OptionError`)."""
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError("the chip file is not TOML", where=where, why=str(error)) from error
    table = {**_OPTIONAL, **table}
    names = {field.name for field in fields(Chip)}
    unknown, missing = sorted(set(table) - names), sorted(names - set(table))
    if unknown or missing:
        raise OptionError(
            "the chip file does not have the right keys",
            where=where,
            why="; ".join(
                [f"unknown: {', '.join(unknown)}"] * bool(unknown)
                + [f"missing: {', '.join(missing)}"] * bool(missing)
            ),
        )
    problems = [problem for key in sorted(names) for problem in _problems(key, table[key])]
    if not problems:
        problems = _contradictions(table)
    if problems:
        raise OptionError(
            "the chip file has impossible values", where=where, why="; ".join(problems)
        )
    for key in ("matrix_width", "sources"):
        table[key] = MappingProxyType(table[key])
    table["code_formats"] = tuple(CodeFormat(name) for name in table["code_formats"])
    return Chip(**table)


_FORMATS = [str(each) for each in CodeFormat]
_OPTIONAL: Mapping[str, Any] = MappingProxyType({"code_formats": _FORMATS})
"""What stands for keys that a file may leave out."""


_FLOATS = ("clock_hz", "dma_clock_hz", "ddr_bytes_per_s", "ddr_efficiency")
_FLOATS_FROM_ZERO = ("bank_conflict_factor", "host_launch_s")
_COUNTS_FROM_ZERO = ("global_base", "gdma_command_cycles", "bdc_command_cycles")


def _problems(key: str, value: Any) -> list[str]:
    if key == "name":
        return [] if isinstance(value, str) and value else [f"{key} is a name"]
    if key == "sources":
        strings = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        return [] if strings else [f"{key} is a table of texts"]
    if key == "code_formats":
        known = isinstance(value, list) and all(each in _FORMATS for each in value)
        return [] if known else [f"{key} is a list of {', '.join(_FORMATS)}"]
    if key == "matrix_width":
        right = isinstance(value, dict) and set(value) == {"i8", "f16", "bf16", "f32"}
        if not right or not all(_is_count(v) and v > 0 for v in value.values()):
            return [f"{key} is a table of positive integers for i8, f16, bf16 and f32"]
        return []
    if key in _FLOATS or key in _FLOATS_FROM_ZERO:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        low = number and (value > 0 or (value == 0 and key in _FLOATS_FROM_ZERO))
        return [] if low and value < float("inf") else [f"{key} = {value!r} is out of range"]
    low = 0 if key in _COUNTS_FROM_ZERO else 1
    return [] if _is_count(value) and value >= low else [f"{key} = {value!r} is out of range"]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _contradictions(table: Mapping[str, Any]) -> list[str]:
    rules = [
        (table["ddr_efficiency"] <= 1, "ddr_efficiency is a share, at most 1"),
        (table["bank_conflict_factor"] >= 1, "bank_conflict_factor is at least 1"),
        (table["lane_bytes"] % table["banks"] == 0, "lane_bytes is not a multiple of banks"),
        (table["vector_bytes"] % 4 == 0, "vector_bytes is not a multiple of 4"),
        (
            table["lane_bytes"] // table["banks"] % table["vector_bytes"] == 0,
            "a bank is not a multiple of vector_bytes",
        ),
        (
            table["global_base"] + table["global_bytes"] <= 1 << 63,
            "global memory ends beyond 63-bit addresses",
        ),
        (
            table["global_base"] % table["global_alignment"] == 0,
            "global_base is not a multiple of global_alignment",
        ),
        (
            table["global_alignment"] % table["dma_run_bytes"] == 0,
            "global_alignment is not a multiple of dma_run_bytes",
        ),
    ]
    return [message for holds, message in rules if not holds]
