"""GDMA commands and the launch: what moves where, and what is refused at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilewright.backends.simulator.machine import Machine
from tilewright.dialects.errors import SimulationError

Array = npt.NDArray[Any]


def numbers(rows: int, cols: int, dtype: Any = np.float32) -> Array:
    return (np.arange(rows * cols) % 2000).reshape(rows, cols).astype(dtype)


def test_rows_lie_on_lane_r_mod_lanes_slot_r_div_lanes(chip: Any, bench: Any) -> None:
    table = numbers(130, 24, np.int8)
    machine = Machine(chip)
    machine.map(chip.global_base, table, writable=False)
    kernel = bench.kernel("gdma 1 load 130x24xi8 local=128/64 global=0+0/24", [(table, "read")])
    machine.run(kernel, [chip.global_base])
    for row in (0, 63, 64, 129):
        start = 128 + row // 64 * 64
        found = machine.local[row % 64, start : start + 24].view(np.int8)
        np.testing.assert_array_equal(found, table[row])


def test_poison_before_a_small_launch(chip: Any, bench: Any) -> None:
    table = numbers(1, 8)
    machine = Machine(chip)
    machine.map(chip.global_base, table, writable=False)
    machine.local[:] = 0
    listing = "gdma 1 load 1x8xf32 local=64/64 global=0+0/32"
    kernel = bench.kernel(listing, [(table, "read")], local_bytes=256)
    machine.run(kernel, [chip.global_base])
    used = machine.local[:, :256].copy()
    np.testing.assert_array_equal(used[0, 64:96].view(np.float32), table[0])
    used[0, 64:96] = 0xFF
    assert np.all(used == 0xFF)


def test_a_window_of_a_wider_matrix(bench: Any) -> None:
    source, target = numbers(100, 50), np.zeros((90, 70), np.float32)
    listing = """
    gdma 1 load 80x20xf32 local=0/128 global=0+1012/200
    gdma 2 store 80x20xf32 local=0/128 global=1+2812/280
    """
    bench.run(listing, [(source, "read"), (target, "write")])
    expected = np.zeros_like(target)
    expected[10:90, 3:23] = source[5:85, 3:23]
    np.testing.assert_array_equal(target, expected)


def test_gather_and_scatter(bench: Any) -> None:
    table, cache = numbers(40, 12, np.float16), np.zeros((99, 12), np.float16)
    order = np.random.default_rng(0).permutation(99)[:70].astype(np.int32)
    rows = (order % 40).astype(np.int32)
    listing = """
    gdma 1 gather 70x12xf16 local=0/64 global=0+0/24 index=1+0 table=40
    gdma 2 scatter 70x12xf16 local=0/64 global=3+0/24 index=2+0 table=99
    """
    arguments = [(table, "read"), (rows[None], "read"), (order[None], "read"), (cache, "update")]
    bench.run(listing, arguments)
    expected = np.zeros_like(cache)
    expected[order] = table[rows]
    np.testing.assert_array_equal(cache, expected)


@pytest.mark.parametrize("index", [40, -1, 2**31 - 1])
def test_an_index_out_of_range_is_named(bench: Any, index: int) -> None:
    rows = np.array([[0, 39, index]], np.int32)
    listing = "gdma 1 gather 3x12xf16 local=0/64 global=0+0/24 index=1+0 table=40"
    with pytest.raises(SimulationError) as caught:
        bench.run(listing, [(numbers(40, 12, np.float16), "read"), (rows, "read")])
    assert str(caught.value) == (
        f"index 2 is {index}, the table has 40 rows\n"
        "  where: layer.0, kernel bench (test.Op), gdma 1 gather 3x12xf16 local=0/64 "
        "global=0+0/24 index=1+0 table=40"
    )


class TestMap:
    """The map of global memory."""

    def kernel(self, bench: Any, access: str) -> Any:
        listing = "gdma 1 load 2x8xf32 local=0/64 global=0+0/32"
        return bench.kernel(listing, [(numbers(2, 8), access)])

    def test_unmapped(self, chip: Any, bench: Any) -> None:
        machine = Machine(chip)
        machine.map(chip.global_base, numbers(2, 8)[:1], writable=False, name="half")
        with pytest.raises(SimulationError) as caught:
            machine.run(self.kernel(bench, "read"), [chip.global_base], name="layer.3.mlp")
        assert str(caught.value) == (
            "argument 0: unmapped global memory\n"
            "  where: layer.3.mlp, kernel bench (test.Op), "
            "gdma 1 load 2x8xf32 local=0/64 global=0+0/32\n"
            f"  why:   64 bytes at {chip.global_base:#x} are not mapped as one piece"
        )

    def test_read_only(self, chip: Any, bench: Any) -> None:
        machine = Machine(chip)
        machine.map(chip.global_base, numbers(2, 8), writable=False, name="weight")
        with pytest.raises(SimulationError, match="a write to read-only global memory") as caught:
            machine.run(self.kernel(bench, "update"), [chip.global_base])
        assert caught.value.why == "weight [0x100000000, 0x100000040)"

    def test_number_of_addresses(self, chip: Any, bench: Any) -> None:
        with pytest.raises(SimulationError, match="2 addresses for 1 arguments"):
            Machine(chip).run(self.kernel(bench, "read"), [0, 0])

    def test_no_copy_in_either_direction(self, chip: Any) -> None:
        machine = Machine(chip)
        array = numbers(2, 8)
        machine.map(chip.global_base, array, writable=True)
        array[1, 1] = 77
        view = machine.read(chip.global_base + 32, 32)
        assert view.view(np.float32)[1] == 77
        assert not view.flags.writeable
        assert np.shares_memory(view, array)

    def test_refused(self, chip: Any) -> None:
        machine = Machine(chip)
        base = chip.global_base
        frozen = numbers(1, 4)
        frozen.flags.writeable = False
        machine.map(base + 64, numbers(1, 4), writable=True, name="first")
        cases = [
            (base + 56, numbers(1, 4), True, "the memory is mapped already"),
            (base + 76, numbers(1, 4), True, "the memory is mapped already"),
            (base - 8, numbers(1, 4), True, "outside of global memory"),
            (base + chip.global_bytes, numbers(1, 4), True, "outside of global memory"),
            (base, numbers(4, 4).T, True, "only contiguous arrays can be mapped"),
            (base, frozen, True, "a read-only array cannot be mapped writable"),
        ]
        for address, array, writable, message in cases:
            with pytest.raises(SimulationError, match=message):
                machine.map(address, array, writable=writable, name="second")
        machine.map(base + 48, frozen, writable=False)
        machine.map(base + 80, frozen, writable=False)
        with pytest.raises(SimulationError, match="no such global memory"):
            machine.read(base + 76, 8)
