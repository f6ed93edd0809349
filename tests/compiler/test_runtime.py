"""Sessions: what is refused, what is copied, what stays between calls; executables in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_CHATGLM, executable_of, language_model

from tilewright.backends.program import Launch
from tilewright.compiler import dsl
from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.runtime import Session, lowest
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import FitError, ModelReadError, OptionError, SimulationError

Array = npt.NDArray[Any]

ROWS, SIZE = 6, 40
SEQ = 20
PROMPT = [5, 3, 99, 17]


class Block(dsl.Module):
    """A linear layer, a cache, and a second function that reads it."""

    def __init__(self) -> None:
        self.proj = dsl.Linear(SIZE, SIZE)
        self.cache = dsl.State(ROWS, SIZE)

    def write(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
        return dsl.cache_update(self.cache, self.proj(x), positions) * 1.0

    def read(self, y: dsl.Operand) -> dsl.Tensor:
        return y + self.cache


def block_weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {"proj.weight": (rng.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype(np.float32)}


def block(quant: str = "f32", weights: dict[str, Array] | None = None) -> Executable:
    one = Block()
    write = dsl.function(x=dsl.f32(2, SIZE), positions=dsl.i32(2))(one.write)
    read = dsl.function(y=dsl.f32(ROWS, SIZE))(one.read)
    module = dsl.trace(write, read)
    return compile_module(
        module, block_weights() if weights is None else weights, CompileOptions(quant)
    )


def write_inputs(*positions: int) -> dict[str, Array]:
    x = np.random.default_rng(positions[0]).standard_normal((2, SIZE)).astype(np.float32)
    return {"x": x, "positions": np.array(positions, np.int32)}


# States.


def test_states_live_as_long_as_the_session() -> None:
    executable = block()
    session = executable.session
    session.fill_states(0)
    expected = np.zeros((ROWS, SIZE), np.float32)
    weight = block_weights()["proj.weight"]
    for positions in ((0, 1), (4, 2), (1, 5)):
        inputs = write_inputs(*positions)
        session.run("write", inputs)
        expected[list(positions)] = inputs["x"] @ weight.T
        (seen,) = executable.run("read", y=np.zeros((ROWS, SIZE), np.float32))
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5)
        state = session.state("cache").view(np.float32).reshape(ROWS, SIZE)
        assert state.tobytes() == seen.tobytes()
    session.fill_states(0)
    assert not executable.run("read", y=np.zeros((ROWS, SIZE), np.float32))[0].any()


def test_states_start_as_poison_and_sessions_share_none() -> None:
    executable = block()
    nothing = np.zeros((ROWS, SIZE), np.float32)
    assert np.isnan(executable.run("read", y=nothing)[0]).all()
    executable.session.fill_states(0)
    other = Session(executable.program, executable.chip, executable.weights.__getitem__)
    assert np.isnan(other.run("read", {"y": nothing})["output_0"]).all()
    assert np.isfinite(executable.run("read", y=nothing)[0]).all()


def test_an_unknown_state() -> None:
    with pytest.raises(OptionError, match="has no state 'k'") as caught:
        block().session.state("k")
    assert caught.value.hint == "it has cache"


# Inputs and outputs.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "write takes the inputs x, positions"),
        ({"z": np.zeros(1)}, "write takes the inputs x, positions"),
        ({"x": np.zeros((2, SIZE + 1))}, rf"x of write has shape \[2, {SIZE}\], not \[2, 41\]"),
        ({"x": np.zeros(2 * SIZE)}, r"x of write has shape"),
        ({"x": np.full((2, SIZE), "a")}, r"x of write holds f32, not"),
        ({"x": np.zeros((2, SIZE), complex)}, "x of write holds f32, not complex128"),
        ({"positions": np.zeros(2)}, "positions of write holds i32, not float64"),
        ({"positions": np.array([0, 1 << 40])}, "out of the range of i32"),
        ({"x": np.full((2, SIZE), 1e39)}, "out of the range of f32"),
    ],
)
def test_wrong_inputs(change: dict[str, Any], message: str) -> None:
    inputs = {**write_inputs(0, 1), **change}
    with pytest.raises(OptionError, match=message):
        block().session.run("write", {k: v for k, v in inputs.items() if v is not None})


def test_a_refused_call_leaves_the_session_as_it_was() -> None:
    executable = block()
    executable.session.fill_states(0)
    with pytest.raises(OptionError):
        executable.session.run("write", {**write_inputs(0, 1), "positions": np.zeros(3, np.int32)})
    assert not executable.session.state("cache").any()
    executable.session.run("write", write_inputs(0, 1))
    assert executable.session.state("cache").any()


def test_inputs_of_other_types_are_converted() -> None:
    executable = block()
    executable.session.fill_states(0)
    x = np.round(np.random.default_rng(1).standard_normal((2, SIZE)) * 8) / 8
    results = [
        executable.run("write", x=x.astype(kind), positions=np.array([0, 3], places))[0]
        for kind, places in (("f8", "i8"), ("f4", "i4"), ("f2", "u1"), (ml_dtypes.bfloat16, "i2"))
    ]
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    assert np.isfinite(results[0]).all()


def test_infinities_are_inputs_like_others() -> None:
    executable = block("f16")
    executable.session.fill_states(0)
    y = np.zeros((ROWS, SIZE))
    y[1, 2], y[2, 3] = np.inf, np.nan
    (result,) = executable.run("read", y=y)
    assert np.isposinf(result[1, 2])
    assert np.isnan(result[2, 3])
    assert np.isfinite(result[0]).all()


def test_outputs_are_copies_and_inputs_are_left_alone() -> None:
    executable = block()
    executable.session.fill_states(0)
    y = np.ones((ROWS, SIZE), np.float32)
    (first,) = executable.run("read", y=y)
    (second,) = executable.run("read", y=2 * y)
    assert (first == 1).all()
    assert (second == 2).all()
    assert (y == 1).all()


def test_weights_are_mapped_and_not_written() -> None:
    executable = block()
    executable.session.fill_states(0)
    before = {name: array.copy() for name, array in executable.weights.items()}
    for array in executable.weights.values():
        array.flags.writeable = False
    session = Session(executable.program, executable.chip, executable.weights.__getitem__)
    session.fill_states(0)
    session.run("write", write_inputs(0, 1))
    for name, array in executable.weights.items():
        assert array.tobytes() == before[name].tobytes()


def test_a_write_to_a_weight_is_an_error() -> None:
    executable = block()
    (buffer,) = [b for b in executable.program.buffers if b.kind == "weight"]
    functions = list(executable.program.functions)
    first = functions[0].launches[0]
    moved = Launch(first.kernel, (*first.addresses[:-1], buffer.address), first.name)
    functions[0] = replace(functions[0], launches=(moved, *functions[0].launches[1:]))
    program = replace(executable.program, functions=tuple(functions))
    session = Session(program, executable.chip, executable.weights.__getitem__)
    with pytest.raises(SimulationError, match="write to read-only global memory") as caught:
        session.run("write", write_inputs(0, 1))
    assert caught.value.where is not None
    assert first.name in caught.value.where


def test_an_index_out_of_range_names_the_op() -> None:
    executable = block()
    executable.session.fill_states(0)
    with pytest.raises(SimulationError, match=f"index 1 is {ROWS}, the table has {ROWS} rows"):
        executable.run("write", **write_inputs(0, ROWS))


def test_an_unknown_function() -> None:
    with pytest.raises(OptionError, match="no function 'train'") as caught:
        block().session.function("train")
    assert caught.value.hint == "it has read, write"


def test_around_sees_every_launch_in_order() -> None:
    executable = block()
    executable.session.fill_states(0)
    launches = executable.session.function("write").launches
    seen: list[tuple[int, Launch]] = []

    def around(index: int, launch: Launch, execute: Any) -> None:
        seen.append((index, launch))
        execute()

    around_result = executable.session.run("write", write_inputs(0, 1), around=around)
    assert seen == list(enumerate(launches))
    plain = executable.session.run("write", write_inputs(0, 1))
    assert {k: v.tobytes() for k, v in plain.items()} == {
        k: v.tobytes() for k, v in around_result.items()
    }


# Executables.


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "weight 'proj.weight' is missing"),
        ({"proj.weight": np.zeros((SIZE, 3), np.float32)}, r"has shape \[40, 3\], not \[40, 40\]"),
        ({"proj.weight": np.zeros((SIZE, SIZE), np.int32)}, "is int32, not f32, f16 or bf16"),
        ({"proj.weight": np.full((SIZE, SIZE), np.nan, np.float32)}, "holds nan"),
    ],
)
@pytest.mark.parametrize("quant", ["f16", "w8a16"])
def test_wrong_weights(weights: dict[str, Array], message: str, quant: str) -> None:
    with pytest.raises(ModelReadError, match=message):
        block(quant, weights)


@pytest.mark.parametrize("kind", ["f4", "f2", ml_dtypes.bfloat16])
def test_weights_of_any_float_type(kind: Any) -> None:
    values = np.round(block_weights()["proj.weight"] * 64) / 64
    reference = block("f16", {"proj.weight": values})
    executable = block("f16", {"proj.weight": values.astype(kind)})
    for name, array in executable.weights.items():
        assert array.tobytes() == reference.weights[name].tobytes()


@pytest.mark.parametrize(("quant", "error"), [("f32", 1e-5), ("f16", 4e-3), ("w8a16", 3e-2)])
def test_a_weight_that_is_stored_transposed(quant: str, error: float) -> None:
    class Turned(dsl.Module):
        def __init__(self) -> None:
            self.weight = dsl.Parameter(SIZE, 24)

        def main(self, x: dsl.Operand) -> dsl.Tensor:
            return dsl.matmul(x, self.weight) * 1.0

    rng = np.random.default_rng(3)
    weight = (rng.standard_normal((SIZE, 24)) / SIZE**0.5).astype(np.float32)
    x = rng.standard_normal((5, SIZE)).astype(np.float32)
    module = dsl.trace(dsl.function(x=dsl.f32(5, SIZE))(Turned().main))
    executable = compile_module(module, {"weight": weight}, CompileOptions(quant))
    (y,) = executable.run("main", x=x)
    np.testing.assert_allclose(y.astype(np.float32), x @ weight, atol=error)
    with pytest.raises(ModelReadError, match=r"has shape \[24, 40\], not \[40, 24\]"):
        compile_module(module, {"weight": weight.T.copy()}, CompileOptions(quant))


def test_times_are_those_of_the_program() -> None:
    times = block().times()
    assert set(times) == {"write", "read"}
    assert all(time.cycles > 0 for time in times.values())


def test_a_model_that_is_too_large() -> None:
    class Large(dsl.Module):
        def __init__(self) -> None:
            self.layers = [dsl.Linear(65536, 65536) for _ in range(3)]

        def main(self, x: dsl.Operand) -> dsl.Operand:
            for layer in self.layers:
                x = layer(x)
            return x

    module = dsl.trace(dsl.function(x=dsl.f32(1, 65536))(Large().main))
    with pytest.raises(FitError, match="bytes too many"):
        compile_module(module, {}, CompileOptions("f16"))


# Language models.


@pytest.fixture(scope="module")
def model() -> Executable:
    return executable_of(TINY_CHATGLM, CompileOptions("f16"), SEQ)


@pytest.mark.parametrize(
    ("prompt", "count", "message"),
    [
        ([], 1, "the prompt has no tokens"),
        ([1, 200], 1, "token id 200 is out of range"),
        ([1, -1], 1, "token id -1 is out of range"),
        ([1], 0, "--max-new-tokens is 0"),
        ([1] * (SEQ + 1), 1, f"{SEQ + 1} positions of {SEQ}"),
        ([1] * SEQ, 2, f"{SEQ + 1} positions of {SEQ}"),
    ],
)
def test_wrong_prompts(model: Executable, prompt: list[int], count: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        language_model(model).generate(prompt, count)


def test_generation_fills_the_sequence_to_the_last_position(model: Executable) -> None:
    seen: list[int] = []
    result = language_model(model).generate(PROMPT, SEQ - len(PROMPT) + 1, on_token=seen.append)
    assert len(result.token_ids) == SEQ - len(PROMPT) + 1
    assert result.decode_steps == len(result.token_ids) - 1
    assert seen == list(result.token_ids)


def test_generation_stops_at_a_stop_id(model: Executable) -> None:
    tokens = language_model(model).generate(PROMPT, 6).token_ids
    stop = tokens[2]
    result = language_model(model).generate(PROMPT, 6, stop_ids=[stop])
    assert result.token_ids == tokens[: tokens.index(stop) + 1]


def test_what_lies_behind_the_prompt_does_not_matter(model: Executable) -> None:
    """Padding is masked, and what a longer prompt has left in the cache."""
    one = language_model(model)
    first = one.prefill(PROMPT)
    one.prefill([7] * SEQ)
    assert one.prefill(PROMPT).tobytes() == first.tobytes()
    inputs = one.prefill_inputs(PROMPT)
    inputs["input_ids"][len(PROMPT) :] = 123
    (padded,) = model.session.run("prefill", inputs).values()
    assert padded[0].tobytes() == first.tobytes()


def test_decode_agrees_with_prefill_of_the_longer_prompt(model: Executable) -> None:
    one = language_model(model)
    one.prefill(PROMPT)
    decoded = one.decode(42, len(PROMPT))
    prefilled = one.prefill([*PROMPT, 42])
    assert np.corrcoef(decoded, prefilled)[0, 1] > 0.99999


@pytest.mark.parametrize(("element", "value"), [(F16, -65504.0), (F32, -3.4028234663852886e38)])
def test_the_lowest_value(element: Any, value: float) -> None:
    assert lowest(element) == value
    assert np.isfinite(np.array(lowest(BF16), BF16.dtype).astype(float))
