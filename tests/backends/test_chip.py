"""Chip files: the shipped ones, and errors for values that no chip has."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest

from tilewright.backends.chip import CHIP_NAMES, Chip, chip_from_toml, load_chip
from tilewright.dialects.errors import OptionError

BM1684X = resources.files("tilewright.backends.chips").joinpath("bm1684x.toml").read_text()


@pytest.mark.parametrize("name", CHIP_NAMES)
def test_every_figure_of_a_shipped_chip_has_a_source(name: str):
    chip = load_chip(name)
    figures = {field.name for field in fields(Chip)} - {"name", "sources"}
    assert set(chip.sources) == figures
    assert all(chip.sources.values())


def test_peaks_are_the_published_ones():
    chip = load_chip("bm1684x")
    macs = chip.lanes * chip.matrix_rows
    tera_ops = {t: 2 * macs * w * chip.clock_hz / 1e12 for t, w in chip.matrix_width.items()}
    assert tera_ops["i8"] == pytest.approx(32, rel=0.03)
    assert tera_ops["f16"] == pytest.approx(16, rel=0.03)
    assert tera_ops["f32"] == pytest.approx(2, rel=0.03)


def test_dma_commands_cost_cycles_of_the_dma_clock():
    assert load_chip("bm1684x").gdma_issue_cycles == 5
    assert load_chip("bm1688").gdma_issue_cycles == pytest.approx(5 * 900 / 750)


def test_a_chip_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(BM1684X.replace("lanes = 64", "lanes = 32").replace('"bm1684x"', '"mine"'))
    assert load_chip(str(path)).lanes == 32


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lanes = 64", "lanes = 0", "lanes = 0 is out of range"),
        ("lanes = 64", "lanes = -64", "lanes = -64 is out of range"),
        ("lanes = 64", "lanes = 6.5", "lanes = 6.5 is out of range"),
        ("lanes = 64", "lanes = true", "lanes = True is out of range"),
        ("banks = 16", "banks = 7", "lane_bytes is not a multiple of banks"),
        ("banks = 16", "banks = 8192", "a bank is not a multiple of vector_bytes"),
        ("clock_hz = 1_000_000_000\ndma", "clock_hz = inf\ndma", "clock_hz = inf is out of range"),
        ("ddr_efficiency = 0.844", "ddr_efficiency = 1.2", "ddr_efficiency is a share, at most 1"),
        ("ddr_efficiency = 0.844", "ddr_efficiency = nan", "ddr_efficiency = nan is out of range"),
        ("bank_conflict_factor = 2.0", "bank_conflict_factor = 0.5", "is at least 1"),
        ("global_base = 0x1_0000_0000", "global_base = 5", "not a multiple of global_alignment"),
        ("f16 = 32, bf16", "f16 = 0, bf16", "matrix_width is a table of positive integers"),
        ("host_launch_s = 100e-6", "host_launch_s = -1.0", "host_launch_s = -1.0 is out of range"),
        ("vector_bytes = 64", "vector_bytes = 63", "vector_bytes is not a multiple of 4"),
        ("banks = 16\n", "", "missing: banks"),
        ("banks = 16\n", "banks = 16\ncores = 2\n", "unknown: cores"),
        ("banks = 16\n", "banks = = 16\n", ""),
    ],
)
def test_impossible_values_are_named(old: str, new: str, message: str):
    text = BM1684X.replace(old, new, 1)
    assert text != BM1684X
    with pytest.raises(OptionError) as caught:
        chip_from_toml(text, where="mine.toml")
    assert caught.value.where == "mine.toml"
    assert message in (caught.value.why or "")


def test_an_unknown_chip_lists_the_known():
    with pytest.raises(OptionError) as caught:
        load_chip("bm9000")
    assert "bm1684x" in (caught.value.hint or "")
