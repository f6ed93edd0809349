"""A mistake in any pass is found there, bisected, reduced to a few ops, and can be replayed.

benchmarks/find_miscompiles.py does the same for all mistakes, and prints how long it takes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.compiler.workbench.mutations import (
    EXEMPT,
    MODELS,
    MUTATIONS,
    ONE_FOR_EACH_PASS,
    Mutation,
    mutated,
)

from tilewright.compiler.workbench.bisect import find_failure
from tilewright.compiler.workbench.equivalence import EquivalenceCheck
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.reduction import reduce_module
from tilewright.compiler.workbench.reduction.trial import count_ops
from tilewright.compiler.workbench.replay import replay
from tilewright.compiler.workbench.reproducer import Reproducer, ReproducerWriter
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import MiscompileError
from tilewright.passes.registry import PASSES


def is_of(failure: Failure | None, mutation: Mutation) -> bool:
    """Whether a failure is the mistake that was planted."""
    return failure is not None and (failure.kind, failure.pass_name, failure.pattern) == (
        "miscompilation",
        mutation.pass_name,
        mutation.pattern,
    )


@pytest.mark.parametrize("mutation", ONE_FOR_EACH_PASS, ids=str)
def test_a_planted_mistake(mutation: Mutation, tmp_path: Path) -> None:
    module, passes = MODELS[mutation.model](), passes_from_text(mutation.pipeline)
    writer = ReproducerWriter(tmp_path)
    with mutated(mutation):
        with pytest.raises(MiscompileError) as caught:
            run_pipeline(module.clone(), passes, [EquivalenceCheck(), writer])
        assert f"pass {mutation.pass_name} " in caught.value.what
        assert f"by {mutation.pattern} (step " in (caught.value.where or "")
        assert writer.written is not None
        failure = Reproducer.read(writer.written).failure
        assert is_of(failure, mutation)
        assert replay(writer.written).reproduced
        reduced = reduce_module(module, passes, failure=failure)
        assert reduced is not None
        verify_module(reduced.module)
        assert is_of(reduced.failure, mutation)
        assert find_failure(reduced.module, passes, only=failure.pass_number) is not None
    assert count_ops(reduced.module) == reduced.ops_after <= mutation.most_ops
    assert find_failure(reduced.module, passes) is None
    assert not replay(writer.written).reproduced


def test_there_is_a_mistake_for_every_pass() -> None:
    """One that is reduced to at most five ops; but for those with tests of another kind."""
    held = [mutation.pass_name for mutation in ONE_FOR_EACH_PASS if mutation.most_ops <= 5]
    assert held == [name for name in PASSES if name not in EXEMPT]
    assert set(EXEMPT) <= set(PASSES)
    assert not {mutation.pass_name for mutation in MUTATIONS} & set(EXEMPT)
    for _, tests in EXEMPT.values():
        assert (Path(__file__).parents[3] / tests).is_file()
    assert len({str(mutation) for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_are_of_the_size_that_is_claimed(name: str) -> None:
    module = MODELS[name]()
    verify_module(module)
    assert 40 <= count_ops(module) <= 100


def test_nothing_is_found_where_nothing_is_planted() -> None:
    for model, pipeline in {(each.model, each.pipeline) for each in MUTATIONS}:
        assert find_failure(MODELS[model](), passes_from_text(pipeline)) is None


def test_passes_recognize_what_is_spelled_out() -> None:
    """The model to plant mistakes into has what every pass looks for."""
    module = MODELS["spelled out"]()
    run_pipeline(module, passes_from_text("inline-calls,simplify"))
    found = Counter(op.name.removeprefix("top.") for op in module.walk())
    fused = ("RMSNorm", "LayerNorm", "Rope", "Attention", "Softmax", "SwiGLU", "GELU")
    assert [found[name] for name in fused] == [2, 2, 1, 2, 1, 1, 1]
