"""Chapter 4: the software pipeline, pass by pass."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ch3
import numpy as np
import toy

from tilewright.backends.chip import load_chip
from tilewright.backends.encoding.assembler import bdc_text
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.timing import time_kernel
from tilewright.compiler.cli import run as tw
from tilewright.passes import kernel_language as tk

PASSES = ("double-buffer", "allocate-local-memory", "insert-waits")
SMALL = toy.codes(1, 512, 1024)
"""Four tiles of 256 channels."""

STEPS = [
    *ch3.STEPS,
    toy.Step("software pipeline", ch3.channels_left, toy.codes(), pipelined=True),
]


def short(ir: str) -> list[str]:
    """The lines of the kernel, without types, with constants where they are used."""
    body = ir[ir.index("func.func private") :]
    constants = dict(re.findall(r"(%\w+) = arith.constant (\d+)", body))
    body = re.sub(r"%\w+", lambda name: constants.get(name[0], name[0]), body)
    body = re.sub(
        r" : [!(]?(gdma|bdc|!).*$| : index$|array<i32: | -> \(!.*\)(?= \{)", "", body, flags=re.M
    )
    lines = [
        line.removeprefix("    ").replace(">}", "}").replace(">,", ",")
        for line in body.splitlines()[1:-3]
    ]
    return [line for line in lines if "arith.constant" not in line]


def stages() -> Iterator[tuple[str, list[str]]]:
    """The traced kernel, and what each pass of `tw opt` makes of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernel.mlir")
        path.write_text(str(tk.trace(ch3.channels_left, *SMALL)))
        yield "traced", short(path.read_text())
        for name in PASSES:
            assert tw(["opt", str(path), "-p", name, "-o", str(path)]) == 0
            yield name, short(path.read_text())


def banks(line: str) -> str:
    """The banks in which the offsets of a line lie, as a comment."""
    offsets = re.findall(r"\d+", line.partition("offsets = ")[2])
    numbers = [int(offset) // load_chip("bm1684x").bank_bytes for offset in offsets]
    return f"  // bank {', '.join(map(str, numbers))}"


def show_passes() -> None:
    """The kernel as traced and pipelined; then what two passes add to the lines of its loop."""
    for name, lines in stages():
        toy.section(name)
        inside = [line for line in lines if line.startswith("  ")]
        if name == "allocate-local-memory":
            print("\n".join(line + banks(line) for line in inside if "offsets" in line))
        elif name == "insert-waits":
            waiting = [re.sub(r"offsets = [\d, ]+, ", "", line) for line in inside]
            print("\n".join(line for line in waiting if re.search(r"waits.*[1-9]", line)))
        else:
            print("\n".join(lines))


def overlap() -> None:
    """Both engines over time, before and after; one token, then 128."""
    for m in (1, 128):
        for pipelined in (False, True):
            built = tk.build(ch3.channels_left, *toy.codes(m), pipelined=pipelined)
            print(f"{m} x {toy.K}, {'pipelined' if pipelined else 'in turns'}: ", end="")
            toy.timeline(built, until=88_000)


def sweep() -> None:
    """Tiles have two buffers now: how many channels are best?"""
    print("channels     cycles   local   bdc busy")
    for channels in (64, 256, 512, 768):
        built = tk.build(ch3.in_pieces(channels, toy.K), *toy.codes())
        time = time_kernel(built.kernel, built.chip)
        memory = f"{built.kernel.local_bytes >> 10}K"
        print(f"{channels:8d}  {time.cycles:9,d}   {memory:>5s}   {time.bdc.busy:8,d}")


def a_wait_is_missing() -> None:
    """Take out the wait of the third tile: who notices?"""
    built = tk.build(ch3.channels_left, *SMALL)
    records = built.kernel.bdc.copy()
    third = int(np.flatnonzero(records["wait"])[2])
    print("without the wait of:", bdc_text(records[third]))
    records["wait"][third] = 0
    broken = replace(built, kernel=replace(built.kernel, bdc=records))
    races = find_races(broken.kernel, broken.chip)
    print(f"{len(races)} races, the first: {races[0]}")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 512)).astype(np.float16)
    codes = rng.integers(-127, 128, (1024, 512)).astype(np.int8)
    scale = np.full((1024, 1), 1 / 127, np.float16)
    for each, name in ((built, "with it"), (broken, "without")):
        early, late = (each.run([x, codes, scale], schedule) for schedule in ("early", "late"))
        print(f"{name}: {int((early != late).sum())} of {early.size} results depend on the timing")


def run() -> None:
    show_passes()
    toy.section("overlap")
    overlap()
    toy.section("tiles with two buffers")
    sweep()
    toy.section("a wait is missing")
    a_wait_is_missing()
    toy.section("so far")
    toy.table(STEPS)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the kernel in a file of your own, for `tw opt`
        Path(sys.argv[1]).write_text(str(tk.trace(ch3.channels_left, *SMALL)))
    else:
        run()
