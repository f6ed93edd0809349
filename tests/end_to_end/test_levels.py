"""One model at every level: float64 on `top`, the typed reference on `tpu`, records on the machine.

Op by op, the machine is given what the typed reference gets. What only moves data, and what is one
correctly rounded operation, is equal to the bit; everything else is within the derived bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import (
    TINY_CHATGLM,
    TINY_LLAMA,
    executable_of,
    language_model,
    model_of,
    random_weights,
)
from xdsl.ir import Operation

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.bounds import bound, outside
from tilewright.backends.reference.executor import SemanticsName, run_function
from tilewright.compiler.compare import Execution, observe
from tilewright.compiler.executable import Executable
from tilewright.compiler.memory_plan import weight_name_of
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects import graph, tpu
from tilewright.dialects.graph import shape_of, storage_of

Array = npt.NDArray[Any]

SEQ = 20
PROMPT = [5, 3, 99, 17, 3]
NEXT = 42
MODELS = {"chatglm": TINY_CHATGLM, "llama": TINY_LLAMA}

OPTIONS = {
    "f32": CompileOptions("f32"),
    "f16": CompileOptions("f16"),
    "bf16": CompileOptions("bf16"),
    "w8a16": CompileOptions("w8a16"),
    "w8a16-all": CompileOptions("w8a16", "bf16", quant_head=True, quant_embedding=True),
}
LOSS = {"f32": 1e-11, "f16": 5e-6, "bf16": 3e-4, "w8a16": 1e-3, "w8a16-all": 1e-3}
"""Greatest 1 - cosine of the logits with float64: what rounding to storage types and codes costs
(the loss goes with the square of the error: bf16 loses 64 times what f16 does)."""
LOSS_TO_REFERENCE = {"f32": 1e-11, "f16": 2e-6, "bf16": 1e-4, "w8a16": 2e-6, "w8a16-all": 1e-4}
"""With the typed reference, whose codes are the same. Sums are in another order, and attention of
one token rounds its probabilities before it divides them: one rounding elsewhere, which costs less
than rounding itself."""

EQUAL = (
    graph.Gather,
    tpu.W8A16GatherOp,
    graph.CacheUpdate,
    graph.Reshape,
    graph.Permute,
    graph.Slice,
    graph.Concat,
    graph.Cast,
    tpu.AddOp,
    tpu.SubOp,
    tpu.MulOp,
    tpu.MaxOp,
    tpu.MinOp,
    graph.ConstGraphOp,
)


@dataclass(frozen=True)
class Run:
    """A model after prefill and one step of decode, with everything that its ops had and made."""

    executable: Executable
    executions: list[Execution]
    prefill_states: dict[str, Array]
    prefill: dict[str, Array]
    decode: dict[str, Array]


@pytest.fixture(
    scope="module",
    params=[(model, quant) for model in MODELS for quant in OPTIONS],
    ids=lambda param: "-".join(param),
)
def case(request: pytest.FixtureRequest) -> tuple[str, str, Run]:
    name, quant = request.param
    executable = executable_of(MODELS[name], OPTIONS[quant], SEQ)
    session, model = executable.session, language_model(executable)
    executions: list[Execution] = []

    def keep(execution: Execution) -> None:
        copies = tuple([array.copy() for array in execution.operands])
        executions.append(
            Execution(execution.function, execution.scope, execution.op, copies, execution.result)
        )

    module = executable.tpu_module
    prefill = observe(session, module, "prefill", model.prefill_inputs(PROMPT), keep)
    states = {b.name: session.state(b.name).copy() for b in session.program.buffers if is_state(b)}
    decode = observe(session, module, "decode", model.decode_inputs(NEXT, len(PROMPT)), keep)
    return name, quant, Run(executable, executions, states, prefill, decode)


def is_state(buffer: Any) -> bool:
    return buffer.kind == "state"


def test_each_op_agrees_with_the_typed_reference(case: tuple[str, str, Run]) -> None:
    _, _, run = case
    equal = 0
    for each in run.executions:
        (reference,) = typed.evaluate(each.op, each.operands)
        where = f"{each.function} {each.name} {each.op.name}"
        assert reference.dtype == each.result.dtype, where
        assert reference.shape == each.result.shape, where
        if isinstance(each.op, EQUAL):
            equal += 1
            assert reference.tobytes() == each.result.tobytes(), where
            continue
        (exact,) = float64.evaluate(each.op, each.operands)
        limit = bound(each.op, each.operands, exact)
        assert limit is not None, where
        for level in (each.result, reference):
            assert not outside(level, exact, limit).any(), where
    assert 0 < equal < len(run.executions)


def test_states_are_what_the_last_update_has_made(case: tuple[str, str, Run]) -> None:
    _, _, run = case
    updates = [
        each
        for each in run.executions
        if isinstance(each.op, graph.CacheUpdate) and each.function == "prefill"
    ]
    assert len(run.prefill_states) == len(updates) > 0
    made = sorted(each.result.tobytes() for each in updates)
    assert sorted(state.tobytes() for state in run.prefill_states.values()) == made


def weights_of(executable: Executable, key: str, op: Operation) -> Array:
    """What a `tpu.Weight` with the resolved `key` reads."""
    assert isinstance(op, tpu.WeightOp)
    scope = key.removesuffix(op.key.data)
    return executable.weights[scope + weight_name_of(op)].reshape(shape_of(op.result))


def inputs_of(run: Run, function: str, semantics: SemanticsName) -> list[Array]:
    session = run.executable.session
    model = language_model(run.executable)
    named = (
        model.prefill_inputs(PROMPT)
        if function == "prefill"
        else model.decode_inputs(NEXT, len(PROMPT))
    )
    ports = session.function(function).inputs
    if semantics == "typed":
        return [named[port.name].astype(port.element.dtype) for port in ports]
    return [
        named[port.name].astype(np.float64 if port.element.is_float else "i4") for port in ports
    ]


def cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def logits_of(outputs: dict[str, Array]) -> Array:
    (logits,) = outputs.values()
    return logits


def test_the_typed_reference_end_to_end(case: tuple[str, str, Run]) -> None:
    """Whole functions, states included, each level on its own results."""
    _, quant, run = case
    executable, states = run.executable, dict[str, Array]()

    def reference(function: str) -> Array:
        return run_function(
            executable.tpu_module,
            function,
            inputs_of(run, function, "typed"),
            weights=lambda key, op: weights_of(executable, key, op),
            states=states,
        )[0]

    loss = LOSS_TO_REFERENCE[quant]
    assert 1 - cosine(reference("prefill"), logits_of(run.prefill)) < loss
    assert sorted(states) == sorted(run.prefill_states)
    for key, state in states.items():
        held = run.prefill_states[key].view(state.dtype).reshape(state.shape)
        assert 1 - cosine(held, state) < loss, key
    assert 1 - cosine(reference("decode"), logits_of(run.decode)) < loss


def test_float64_on_the_top_module(case: tuple[str, str, Run]) -> None:
    name, quant, run = case
    model = model_of(MODELS[name], SEQ)
    module, weights = model.trace(), random_weights(model)
    states: dict[str, Array] = {}

    def exact(function: str) -> Array:
        return run_function(
            module,
            function,
            inputs_of(run, function, "float64"),
            weights=lambda key, _: weights[key],
            states=states,
            semantics="float64",
        )[0]

    assert 1 - cosine(exact("prefill"), logits_of(run.prefill)) < LOSS[quant]
    assert 1 - cosine(exact("decode"), logits_of(run.decode)) < LOSS[quant]


def test_storage_types(case: tuple[str, str, Run]) -> None:
    """Activations are of the compute type, RoPE tables and logits f32."""
    _, quant, run = case
    compute = {"f32": "f32", "f16": "f16", "w8a16": "f16"}.get(quant, "bf16")
    for each in run.executions:
        if isinstance(each.op, graph.RMSNorm | graph.Attention | graph.CacheUpdate):
            assert storage_of(each.op.results[0]).name == compute
        if isinstance(each.op, graph.Rope):
            assert storage_of(each.op.operands[1]).name == "f32"
    assert logits_of(run.prefill).dtype == np.float32
