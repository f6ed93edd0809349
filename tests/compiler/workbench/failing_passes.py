"""Passes that fail in every way there is, in the registry under names of their own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from tilewright.dialects import top
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph.base import float_attr
from tilewright.passes import actions, registry


def _visit(op: Operation) -> None:
    raise KeyError(op.name)


@dataclass(frozen=True)
class _Stepwise(ModulePass):
    """One step for each op; at a `top.Sub` of equal types goes wrong what `kind` says."""

    name = "stepwise"
    kind: str = "crash"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for inner in [each for each in op.walk() if isinstance(each, top.TopOp)]:
            if actions.begin("Touch", inner):
                self._touch(inner)
                actions.end((inner,))

    def _touch(self, op: Operation) -> None:
        if not isinstance(op, top.SubOp) or op.a.type != op.b.type:
            return
        if self.kind == "crash":
            _visit(op)
        if self.kind == "refuse":
            raise UnsupportedError("this pass has no Sub")
        if self.kind == "break":
            op.operands[1] = op.results[0]
        if self.kind == "miscompile":
            op.operands[0], op.operands[1] = op.operands[1], op.operands[0]


@dataclass(frozen=True)
class _Silent(ModulePass):
    """Changes constants to `value`, and does not say its steps."""

    name = "silent"
    value: float = 0.75

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for inner in op.walk():
            if isinstance(inner, top.MulConstOp):
                inner.properties["value"] = float_attr(self.value)


@contextmanager
def registered() -> Generator[None]:
    """`stepwise` and `silent` are passes while the block runs."""
    passes = {**registry.PASSES, "stepwise": lambda: _Stepwise, "silent": lambda: _Silent}
    with (
        patch.object(registry, "PASSES", passes),
        patch("tilewright.compiler.workbench.pipelines.PASSES", passes),
    ):
        yield
