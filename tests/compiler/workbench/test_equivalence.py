"""The check passes what is right, and finds what is wrong at the pass that did it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.compiler.workbench.models import language_model, mixture
from tests.compiler.workbench.mutations import KERNELS, MUTATIONS, mutated
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from tilewright.compiler.workbench import baseline
from tilewright.compiler.workbench.bisect import find_failure
from tilewright.compiler.workbench.equivalence import CheckOptions, EquivalenceCheck, cases_of
from tilewright.compiler.workbench.evaluation import Outcome
from tilewright.compiler.workbench.inputs import CASES, GeneratedInputs
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects import top
from tilewright.dialects.errors import MiscompileError, OptionError
from tilewright.dialects.graph.base import float_attr
from tilewright.dialects.scopes import functions_of
from tilewright.passes.lowerings.conversion import is_returned
from tilewright.passes.specialize_scales import specialize_scales

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
        specialize_scales(module, frozenset({key}))
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
