"""Memory plans of random modules, executed on bytes that know where they come from.

An interpreter of its own walks through the module and gives every value fresh tokens; the launches
of the linked program move the same tokens through a model of global memory. Wherever a buffer is
reused too early, or an address is wrong, a launch finds other tokens than it should.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Launch, Program
from tilewright.compiler.link import link
from tilewright.compiler.memory_plan import Between, MemoryPlan, plan_memory
from tilewright.dialects.bdc.program import AccessMode, ArgumentAttr, ProgramOp
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import FitError, IRError, UnsupportedError
from tilewright.dialects.graph import shape_of
from tilewright.dialects.memory_types import GlobalType
from tilewright.dialects.scopes import functions_of
from tilewright.dialects.tpu import CallOp, LaunchOp, ReshapeOp, SliceOp, StateOp, WeightOp

Tokens = npt.NDArray[np.int64]

CHIP = load_chip("bm1684x")
COLS = 64
ROWS = (1, 16, 40, 70)
"""256 bytes to four times the alignment of buffers."""
LAYER_ROWS = 40


def tensor(rows: int, cols: int = COLS) -> str:
    return f"tensor<{rows}x{cols}xf32>"


@dataclass
class Writer:
    """Text of a random function; `values` are name and rows of what may be used next."""

    draw: Any
    lines: list[str] = field(default_factory=list[str])
    values: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    computed: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def pick(self, rows: int | None = None) -> tuple[str, int]:
        choices = [v for v in self.values if rows in (None, v[1])]
        if not choices:
            return self.launch(rows)
        return self.draw(st.sampled_from(choices))

    def launch(self, rows: int | None = None) -> tuple[str, int]:
        operands = [self.pick() for _ in range(self.draw(st.integers(1, 3)))] if self.values else []
        size: int = rows or self.draw(st.sampled_from(ROWS))
        name = self.name()
        types = ", ".join(tensor(r) for _, r in operands)
        names = ", ".join(n for n, _ in operands)
        self.lines.append(f"{name} = tpu.Launch @k({names}) : ({types}) -> {tensor(size)}")
        self.values.append((name, size))
        self.computed.append((name, size))
        return name, size

    def slice(self) -> None:
        source, rows = self.pick()
        size = self.draw(st.integers(1, rows))
        first = self.draw(st.integers(0, rows - size))
        name = self.name()
        self.lines.append(
            f"{name} = tpu.Slice {source} {{offsets = array<i64: {first}, 0>}} : "
            f"{tensor(rows)} -> {tensor(size)}"
        )
        self.values.append((name, size))

    def reshape(self) -> None:
        source, rows = self.pick()
        flat, name = self.name(), self.name()
        self.lines += [
            f"{flat} = tpu.Reshape {source} : {tensor(rows)} -> {tensor(1, rows * COLS)}",
            f"{name} = tpu.Reshape {flat} : {tensor(1, rows * COLS)} -> {tensor(rows)}",
        ]
        self.values.append((name, rows))

    def weight(self) -> None:
        name, rows = self.name(), self.draw(st.sampled_from(ROWS))
        self.lines.append(f'{name} = tpu.Weight dense "w{rows}" : {tensor(rows)}')
        self.values.append((name, rows))

    def update(self) -> None:
        """A state that is written in place, with rows that may be anything."""
        state, name = self.name(), self.name()
        rows = self.pick()
        kind = tensor(LAYER_ROWS)
        self.lines += [
            f'{state} = tpu.State "cache" : {kind}',
            f"{name} = tpu.Launch @k({state}, {rows[0]}) {{alias = 0 : i64}} : "
            f"({kind}, {tensor(rows[1])}) -> {kind}",
        ]
        self.values.append((name, LAYER_ROWS))

    def call(self, callee: str, depth: int) -> None:
        x, other = self.pick(LAYER_ROWS), self.pick(LAYER_ROWS)
        kind, name = tensor(LAYER_ROWS), self.name()
        first = self.draw(st.integers(0, 9))
        scopes = ", ".join(f'"{callee}.{first + i}."' for i in range(depth))
        self.lines.append(
            f"{name} = tpu.Call @{callee}({x[0]}, {other[0]}) {{scopes = [{scopes}]}} : "
            f"({kind}, {kind}) -> {kind}"
        )
        self.values.append((name, LAYER_ROWS))
        self.computed.append((name, LAYER_ROWS))

    def body(self, callees: Sequence[str], states: bool) -> None:
        kinds = ["launch", "launch", "launch", "slice", "reshape", "weight"]
        kinds += ["call", "call"] * bool(callees) + ["update"] * states
        for _ in range(self.draw(st.integers(2, 9))):
            kind = self.draw(st.sampled_from(kinds))
            if kind == "call":
                self.call(self.draw(st.sampled_from(callees)), self.draw(st.integers(1, 4)))
            else:
                getattr(self, kind)()


@st.composite
def modules(draw: Any) -> str:
    """A module of `main` and two private functions, `outer` calling `inner`; chains of calls."""
    texts: list[str] = []
    kind = tensor(LAYER_ROWS)
    callees: list[str] = []
    for name in ("inner", "outer"):
        writer = Writer(draw, values=[("%x", LAYER_ROWS), ("%y", LAYER_ROWS)])
        writer.body(callees, states=name == "inner")
        writer.launch(LAYER_ROWS)
        own = [v for v in writer.computed if v[1] == LAYER_ROWS]
        result = draw(st.sampled_from(own))
        texts.append(
            f"func.func private @{name}(%x: {kind}, %y: {kind}) -> {kind} {{\n"
            + "\n".join(writer.lines)
            + f"\nfunc.return {result[0]} : {kind}\n}}"
        )
        callees.append(name)
    writer = Writer(draw, values=[("%x", LAYER_ROWS), ("%y", 16)])
    writer.body(callees, states=False)
    writer.call("outer", draw(st.integers(1, 4)))
    results = draw(st.lists(st.sampled_from(writer.computed), min_size=1, max_size=3, unique=True))
    types = ", ".join(tensor(rows) for _, rows in results)
    texts.append(
        f"func.func @main(%x: {kind}, %y: {tensor(16)}) -> ({types}) {{\n"
        + "\n".join(writer.lines)
        + f"\nfunc.return {', '.join(name for name, _ in results)} : {types}\n}}"
    )
    return "\n".join(texts)


def planned(text: str) -> tuple[ModuleOp, MemoryPlan, Program]:
    module = parse_module(text, "random")
    kernel = ArgumentAttr.of(AccessMode.WRITE, GlobalType.of(1, COLS, F32))
    module.body.block.add_op(ProgramOp("k", "tpu.Any", [kernel], gdma=b"", bdc=b"", local_bytes=0))
    verify_module(module)
    plan = plan_memory(module, CHIP)
    return module, plan, link(module, plan, CHIP)


class Memory:
    """A token for every four bytes of the planned range."""

    def __init__(self, plan: MemoryPlan) -> None:
        self._base = plan.base
        self._cells = np.full(plan.used_bytes // 4, -1, np.int64)

    def at(self, address: int, count: int) -> Tokens:
        start = (address - self._base) // 4
        assert start >= 0
        assert start + count <= len(self._cells)
        return self._cells[start : start + count]


class Interpreter:
    """Executes the module with tokens, each launch of it beside the next launch of the program."""

    def __init__(self, module: ModuleOp, plan: MemoryPlan, launches: Sequence[Launch]) -> None:
        self.functions = functions_of(module)
        self.memory = Memory(plan)
        self.launches: Iterator[Launch] = iter(launches)
        self.named: dict[str, Tokens] = {}
        self.next_token = 0
        for slot in (*plan.weights.values(), *plan.states.values()):
            self.named[slot.name] = self.place(slot.address, slot.shape)

    def fresh(self, shape: Sequence[int]) -> Tokens:
        count = prod(shape)
        self.next_token += count
        return np.arange(self.next_token - count, self.next_token).reshape(shape)

    def place(self, address: int, shape: Sequence[int]) -> Tokens:
        tokens = self.fresh(shape)
        self.memory.at(address, tokens.size)[:] = tokens.ravel()
        return tokens

    def call(self, name: str, scope: str, arguments: Sequence[Tokens]) -> list[Tokens]:
        block = self.functions[name].body.block
        values: dict[SSAValue, Tokens] = dict(zip(block.args, arguments, strict=True))
        for op in block.ops:
            operands = [values[operand] for operand in op.operands]
            match op:
                case func.ReturnOp():
                    return operands
                case WeightOp() | StateOp():
                    results = [self.named[scope + op.key.data]]
                case SliceOp():
                    first = op.offsets.get_values()[0]
                    results = [operands[0][first : first + shape_of(op.result)[0]]]
                case ReshapeOp():
                    results = [operands[0].reshape(shape_of(op.result))]
                case CallOp():
                    results = operands
                    for inner in op.scope_names:
                        made = self.call(op.callee.string_value(), scope + inner, results)
                        results = [*made, *results[len(made) :]]
                    results = results[: len(op.results)]
                case LaunchOp():
                    results = [self.launch(op, scope, operands)]
                case _:
                    raise AssertionError(op.name)
            values.update(zip(op.results, results, strict=True))
        raise AssertionError("no return")

    def launch(self, op: LaunchOp, scope: str, operands: Sequence[Tokens]) -> Tokens:
        launch = next(self.launches)
        assert launch.name == f"{scope}tpu.Launch"
        for address, tokens in zip(launch.addresses, operands, strict=False):
            assert np.array_equal(self.memory.at(address, tokens.size), tokens.ravel()), launch.name
        result = self.fresh(shape_of(op.results[0]))
        if op.alias is None:
            assert len(launch.addresses) == len(operands) + 1
            self.memory.at(launch.addresses[-1], result.size)[:] = result.ravel()
            return result
        assert len(launch.addresses) == len(operands)
        self.memory.at(launch.addresses[op.alias.value.data], result.size)[:] = result.ravel()
        operands[op.alias.value.data][...] = result
        return operands[op.alias.value.data]


def execute(module: ModuleOp, plan: MemoryPlan, program: Program) -> None:
    """Check every read of every launch, and the outputs."""
    (function,) = program.functions
    run = Interpreter(module, plan, function.launches)
    inputs = [run.place(port.address, port.shape) for port in function.inputs]
    for port, tokens in zip(function.outputs, run.call("main", "", inputs), strict=True):
        assert np.array_equal(run.memory.at(port.address, tokens.size), tokens.ravel())
    assert next(run.launches, None) is None


@settings(max_examples=60, deadline=None)
@given(modules())
def test_no_value_is_lost(text: str) -> None:
    execute(*planned(text))


@settings(max_examples=60, deadline=None)
@given(modules())
def test_live_buffers_do_not_overlap(text: str) -> None:
    """By brute force within each function: a value is live from the op that makes it to the last
    op that uses it or a view of it."""
    module, plan, _ = planned(text)
    for name, function in functions_of(module).items():
        ops = list(function.body.block.ops)
        frame = plan.frames[name]
        spans = [
            (offset, offset + prod(shape_of(value_of(key))) * 4, *live(key, ops))
            for key, offset in frame.offsets.items()
        ]
        for i, (low, high, first, last) in enumerate(spans):
            assert low % CHIP.global_alignment == 0
            assert high <= frame.size_bytes
            for other_low, other_high, other_first, other_last in spans[:i]:
                if first <= other_last and other_first <= last:
                    assert high <= other_low or other_high <= low


def value_of(key: SSAValue | Between) -> SSAValue:
    return key.result if isinstance(key, Between) else key


def live(key: SSAValue | Between, ops: Sequence[Any]) -> tuple[int, int]:
    place = {id(op): index for index, op in enumerate(ops)}
    first = last = place[id(value_of(key).owner)]
    pending = [] if isinstance(key, Between) else [key]
    while pending:
        for use in pending.pop().uses:
            last = max(last, place[id(use.operation)])
            if isinstance(use.operation, SliceOp | ReshapeOp):
                pending.append(use.operation.results[0])
    return first, last


@settings(max_examples=30, deadline=None)
@given(modules())
def test_buffers_of_the_program_are_apart_and_aligned(text: str) -> None:
    _, plan, program = planned(text)
    stop = plan.base
    for buffer in program.buffers:
        assert buffer.address >= stop
        assert buffer.address % CHIP.global_alignment == 0
        stop = buffer.address + buffer.size_bytes
    assert stop <= plan.end


def test_the_test_finds_a_buffer_that_is_reused_too_early() -> None:
    text = f"""
    func.func @main(%x: {tensor(16)}) -> {tensor(16)} {{
      %a = tpu.Launch @k(%x) : ({tensor(16)}) -> {tensor(16)}
      %b = tpu.Launch @k(%x) : ({tensor(16)}) -> {tensor(16)}
      %c = tpu.Launch @k(%a, %b) : ({tensor(16)}, {tensor(16)}) -> {tensor(16)}
      func.return %c : {tensor(16)}
    }}"""
    module, plan, program = planned(text)
    execute(module, plan, program)
    frame = replace(plan.frames["main"], offsets=dict.fromkeys(plan.frames["main"].offsets, 0))
    wrong = replace(plan, frames={"main": frame})
    with pytest.raises(AssertionError, match="Launch"):
        execute(module, wrong, link(module, wrong, CHIP))


def test_memory_does_not_grow_with_the_length_of_a_chain() -> None:
    def chain(length: int) -> str:
        kind = tensor(40)
        scopes = ", ".join(f'"layers.{i}."' for i in range(length))
        return f"""
        func.func private @layer(%x: {kind}, %y: {kind}) -> {kind} {{
          %a = tpu.Launch @k(%x) : ({kind}) -> {kind}
          %b = tpu.Launch @k(%a, %y) : ({kind}, {kind}) -> {kind}
          func.return %b : {kind}
        }}
        func.func @main(%x: {kind}, %y: {kind}) -> {kind} {{
          %z = tpu.Call @layer(%x, %y) {{scopes = [{scopes}]}} : ({kind}, {kind}) -> {kind}
          %r = tpu.Launch @k(%z, %x) : ({kind}, {kind}) -> {kind}
          func.return %r : {kind}
        }}"""

    sizes: list[int] = []
    for length in (1, 2, 3, 8, 9):
        module, plan, program = planned(chain(length))
        execute(module, plan, program)
        names = [launch.name for launch in program.functions[0].launches]
        assert names[:2] == ["layers.0.tpu.Launch"] * 2
        assert len(names) == 2 * length + 1
        sizes.append(plan.arena_bytes)
    assert sizes[1:] == [sizes[1]] * 4
    assert sizes[0] < sizes[1]


def test_dead_values_make_room() -> None:
    kind = tensor(40)
    lines = [f"%v{i + 1} = tpu.Launch @k(%v{i}) : ({kind}) -> {kind}" for i in range(30)]
    text = "\n".join(
        [f"func.func @main(%v0: {kind}) -> {kind} {{", *lines, f"func.return %v30 : {kind}", "}"]
    )
    module, plan, program = planned(text)
    execute(module, plan, program)
    length = -(-40 * COLS * 4 // CHIP.global_alignment) * CHIP.global_alignment
    assert plan.arena_bytes == 2 * length


ONE = tensor(16)


def test_a_returned_part_of_a_value_is_refused() -> None:
    """It would be written, whole, to the place of the part."""
    text = f"""
    func.func @main(%x: {ONE}) -> {tensor(1)} {{
      %a = tpu.Launch @k(%x) : ({ONE}) -> {ONE}
      %b = tpu.Slice %a {{offsets = array<i64: 3, 0>}} : {ONE} -> {tensor(1)}
      func.return %b : {tensor(1)}
    }}"""
    with pytest.raises(UnsupportedError, match=r"@main returns a part of a value") as caught:
        planned(text)
    assert caught.value.why is not None
    assert "256 of the 4,096 bytes" in caught.value.why


@pytest.mark.parametrize(
    ("body", "results", "message"),
    [
        ("", ("%x",), "returns a value that it does not compute"),
        ('%w = tpu.Weight dense "w" : {T}', ("%w",), "returns a value that it does not compute"),
        ("%a = tpu.Launch @k(%x) : ({T}) -> {T}", ("%a", "%a"), "returns one value twice"),
    ],
)
def test_results_are_computed_once(body: str, results: Sequence[str], message: str) -> None:
    types = ", ".join([ONE] * len(results))
    text = (
        f"func.func @main(%x: {ONE}) -> ({types}) {{\n{body.replace('{T}', ONE)}\n"
        f"func.return {', '.join(results)} : {types}\n}}"
    )
    with pytest.raises(IRError, match=f"@main {message}"):
        planned(text)


def test_a_weight_of_two_types() -> None:
    text = f"""
    func.func @main(%x: {ONE}) -> {ONE} {{
      %a = tpu.Weight dense "w" : {ONE}
      %b = tpu.Weight dense "w" : {tensor(40)}
      %c = tpu.Launch @k(%x, %a, %b) : ({ONE}, {ONE}, {tensor(40)}) -> {ONE}
      func.return %c : {ONE}
    }}"""
    with pytest.raises(IRError, match="weight 'w' is used as"):
        planned(text)


def test_what_does_not_fit() -> None:
    text = f"""
    func.func @main(%x: {tensor(70)}) -> {tensor(70)} {{
      %w = tpu.Weight dense "w" : {tensor(40)}
      %a = tpu.Launch @k(%x, %w) : ({tensor(70)}, {tensor(40)}) -> {tensor(70)}
      %b = tpu.Launch @k(%a) : ({tensor(70)}) -> {tensor(70)}
      func.return %b : {tensor(70)}
    }}"""
    tiny = parse_module(text, "tiny")
    used = plan_memory(tiny, CHIP).used_bytes
    exact = replace(CHIP, global_bytes=used)
    assert plan_memory(tiny, exact).used_bytes == used
    with pytest.raises(FitError, match="bm1684x: 4,096 bytes too many") as caught:
        plan_memory(tiny, replace(CHIP, global_bytes=used - 4096))
    assert caught.value.why is not None
    figures = [int(x.replace(",", "")) for x in re.findall(r"[\d,]*\d", caught.value.why)]
    assert figures == [used, used - 4096, 40 * COLS * 4, 0, plan_memory(tiny, CHIP).arena_bytes]
    assert plan_memory(tiny, replace(CHIP, global_bytes=1 << 12), check_fit=False).end > 0
