"""Composite ops without a kernel become their parts; the numbers stay within the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr
from xdsl.ir import Block, Operation, Region, SSAValue

from tilewright.backends.reference import bounds, float64, typed
from tilewright.dialects import tpu
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, tensor_type
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import composite
from tilewright.passes import actions
from tilewright.passes.decompose_composites import DecomposeCompositesPass

SHAPE = (16, 30)


@composite("test.Inner", tpu.TpuOp)
def inner(gate: Value, up: Value) -> Value:
    return tpu.SwiGLUOp(gate, up).results[0]


@composite("test.Outer", tpu.TpuOp)
def outer(gate: Value, up: Value) -> Value:
    return tpu.NegOp(inner(gate, up).results[0]).result


def module_of() -> ModuleOp:
    block = Block(arg_types=[tensor_type(SHAPE, F16)] * 2)
    op = outer(*block.args)
    op.location = FileLineColLoc(StringAttr("model.py"), IntAttr(7), IntAttr(1))
    op.results[0].name_hint = "y"
    block.add_ops([op, func.ReturnOp(op.results[0])])
    types = ([each.type for each in block.args], [op.results[0].type])
    return ModuleOp([func.FuncOp("f", types, Region(block))])


def body(module: ModuleOp) -> list[Operation]:
    (function,) = module.ops
    assert isinstance(function, func.FuncOp)
    return list(function.body.block.ops)[:-1]


@pytest.mark.parametrize(
    ("every", "wanted"),
    [
        (False, ["tpu.SwiGLU", "tpu.Neg"]),
        (True, ["tpu.Cast", "tpu.SiLU", "tpu.Cast", "tpu.Mul", "tpu.Cast", "tpu.Neg"]),
    ],
)
def test_parts_are_decomposed_in_their_turn(every: bool, wanted: list[str]) -> None:
    module = module_of()
    DecomposeCompositesPass(all=every).apply(make_context(), module)
    module.verify()
    ops = body(module)
    assert [op.name for op in ops] == wanted
    assert all(isinstance(op.location, FileLineColLoc) for op in ops)
    assert ops[-1].results[0].name_hint == "y"


def test_numbers_stay() -> None:
    module = module_of()
    (before,) = body(module)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(SHAPE).astype(np.float16) for _ in range(2)]
    (exact,) = float64.evaluate(before, inputs)
    limit = bounds.bound(before, inputs, exact)
    DecomposeCompositesPass(all=True).apply(make_context(), module)
    for semantics, allowed in ((float64, 1e-12), (typed, limit)):
        ops = body(module)
        block = ops[0].parent_block()
        assert block is not None
        values: dict[SSAValue, Any] = dict(zip(block.args, inputs, strict=True))
        for op in ops:
            results = semantics.evaluate(op, [values[each] for each in op.operands])
            values.update(zip(op.results, results, strict=True))
        assert (np.abs(values[ops[-1].results[0]] - exact) <= allowed).all()


def test_each_is_a_step_that_can_be_held_back() -> None:
    class Two(actions.Watcher):
        seen: list[str] = []

        def begin(self, pattern: str, op: Operation) -> bool:
            self.seen.append(f"{pattern} {op.name}")
            return len(self.seen) < 2

    module = module_of()
    with actions.watching(Two()):
        DecomposeCompositesPass().apply(make_context(), module)
    module.verify()
    assert Two.seen == ["DecomposeComposite test.Outer", "DecomposeComposite test.Inner"]
    assert [op.name for op in body(module)] == ["test.Inner", "tpu.Neg"]
