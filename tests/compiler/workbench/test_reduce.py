"""Reduction keeps the failure, and ends small."""

from __future__ import annotations

import pytest
from tests.compiler.workbench.failing_passes import registered
from tests.compiler.workbench.models import mixture
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.reduction import Reduction, reduce_module
from tilewright.dialects import top
from tilewright.dialects.context import print_module


def reduced(pipeline: str, module: ModuleOp | None = None) -> Reduction:
    with registered():
        found = reduce_module(module or mixture(), passes_from_text(pipeline))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["crash", "refuse", "break", "miscompile"])
def test_every_kind_of_failure(kind: str) -> None:
    found = reduced(f"stepwise{{kind={kind}}},compile")
    assert found.ops_after == 1
    (op,) = [op for op in found.module.walk() if isinstance(op, top.TopOp)]
    assert isinstance(op, top.SubOp)
    assert found.elements_after == 2


def test_a_pass_that_does_not_say_its_steps() -> None:
    found = reduced("silent")
    assert found.ops_after == 1
    assert "top.MulConst" in print_module(found.module)


def test_reduction_is_deterministic() -> None:
    texts = {print_module(reduced("stepwise{kind=miscompile}").module) for _ in range(2)}
    assert len(texts) == 1


def test_the_module_given_stays_as_it_is() -> None:
    module = mixture()
    text = print_module(module)
    reduced("stepwise{kind=miscompile}", module)
    assert print_module(module) == text


def test_nothing_to_reduce() -> None:
    assert reduce_module(mixture(), passes_from_text("compile")) is None
