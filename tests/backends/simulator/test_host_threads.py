"""Several host threads: the results of one, whatever the number of threads and of cores."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilewright.backends.encoding.records import BdcOpcode
from tilewright.backends.simulator import host_threads, machine, task_loops, task_runner, tasks
from tilewright.backends.simulator.host_threads import HostThreads
from tilewright.backends.simulator.task_loops import TaskKind
from tilewright.backends.simulator.task_runner import CHUNKS, KIND
from tilewright.backends.simulator.tasks import TaskBuilder, task_table
from tilewright.dialects.errors import SimulationError

Array = npt.NDArray[Any]

# Every opcode of both engines and every inner loop; 200 rows are four slots.
EVERY_OPCODE = """
gdma 1 load 200x96xi8 local=0/128 global=0+0/96
gdma 2 load 200x1xf16 local=512/64 global=1+0/2
gdma 3 load 100x96xf16 local=1024/192 global=2+0/192
gdma 4 load_replicated 1x96xf32 local=1536/0 global=3+0/0
gdma 5 gather 150x96xf16 local=2048/192 global=2+0/192 index=4+0 table=100
gdma 6 load 200x3xi32 local=2560/64 global=11+0/12
bdc 1 dequant 200x96 dst=f16:4096/192 a=i8:0/128 b=f16:512/64 wait=6
bdc 2 mm 200x150x96 dst=f32:8192/640 a=f16:4096/192 b=f16:2048/192 transpose_right
bdc 3 mm 200x96x96 dst=f32:12288/384 a=f16:4096/192 b=f16:2048/192
bdc 4 mm 200x2x96 dst=f32:16384/64 a=f16:4096/192 b=f16:2048/192 transpose_right
bdc 5 mm 1x200x96 dst=f16:20480/448 a=f16:2048/192 b=f16:4096/192 transpose_right
bdc 6 mm 200x2x96 dst=f32:16384/64 a=f16:4096/192 b=f16:2048/192 transpose_right accumulate
bdc 7 mul 200x96 dst=f32:24576/384 a=f16:4096/192 immediate=0.0625
bdc 8 tanh 200x96 dst=f32:24576/384 a=f32:24576/384
bdc 9 add 200x96 dst=f32:12288/384 a=f32:12288/384 b=f32:1536/0 row
bdc 10 reduce_max 200x96 dst=f32:28672/64 a=f32:24576/384
bdc 11 sub 200x96 dst=f32:24576/384 a=f32:24576/384 b=f32:28672/64 column
bdc 12 rotate 200x96 dst=f16:32768/192 a=f32:24576/384 turned=64
bdc 13 transpose 200x96 dst=f16:40960/448 a=f16:32768/192
bdc 14 fill 200x96 dst=f16:49152/192 immediate=0.5
bdc 15 quantize 200x96 dst=i8:53248/128 a=f16:4096/192 b=f32:1536/0
bdc 16 dequantize 200x96 dst=f16:57344/192 a=i8:53248/128 b=f32:1536/0
bdc 17 mm 200x96x96 dst=i32:61440/384 a=i8:0/128 b=i8:53248/128
bdc 18 mm 200x2x96 dst=i32:65536/64 a=i8:0/128 b=i8:53248/128 transpose_right
bdc 19 mm 200x2x96 dst=i32:65536/64 a=i8:0/128 b=i8:53248/128 transpose_right accumulate
bdc 20 requant 200x96 dst=i8:69632/128 a=i32:61440/384 b=i32:2560/64
gdma 7 store 200x150xf32 local=8192/640 global=5+0/600 wait=20
gdma 8 store 200x96xf32 local=12288/384 global=6+0/384
gdma 9 store 200x2xf32 local=16384/64 global=7+0/8
gdma 10 store 1x200xf16 local=20480/448 global=8+0/400
gdma 11 store 96x200xf16 local=40960/448 global=9+0/400
gdma 12 store 200x96xf16 local=49152/192 global=10+0/192
gdma 13 scatter 150x96xf16 local=2048/192 global=10+0/192 index=4+0 table=100
gdma 14 store 200x96xf16 local=57344/192 global=12+0/192
gdma 15 store 200x2xi32 local=65536/64 global=13+0/8
gdma 16 store 200x96xi8 local=69632/128 global=14+0/96
"""


def run_every_opcode(bench: Any) -> list[Array]:
    random = np.random.default_rng(5)
    codes = random.integers(-127, 128, (200, 96)).astype(np.int8)
    scale = (random.random((200, 1)) / 64).astype(np.float16)
    x = random.standard_normal((100, 96)).astype(np.float16)
    row = random.standard_normal((1, 96)).astype(np.float32)
    # Some rows several times: of those that are scattered to one place, the last one stays.
    indices = random.integers(0, 100, (1, 150)).astype(np.int32)
    results: list[Array] = [
        np.zeros((200, 150), np.float32),
        np.zeros((200, 96), np.float32),
        np.zeros((200, 2), np.float32),
        np.zeros((1, 200), np.float16),
        np.zeros((96, 200), np.float16),
        np.zeros((200, 96), np.float16),
    ]
    table = np.array([[7, 2**30, 40]], np.int32).repeat(200, axis=0)
    int8_results: list[Array] = [
        np.zeros((200, 96), np.float16),
        np.zeros((200, 2), np.int32),
        np.zeros((200, 96), np.int8),
    ]
    reads = [(array, "read") for array in (codes, scale, x, row, indices)]
    bench.run(
        EVERY_OPCODE,
        [
            *reads,
            *((array, "write") for array in results[:-1]),
            *((results[-1], "update"), (table, "read")),
            *((array, "write") for array in int8_results),
        ],
    )
    return [*results, *int8_results]


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads take part in every task that can be shared."""
    monkeypatch.setattr(tasks, "CHUNK_NS", 1)
    monkeypatch.setattr(machine, "SHARED_LAUNCH_NS", 0)


