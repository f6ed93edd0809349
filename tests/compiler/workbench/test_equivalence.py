"""The check passes what is right, and finds what is wrong at the pass that did it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.workbench.building import Builder, finished
from tests.compiler.workbench.models import language_model, mixture
from tests.compiler.workbench.mutations import KERNELS, MUTATIONS, mutated
from tests.compiler.workbench.spelled_out import spelled_out
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from threadpoolctl import threadpool_info
from tilewright.backends.reference.balls import Ball
from tilewright.compiler.workbench import baseline, kernel_checks
from tilewright.compiler.workbench.bisect import find_failure
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.compiler.workbench.equivalence import CheckOptions, EquivalenceCheck, cases_of
from tilewright.compiler.workbench.evaluation import Outcome, first_difference
from tilewright.compiler.workbench.inputs import CASES, GeneratedInputs
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects import top
from tilewright.dialects.element_types import F32, tensor_type
from tilewright.dialects.errors import MiscompileError, OptionError
from tilewright.dialects.graph.base import float_attr
from tilewright.dialects.scopes import functions_of
from tilewright.passes.lowerings.conversion import is_returned
from tilewright.passes.specialize_weights import specialize_weights

Array = npt.NDArray[Any]
Make = Callable[[], ModuleOp]


@pytest.mark.parametrize("quant", ["w8a16", "f16", "bf16", "f32"])
@pytest.mark.parametrize("make", [language_model, mixture])
def test_the_compiler_computes_what_it_is_given(make: Make, quant: str) -> None:
    passes = passes_from_text(f"compile{{quant={quant}}}")
    assert find_failure(make(), passes) is None


def test_all_cases_of_inputs() -> None:
    assert find_failure(mixture(), passes_from_text(KERNELS), CheckOptions(3, CASES)) is None


# Passes of a user's own


@dataclass(frozen=True)
class _Own(ModulePass):
    """Calls a function on the module."""

    name = "own"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        _CHANGE[0](op)


_CHANGE: list[Callable[[ModuleOp], object]] = []


def failure_after(change: Callable[[ModuleOp], object], module: ModuleOp) -> str:
    """What the check says of a pass that does `change`."""
    _CHANGE[:] = [change]
    failure = find_failure(module, [_Own()])
    return "" if failure is None else failure.message


def test_a_pass_that_changes_only_names_is_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    evaluate = baseline.evaluate

    def counted(module: ModuleOp, name: str, inputs: GeneratedInputs, **options: Any) -> Outcome:
        runs.append(name)
        return evaluate(module, name, inputs, **options)

    monkeypatch.setattr(baseline, "evaluate", counted)
    assert failure_after(lambda module: None, mixture()) == ""
    assert runs == ["main"]


def test_a_pass_that_turns_layers_round() -> None:
    """Found though chains are cut to their first call."""

    def turn(module: ModuleOp) -> None:
        for op in module.walk():
            if isinstance(op, top.CallOp):
                op.scopes = type(op.scopes)(reversed(op.scopes.data))

    assert "changes what @prefill computes" in failure_after(turn, language_model())


def test_a_pass_that_splits_chains_is_right() -> None:
    key = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"

    def split(module: ModuleOp) -> None:
        specialize_weights(module, {key: {"top.scale": "f32"}})
        assert len([op for op in module.walk() if isinstance(op, top.CallOp)]) > 2

    assert failure_after(split, language_model()) == ""


def test_a_mistake_behind_many_layers_is_found_though_radii_have_grown() -> None:
    """A pass that splits chains has all layers run; then it scales the logits by 1.001."""
    module = language_model()
    call = next(op for op in module.walk() if isinstance(op, top.CallOp))
    call.scopes = type(call.scopes)([StringAttr(f"layers.{i}.") for i in range(6)])

    def split(module: ModuleOp) -> None:
        call = next(op for op in module.walk() if isinstance(op, top.CallOp))
        first = call.clone()
        Rewriter.insert_op(first, InsertPoint.before(call))
        first.scopes = type(call.scopes)(call.scopes.data[:2])
        call.scopes = type(call.scopes)(call.scopes.data[2:])
        count = len(call.outputs)
        call.operands = [*first.results, *call.operands[count:]]

    def wrong(module: ModuleOp) -> None:
        split(module)
        head = next(
            op for op in module.walk() if isinstance(op, top.MatMulOp) and is_returned(op.result)
        )
        scaled = top.MulConstOp(head.result, 1.001)
        Rewriter.insert_op(scaled, InsertPoint.after(head))
        head.result.replace_uses_with_if(
            scaled.result, lambda use: not isinstance(use.operation, top.MulConstOp)
        )

    assert failure_after(split, module) == ""
    assert "changes what @prefill computes" in failure_after(wrong, module)


def test_a_pass_that_drops_a_function() -> None:
    def drop(module: ModuleOp) -> None:
        functions_of(module)["decode"].detach()

    message = failure_after(drop, language_model())
    assert "changes which functions there are" in message
    assert "@decode" in message


def test_a_pass_that_reads_another_weight() -> None:
    def swap(module: ModuleOp) -> None:
        for op in module.walk():
            if isinstance(op, top.WeightOp) and op.key.data == "first.up":
                op.key = StringAttr("second.up")

    assert "changes what @main computes on random inputs" in failure_after(swap, mixture())


def test_a_pass_that_changes_the_fifteenth_digit_is_right_and_the_tenth_wrong() -> None:
    def scale(factor: float) -> Callable[[ModuleOp], None]:
        def change(module: ModuleOp) -> None:
            for op in module.walk():
                if isinstance(op, top.MulConstOp):
                    op.properties["value"] = float_attr(op.value.value.data * factor)

        return change

    assert failure_after(scale(1 + 2.0**-23), mixture()) != ""
    assert failure_after(scale(1 + 2.0**-40), mixture()) == ""


def test_cases_by_name() -> None:
    assert cases_of(("zeros", "large")) == ("zeros", "large")
    for names in (("huge",), ()):
        with pytest.raises(OptionError, match="unknown case"):
            cases_of(names)


def test_only_the_chosen_pass_is_checked() -> None:
    mutation = next(m for m in MUTATIONS if m.pass_name == "double-buffer")
    passes = passes_from_text(KERNELS)
    numbers = {each.name: number for number, each in enumerate(passes, start=1)}
    with mutated(mutation):
        run_pipeline(language_model(), passes, [EquivalenceCheck(only=frozenset({1}))])
        only = frozenset({numbers["double-buffer"]})
        with pytest.raises(MiscompileError):
            run_pipeline(language_model(), passes, [EquivalenceCheck(only=only)])


@pytest.mark.parametrize("pipeline", ["inline-calls", "inline-calls,simplify"])
def test_weights_are_exact_in_int8_behind_a_transpose(pipeline: str) -> None:
    """Their channels are the rows of the weight as it is stored, which a product reads turned."""
    passes = passes_from_text(f"{pipeline},convert-top-to-tpu{{quant=w8a16}}")
    assert find_failure(spelled_out(), passes) is None


def test_what_cannot_be_judged_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands whose bounds are all infinite are not passed over in silence."""
    check = EquivalenceCheck()
    run_pipeline(mixture(), passes_from_text(KERNELS), [check])
    assert check.unchecked == []

    def nothing_known(ball: Ball, element: object) -> Array:
        del element
        return np.full(ball.value.shape, np.inf)

    monkeypatch.setattr(kernel_checks, "_radius", nothing_known)
    run_pipeline(mixture(), passes_from_text(KERNELS), [check])
    kernels = {each.partition(" of ")[2] for each in check.unchecked}
    assert any("tpu.Softmax" in each for each in kernels)
    check.finish()
    assert "not checked after pass emit-commands: argument" in capsys.readouterr().err


def test_values_that_are_not_finite_are_judged_all_the_same() -> None:
    """On the graph no radius is too large: what differs by a millionth of the rest is found."""
    unknown = np.full(3, np.inf)
    one, other = (Ball(np.array([1.0, 2.0, x]), unknown) for x in (3.0, 3.001))
    assert first_difference(Outcome((one,), {}), Outcome((one,), {})) is None
    found = first_difference(Outcome((one,), {}), Outcome((other,), {}))
    assert found is not None
    assert found.index == (2,)


@pytest.mark.parametrize(("rows", "threads"), [(12, "one"), (1 << 14, "all")])
def test_threads_of_products(rows: int, threads: str) -> None:
    """One for products of a small model; those of a large one keep theirs."""
    block = Block(arg_types=[tensor_type((rows, 128), F32), tensor_type((128, 128), F32)])
    main = finished("main", block, [Builder(block)(top.MatMulOp(*block.args))])
    before = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    with threads_for(ModuleOp([main])):
        inside = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    assert inside == ([1] * len(before) if threads == "one" else before)
