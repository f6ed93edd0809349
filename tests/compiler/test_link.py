"""Linked programs of small models: every address in its buffer, every launch under its name."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.compiler.small_models import TINY_CHATGLM, TINY_LLAMA, model_of

from tilewright.backends.program import Buffer, Launch, Program
from tilewright.compiler.memory_plan import weight_name, weight_name_of
from tilewright.compiler.pipeline import Built, CompileOptions, build_program, lower
from tilewright.dialects.element_types import F16
from tilewright.dialects.scopes import op_name, source_of, walk_calls
from tilewright.dialects.tpu import WeightOp
from tilewright.passes.views import needs_kernel

SEQ = 20
CASES = [(config, quant) for config in ("chatglm", "llama") for quant in ("f16", "w8a16")]
CONFIGS = {"chatglm": TINY_CHATGLM, "llama": TINY_LLAMA}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def built(request: pytest.FixtureRequest) -> Built:
    config, quant = request.param
    module = lower(model_of(CONFIGS[config], SEQ).trace(), CompileOptions(quant))
    built = build_program(module, "bm1684x")
    assert [op.name for op in module.walk()].count("tpu.Launch") == 0
    return built


def buffer_of(program: Program, address: int, size: int) -> Buffer:
    found = [
        b
        for b in program.buffers
        if b.address <= address < address + size <= b.address + b.size_bytes
    ]
    assert len(found) == 1, hex(address)
    return found[0]


def arguments(program: Program) -> list[tuple[Launch, str, Buffer]]:
    """Of each launch of each function each argument: its access and the buffer that it lies in."""
    rows: list[tuple[Launch, str, Buffer]] = []
    for function in program.functions:
        for launch in function.launches:
            described = program.kernels[launch.kernel].arguments
            for argument, address in zip(described, launch.addresses, strict=True):
                buffer = buffer_of(program, address, argument.span_bytes)
                rows.append((launch, argument.access, buffer))
    return rows


def test_every_argument_lies_in_one_buffer_that_it_may_use(built: Built) -> None:
    for launch, access, buffer in arguments(built.program):
        if access != "read":
            assert buffer.kind in ("state", "output", "activation"), launch.name
        if buffer.kind == "output":
            assert access == "write", launch.name


def test_every_buffer_is_used(built: Built) -> None:
    used = {buffer.name for _, _, buffer in arguments(built.program)}
    assert used == {buffer.name for buffer in built.program.buffers}


def test_weights_are_those_of_the_layer(built: Built) -> None:
    """A weight that an op in a layer reads is of that layer, whatever the order of calls."""
    layers = Counter[str]()
    for launch, _, buffer in arguments(built.program):
        if buffer.kind in ("weight", "state") and ".layers." in buffer.name:
            layer = buffer.name.partition(".layers.")[2].split(".")[0]
            assert f".layers.{layer}." in launch.name, (launch.name, buffer.name)
            layers[layer] += 1
    assert len(set(layers.values())) == 1


def test_names_are_scope_and_name_of_the_ops_in_order() -> None:
    module = lower(model_of(TINY_CHATGLM, SEQ).trace(), CompileOptions("f16"))
    program = build_program(module, "bm1684x").program
    for function in program.functions:
        executed = [
            (scope + op_name(op), op)
            for op, scope in walk_calls(module, function.name)
            if needs_kernel(op)
        ]
        assert [name for name, _ in executed] == [launch.name for launch in function.launches]
        assert any(source_of(op) for _, op in executed)
        for launch, (_, op) in zip(function.launches, executed, strict=True):
            assert program.kernels[launch.kernel].op == op.name


def test_weight_names() -> None:
    assert weight_name("a.weight", "dense") == "a.weight"
    assert weight_name("a.weight", "codes") == "a.weight.codes"
    assert weight_name("a.weight", "scale") == "a.weight.scale"
    assert weight_name("a.weight", "dense", transposed=True) == "a.weight.transposed"
    assert weight_name("a.weight", "codes", transposed=True) == "a.weight.codes"
    dense = WeightOp("w", (2, 3), F16)
    assert weight_name_of(dense) == "w"


def test_equal_layers_share_kernels(built: Built) -> None:
    """The kernels are those of one layer, however many there are."""
    launches = [launch for f in built.program.functions for launch in f.launches]
    assert {launch.kernel for launch in launches} == set(range(len(built.program.kernels)))
    one = model_of({**TINY_CHATGLM, "num_layers": 1}, SEQ)
    three = model_of(TINY_CHATGLM, SEQ)
    kernels = [
        {
            k.name
            for k in build_program(
                lower(m.trace(), CompileOptions("f16")), "bm1684x"
            ).program.kernels
        }
        for m in (one, three)
    ]
    assert kernels[0] == kernels[1]


def test_both_functions_share_weights_and_states(built: Built) -> None:
    seen: dict[str, set[str]] = {}
    for function in built.program.functions:
        one = Program("", built.program.kernels, (function,), built.program.buffers)
        seen[function.name] = {
            b.name for _, _, b in arguments(one) if b.kind in ("weight", "state")
        }
    assert seen["prefill"] == seen["decode"]
