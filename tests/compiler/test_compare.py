"""Faults in memory, records and addresses: the comparison names the op, and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_CHATGLM, executable_of, language_model
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.encoding.records import BdcFlag, BdcOpcode
from tilewright.backends.program import Kernel, Launch, Program
from tilewright.compiler import dsl
from tilewright.compiler.compare import (
    Execution,
    OpComparison,
    compare,
    compare_function,
    first_out_of_bound,
    metrics,
    observe,
)
from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.runtime import Session
from tilewright.dialects.errors import InternalError, OptionError

Array = npt.NDArray[Any]

SEQ = 20
PROMPT = [5, 3, 99, 17]
LAYER = "transformer.encoder.layers.1."


@pytest.fixture(scope="module", params=["f16", "w8a16"])
def model(request: pytest.FixtureRequest) -> Executable:
    return executable_of(TINY_CHATGLM, CompileOptions(request.param), SEQ)


@pytest.fixture(scope="module")
def quantized() -> Executable:
    return executable_of(TINY_CHATGLM, CompileOptions("w8a16"), SEQ)


def prefill_rows(executable: Executable, session: Session | None = None) -> list[OpComparison]:
    session = session or executable.session
    inputs = language_model(executable, session).prefill_inputs(PROMPT)
    return compare_function(session, executable.tpu_module, "prefill", inputs)[1]


def wrong(rows: list[OpComparison]) -> list[str]:
    first = first_out_of_bound(rows)
    names = [row.name for row in rows if not row.in_bound]
    assert names[:1] == ([] if first is None else [first.name])
    return names


def with_program(executable: Executable, change: Callable[[Program], Program]) -> Session:
    program = change(executable.program)
    return Session(program, executable.chip, executable.weights.__getitem__)


def with_launch(launch: Launch, change: Callable[[Launch], Launch]) -> Callable[[Program], Program]:
    """Change one launch of prefill."""

    def apply(program: Program) -> Program:
        functions = [
            replace(f, launches=tuple(change(x) if x == launch else x for x in f.launches))
            if f.name == "prefill"
            else f
            for f in program.functions
        ]
        return replace(program, functions=tuple(functions))

    return apply


def launch_of(executable: Executable, name: str, op: str = "") -> Launch:
    """The launch of prefill for the op `name`, of kind `op` if several have the name."""
    launches = executable.session.function("prefill").launches
    kernels = executable.program.kernels
    (found,) = [x for x in launches if x.name == name and op in ("", kernels[x.kernel].op)]
    return found


def test_without_a_fault_every_op_is_in_bound(model: Executable) -> None:
    rows = prefill_rows(model)
    assert wrong(rows) == []
    assert len(rows) == len(model.session.function("prefill").launches)
    assert max(row.ratio for row in rows) > 0
    inputs = language_model(model).decode_inputs(7, len(PROMPT))
    outputs, rows = compare_function(model.session, model.tpu_module, "decode", inputs)
    assert wrong(rows) == []
    (logits,) = outputs.values()
    assert np.isfinite(logits).all()


def test_comparing_changes_no_number(model: Executable) -> None:
    inputs = language_model(model).prefill_inputs(PROMPT)
    plain = model.session.run("prefill", inputs)
    compared, _ = compare_function(model.session, model.tpu_module, "prefill", inputs)
    for name, array in plain.items():
        assert array.tobytes() == compared[name].tobytes()


@pytest.mark.parametrize("factor", [1.01, -1.0, np.inf, np.nan])
def test_a_scale_that_changed_in_memory(quantized: Executable, factor: float) -> None:
    name = LAYER + "mlp.dense_4h_to_h"
    stored = dict(quantized.weights)
    mapped = stored[name + ".weight.scale"].copy()
    session = Session(
        quantized.program,
        quantized.chip,
        lambda key: mapped if key == name + ".weight.scale" else stored[key],
    )
    session.weight = stored.__getitem__
    assert wrong(prefill_rows(quantized, session)) == []
    mapped[3] *= np.asarray(factor, mapped.dtype)
    rows = prefill_rows(quantized, session)
    assert wrong(rows) == [name]
    (row,) = [row for row in rows if not row.in_bound]
    assert row.wrong_elements <= SEQ
    assert row.ratio > 1


def test_a_code_that_changed_in_memory(quantized: Executable) -> None:
    name = LAYER + "self_attention.dense"
    stored = dict(quantized.weights)
    mapped = stored[name + ".weight.codes"].copy()
    session = Session(
        quantized.program,
        quantized.chip,
        lambda key: mapped if key == name + ".weight.codes" else stored[key],
    )
    session.weight = stored.__getitem__
    mapped[5, 7] ^= 64
    assert wrong(prefill_rows(quantized, session)) == [name]


def test_the_scales_of_another_layer(quantized: Executable) -> None:
    name = LAYER + "mlp.dense_4h_to_h"
    other = launch_of(quantized, name.replace("layers.1.", "layers.2."))

    def change(launch: Launch) -> Launch:
        x, codes, _, *rest = launch.addresses
        return replace(launch, addresses=(x, codes, other.addresses[2], *rest))

    session = with_program(quantized, with_launch(launch_of(quantized, name), change))
    assert wrong(prefill_rows(quantized, session)) == [name]


def test_a_wrong_mask(model: Executable) -> None:
    """The positions of a mask whose first row hides nothing."""
    (port,) = [p for p in model.session.function("prefill").inputs if p.name == "attention_mask"]
    name = LAYER + "self_attention"
    attention = launch_of(model, name, "tpu.Attention")

    def change(launch: Launch) -> Launch:
        assert launch.addresses[3] == port.address
        query = launch.addresses[0]
        return replace(launch, addresses=(*launch.addresses[:3], query, *launch.addresses[4:]))

    session = with_program(model, with_launch(attention, change))
    assert wrong(prefill_rows(model, session)) == [name]


def test_a_result_over_memory_that_is_still_needed(model: Executable) -> None:
    """The op that is wrong is the one that then reads it."""
    names = [launch.name for launch in model.session.function("prefill").launches]
    norm = LAYER + "post_attention_layernorm"
    residual = launch_of(model, norm).addresses[0]

    def change(launch: Launch) -> Launch:
        return replace(launch, addresses=(*launch.addresses[:-1], residual))

    victim = LAYER + "mlp.dense_4h_to_h"
    session = with_program(model, with_launch(launch_of(model, victim), change))
    found = wrong(prefill_rows(model, session))
    assert found
    assert found[0] == names[names.index(victim) + 1]
    assert all(LAYER in name for name in found)


def test_a_skipped_command_in_a_kernel_of_all_layers(model: Executable) -> None:
    """The first of the launches of a kernel is named, then the others."""
    index = launch_of(model, LAYER + "mlp.dense_h_to_4h").kernel
    kernel = model.program.kernels[index]
    bdc = kernel.bdc.copy()
    products = np.flatnonzero(bdc["opcode"] == BdcOpcode.MM)
    bdc["depth"][products[-1]] -= 8
    session = with_program(model, lambda p: with_kernel(p, index, replace(kernel, bdc=bdc)))
    suffix = "mlp.dense_h_to_4h"
    expected = [f"transformer.encoder.layers.{i}.{suffix}" for i in range(3)]
    assert wrong(prefill_rows(model, session)) == expected


def with_kernel(program: Program, index: int, kernel: Kernel) -> Program:
    kernels = list(program.kernels)
    kernels[index] = kernel
    return replace(program, kernels=tuple(kernels))


def deep() -> tuple[Executable, dict[str, Array]]:
    """A linear layer whose K is tiled, between two other ops."""

    class Deep(dsl.Module):
        def __init__(self) -> None:
            self.proj = dsl.Linear(20000, 24)

        def main(self, x: dsl.Operand) -> dsl.Tensor:
            return dsl.silu(self.proj(x * 0.5))

    rng = np.random.default_rng(1)
    weights = {"proj.weight": rng.standard_normal((24, 20000)).astype(np.float32) / 141}
    module = dsl.trace(dsl.function(x=dsl.f32(9, 20000))(Deep().main))
    executable = compile_module(module, weights, CompileOptions("f16"))
    return executable, {"x": rng.standard_normal((9, 20000)).astype(np.float32)}


def test_a_lost_tile_of_k() -> None:
    executable, inputs = deep()
    index, kernel = next(
        (i, k) for i, k in enumerate(executable.program.kernels) if k.op == "tpu.MatMul"
    )
    adds = np.flatnonzero(kernel.bdc["flags"] & BdcFlag.ACCUMULATE)
    assert len(adds) > 2
    for number in (adds[1], adds[-1]):
        bdc = kernel.bdc.copy()
        bdc["flags"][number] &= ~np.uint8(BdcFlag.ACCUMULATE)
        faulty = replace(kernel, bdc=bdc)
        session = with_program(executable, lambda p, k=faulty: with_kernel(p, index, k))
        _, rows = compare_function(session, executable.tpu_module, "main", inputs)
        assert wrong(rows) == ["proj"]
    _, rows = compare_function(executable.session, executable.tpu_module, "main", inputs)
    assert wrong(rows) == []


def overflowing() -> tuple[Executable, dict[str, Array]]:
    class Large(dsl.Module):
        def main(self, x: dsl.Operand) -> dsl.Tensor:
            return dsl.silu((x * 60000.0) * -1.0)

    module = dsl.trace(dsl.function(x=dsl.f32(3, 4))(Large().main))
    x = np.array([[0.5, 2, -2, 0], [1.1, -1.1, 1, -1], [3, 1e-3, -1e-3, 1.09]], np.float32)
    return compile_module(module, {}, CompileOptions("f16")), {"x": x}


def test_a_legal_overflow_is_in_bound() -> None:
    executable, inputs = overflowing()
    (result,) = executable.run("main", **inputs)
    assert np.isinf(result.astype(np.float64)).any()
    _, rows = compare_function(executable.session, executable.tpu_module, "main", inputs)
    assert wrong(rows) == []
    for row in rows:
        figures = (row.cosine, row.ratio, row.worst_error, row.worst_bound, row.snr_db)
        assert not np.isnan(figures).any()
        assert row.ratio <= 1


@pytest.mark.parametrize("value", [1000.0, -np.inf, np.nan])
def test_an_overflow_that_gives_something_else(value: float) -> None:
    executable, inputs = overflowing()
    seen: list[Execution] = []
    observe(executable.session, executable.tpu_module, "main", inputs, seen.append)
    product = seen[0]
    assert compare(product).in_bound
    result = product.result.copy()
    assert np.isposinf(result[0, 1])
    result[0, 1] = value
    row = compare(replace(product, result=result))
    assert not row.in_bound
    assert row.wrong_elements == 1
    assert row.ratio == np.inf
    assert row.to_json()["ratio"] is None


def test_a_single_bit_of_an_op_that_moves_data(model: Executable) -> None:
    seen: list[Execution] = []
    inputs = language_model(model).prefill_inputs(PROMPT)
    observe(model.session, model.tpu_module, "prefill", inputs, seen.append)
    gather = next(each for each in seen if each.op.name == "tpu.Gather")
    result = gather.result.copy()
    result.reshape(-1).view(np.uint8)[2] ^= 1
    assert compare(gather).in_bound
    row = compare(replace(gather, result=result))
    assert (row.in_bound, row.wrong_elements, row.worst_bound) == (False, 1, 0.0)


def test_the_module_of_another_program(model: Executable) -> None:
    other = executable_of({**TINY_CHATGLM, "num_layers": 2}, CompileOptions("f16"), SEQ)
    inputs = language_model(model).prefill_inputs(PROMPT)
    with pytest.raises(InternalError, match="launches for"):
        compare_function(model.session, other.tpu_module, "prefill", inputs)


def test_wrong_inputs_are_the_users(model: Executable) -> None:
    module: ModuleOp = model.tpu_module
    with pytest.raises(OptionError, match="takes the inputs"):
        compare_function(model.session, module, "prefill", {})
    with pytest.raises(OptionError, match="has no function"):
        compare_function(model.session, module, "train", {})


def test_an_output_that_is_not_where_it_belongs() -> None:
    executable, inputs = overflowing()

    def change(program: Program) -> Program:
        (function,) = program.functions
        *others, last = function.launches
        spare = others[0].addresses[-1]
        moved = replace(last, addresses=(last.addresses[0], spare))
        return replace(program, functions=(replace(function, launches=(*others, moved)),))

    session = with_program(executable, change)
    with pytest.raises(InternalError, match="is not what its ops have computed"):
        compare_function(session, executable.tpu_module, "main", inputs)


def test_metrics() -> None:
    x = np.array([3.0, 4.0])
    assert metrics(x, x) == (pytest.approx(1.0), np.inf)
    cosine, snr = metrics(np.array([3.0, 4.5]), x)
    assert snr == pytest.approx(20.0)
    assert cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    assert metrics(np.array([1.0, 0.0]), np.zeros(2)) == (0.0, -np.inf)
    assert metrics(np.zeros(2), np.zeros(2)) == (1.0, np.inf)
    assert metrics(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])) == (1.0, np.inf)