def test_the_listing_has_every_opcode_and_inner_loop(
    chip: Any, bench: Any, many_chunks: None
) -> None:
    arguments = [(np.zeros((200, 200), np.float16), "read")]
    kernel = bench.kernel(EVERY_OPCODE, arguments)
    assert set(kernel.bdc["opcode"].tolist()) == {int(opcode) for opcode in BdcOpcode}
    assert set(kernel.gdma["opcode"].tolist()) == {1, 2, 3, 4, 5}
    builder = TaskBuilder(chip, 0, chip.lane_bytes)
    table = task_table(task for record in kernel.bdc for task in builder.tasks(record))
    loops = set(TaskKind) - {TaskKind.MOVE_ROWS, TaskKind.MULTIPLY_DEQUANTIZED}
    assert set(table[table[:, CHUNKS] > 1, KIND].tolist()) == {int(loop) for loop in loops}


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_the_number_of_threads_changes_nothing(
    chip: Any, bench: Any, many_chunks: None, threads: int
) -> None:
    """Four threads are more than the cores of many hosts."""
    alone = run_every_opcode(bench)
    assert all(np.isfinite(result).all() and result.any() for result in alone)
    shared = type(bench)(chip, threads=threads)
    for _ in range(5):
        for got, expected in zip(run_every_opcode(shared), alone, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_more_threads_than_cores(chip: Any, bench: Any, many_chunks: None) -> None:
    """Twice as many threads as cores, each with several chunks of 2000 tasks that build on each
    other."""
    count = 2000
    x, out = np.ones((640, 16), np.float32), np.zeros((640, 16), np.float32)
    lines = ["gdma 1 load 640x16xf32 local=0/64 global=0+0/64"]
    lines += [
        f"bdc {i} add 640x16 dst=f32:0/64 a=f32:0/64 immediate=1.0 {'wait=1' if i == 1 else ''}"
        for i in range(1, count + 1)
    ]
    lines.append(f"gdma 2 store 640x16xf32 local=0/64 global=1+0/64 wait={count}")
    crowded = type(bench)(chip, threads=2 * (os.cpu_count() or 1))
    crowded.run("\n".join(lines), [(x, "read"), (out, "write")])
    np.testing.assert_array_equal(out, np.full_like(out, count + 1))


def test_rows_stored_to_one_place_keep_their_order(
    chip: Any, bench: Any, many_chunks: None
) -> None:
    x = np.arange(500, dtype=np.float32).reshape(500, 1).repeat(64, axis=1)
    listing = """
    gdma 1 load 500x64xf32 local=0/256 global=0+0/256
    gdma 2 store 500x64xf32 local=0/256 global=1+0/0
    """
    for _ in range(20):
        out = np.zeros((1, 64), np.float32)
        type(bench)(chip, threads=2).run(listing, [(x, "read"), (out, "write")])
        np.testing.assert_array_equal(out, x[-1:])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_bad_index_stops_all_threads(
    chip: Any, bench: Any, many_chunks: None, threads: int
) -> None:
    """The command before it is executed, the ones behind it are not."""
    table, copy = np.ones((200, 64), np.float32), np.zeros((200, 64), np.float32)
    later = np.zeros((200, 64), np.float32)
    indices = np.zeros((1, 200), np.int32)
    indices[0, 123] = 200
    gather = "gather 200x64xf32 local=0/256 global=0+0/256 index=1+0 table=200"
    listing = f"""
    gdma 1 load 200x64xf32 local=0/256 global=0+0/256
    gdma 2 store 200x64xf32 local=0/256 global=2+0/256
    gdma 3 {gather}
    gdma 4 store 200x64xf32 local=0/256 global=3+0/256
    """
    arguments = [(table, "read"), (indices, "read"), (copy, "write"), (later, "write")]
    with pytest.raises(SimulationError) as caught:
        type(bench)(chip, threads=threads).run(listing, arguments)
    assert str(caught.value) == (
        "index 123 is 200, the table has 200 rows\n"
        f"  where: layer.0, kernel bench (test.Op), gdma 3 {gather}"
    )
    assert copy.all()
    assert not later.any()


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_in_one_thread_reaches_the_caller(culprit: int) -> None:
    """Here threads look for the end in Python; compiled ones look at the same word."""
    failed = Event()

    def part(thread: int, threads: int, state: host_threads.State) -> None:
        assert threads == 2
        if thread == culprit:
            failed.set()
            raise KeyboardInterrupt if culprit == 0 else MemoryError
        assert failed.wait(10)
        while not state[host_threads.FAILED]:
            pass

    crew = HostThreads(2)
    with pytest.raises(KeyboardInterrupt if culprit == 0 else MemoryError):
        crew.run(part, together=True)
    assert not crew.run(lambda *_: None, together=True).any()


def test_cached_loops_are_those_of_the_modules_as_they_are(tmp_path: Path) -> None:
    module = ModuleType("inner_loops")
    module.__file__ = str(tmp_path / "inner_loops.py")
    numbers: list[int] = []
    for text in ("BLOCK = 4", "BLOCK = 6", "BLOCK = 4"):
        Path(module.__file__).write_text(text)
        numbers.append(task_loops.fingerprint_of([module]))
    assert numbers[0] == numbers[2] != numbers[1]
    run_tasks: Any = task_runner.run_tasks
    assert _cells(run_tasks.py_func) == [task_loops.fingerprint_of(task_runner.COMPILED_MODULES)]
    fingerprint = task_loops.fingerprint_of(task_loops.COMPILED_MODULES)
    for kind in TaskKind:
        assert _cells(task_loops.compiled_loop(kind).__wrapped__) == [fingerprint]


def test_only_loops_that_are_needed_are_compiled() -> None:
    addresses = task_loops.loop_addresses([TaskKind.PACK_ROWS, TaskKind.MOVE_ROWS])
    assert np.flatnonzero(addresses).tolist() == [TaskKind.MOVE_ROWS, TaskKind.PACK_ROWS]
    assert addresses[TaskKind.PACK_ROWS] == task_loops.compiled_loop(TaskKind.PACK_ROWS).address


def _cells(function: Any) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__]
