"""What the chapters share: the op, its sizes, and how times are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tilewright.backends.encoding.assembler import disassemble
from tilewright.backends.simulator.timing import EngineTime, time_kernel
from tilewright.compiler import dsl
from tilewright.dialects.element_types import ElementType
from tilewright.passes import kernel_language as tk

M, K, N = 1, 4096, 13696
"""One token through a projection of the MLP of ChatGLM2-6B: its gate, or what the gate meets."""

Operand = tuple[tuple[int, ...], ElementType]


@dsl.custom_op("toy.Linear", quantized=("weight",))
def linear(x: dsl.Operand, weight: dsl.Operand) -> dsl.Tensor:
    """`y = x @ weight.T`. `linear.tpu` takes the weight in f16, `linear.w8a16` in int8 codes."""
    return dsl.linear(x, weight)


def halves(m: int = M, k: int = K, n: int = N) -> list[Operand]:
    """Operands of `linear.tpu`: x and the weight."""
    return [((m, k), tk.f16), ((n, k), tk.f16)]


def codes(m: int = M, k: int = K, n: int = N) -> list[Operand]:
    """Operands of `linear.w8a16`: x, the weight's codes, a scale for each of its rows."""
    return [((m, k), tk.f16), ((n, k), tk.i8), ((n, 1), tk.f16)]


@dataclass(frozen=True)
class Step:
    """A line of the table: a kernel at the real size."""

    name: str
    kernel: tk.Kernel
    operands: Sequence[Operand]
    pipelined: bool = False
    """Built with `double-buffer`, the pass of chapter 4."""

    def build(self) -> tk.Built:
        return tk.build(self.kernel, *self.operands, pipelined=self.pipelined)


def section(name: str) -> None:
    """Begin a part of the output: the page of the chapter shows each part where it speaks of it."""
    print(f"== {name} ==")


def check(kernel: tk.Kernel, operands: Sequence[Operand]) -> None:
    """Run the kernel on numbers, on every chip and with remainders, and compare with float64."""
    checked = tk.check(kernel, *operands)
    worst = max(each.worst for each in checked)
    chips = ", ".join(dict.fromkeys(each.chip for each in checked))
    rows = ", ".join(str(m) for m in dict.fromkeys(each.shapes[0][0] for each in checked))
    print(f"right on {chips} with {rows} rows of x: the largest error is {worst:.0%} of its bound")


def where_the_cycles_go(built: tk.Built) -> None:
    """What both engines do all the time."""
    time = time_kernel(built.kernel, built.chip)
    print(f"{time.cycles:,d} cycles, {time.bytes_in:,d} bytes in, {time.bytes_out:,d} bytes out")
    for name, engine in (("gdma", time.gdma), ("bdc", time.bdc)):
        parts = ", ".join(f"{kind} {cycles:,d}" for kind, cycles in engine.busy_by.items())
        print(f"{name:4s}  busy {engine.busy:9,d}  waiting {engine.waiting:9,d}  ({parts})")


def table(steps: Sequence[Step]) -> None:
    """The steps so far."""
    print(f"{'':38s} {'cycles':>9s}  {'speed':>6s}  gdma busy  bdc busy")
    first = 0
    for number, step in enumerate(steps):
        built = step.build()
        time = time_kernel(built.kernel, built.chip)
        first = first or time.cycles
        print(
            f"{number + 1}. {step.name:35s} {time.cycles:9,d}  {first / time.cycles:4.2f} x  "
            f"{time.gdma.busy / time.cycles:7.1%}  {time.bdc.busy / time.cycles:7.1%}"
        )


LETTERS: Mapping[str, str] = {
    "load": "L",
    "store": "S",
    "dequant": "d",
    "mm": "m",
    "transpose": "t",
    "cast": "c",
    "add": "a",
}


def timeline(built: tk.Built, until: int, columns: int = 88) -> None:
    """Both engines from cycle 0 to `until`, a letter for what fills most of its share of cycles."""
    time = time_kernel(built.kernel, built.chip)
    print(f"{time.cycles:,d} cycles, a letter is {until // columns:,d}")
    for name, engine in (("gdma", time.gdma), ("bdc", time.bdc)):
        commands = [line.split() for line in disassemble(built.kernel).splitlines()]
        letters = [LETTERS[words[2]] for words in commands if words[0] == name]
        print(f"{name:4s} {_line(engine, letters, until, columns)}")


def _line(engine: EngineTime, letters: Sequence[str], until: int, columns: int) -> str:
    edges = np.linspace(0, until, columns + 1)
    line = ""
    for low, high in pairwise(edges.tolist()):
        inside = np.minimum(engine.end, high) - np.maximum(engine.start, low)
        most = int(np.argmax(inside))
        line += letters[most] if inside[most] * 2 > high - low else "."
    return line
