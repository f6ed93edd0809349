"""Modules of 40 to 100 ops to plant mistakes into: a language model, and a mixture of all kinds of
ops."""

from __future__ import annotations

from tests.compiler.small_models import TINY_CHATGLM, model_of
from tests.compiler.workbench.building import Builder, finished
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, SSAValue

from tilewright.dialects import top
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F32, I32, tensor_type
from tilewright.dialects.graph import Approximation, ReduceMode, shape_of

ROWS, WIDTH = 12, 48
SEQ = 16


def language_model() -> ModuleOp:
    """A ChatGLM2 of three layers: 81 ops, its layers called by scope."""
    return model_of(TINY_CHATGLM, SEQ).trace()


class _Builder(Builder):
    def layer(self, x: SSAValue, name: str) -> SSAValue:
        """A block of 15 ops with products, norms, element functions and broadcasts."""
        width = shape_of(x)[-1]
        h = self(
            top.LayerNormOp(
                x, self.weight(f"{name}.norm", width), self.weight(f"{name}.shift", width), eps=1e-5
            )
        )
        h = self(
            top.MatMulOp(
                h,
                self.weight(f"{name}.up", 2 * width, width),
                self.weight(f"{name}.up_bias", 2 * width),
                right_transpose=True,
            )
        )
        h = self(top.GELUOp(h, Approximation.TANH))
        h = self(top.MatMulOp(h, self.weight(f"{name}.down", 2 * width, width)))
        mean = self(top.ReduceOp(h, ReduceMode.MEAN))
        h = self(top.SubOp(h, mean))
        h = self(top.MulConstOp(h, 0.5))
        other = self(top.SwiGLUOp(self(top.SiLUOp(x)), h))
        return self(top.SubOp(h, other))


def mixture() -> ModuleOp:
    """A function with most kinds of ops: 55 of them."""
    types = [tensor_type((ROWS, WIDTH), F32), tensor_type((ROWS,), I32)]
    block = Block(arg_types=types)
    x, ids = block.args
    b = _Builder(block)
    table = b.weight("table", 40, WIDTH)
    h = b(top.AddOp(x, b(top.GatherOp(table, ids))))
    for name in ("first", "second"):
        h = b.layer(h, name)
    left = b(top.SliceOp(h, [0, 0], [ROWS, WIDTH // 2]))
    right = b(top.SliceOp(h, [0, WIDTH // 2], [ROWS, WIDTH // 2]))
    joined = b(top.ConcatOp([right, left], 1))
    heads = b(top.PermuteOp(b(top.ReshapeOp(joined, [ROWS, 4, WIDTH // 4])), [1, 0, 2]))
    scores = b(top.BatchMatMulOp(heads, heads, right_transpose=True))
    shares = b(top.SoftmaxOp(b(top.MulConstOp(scores, 0.25))))
    mixed = b(top.BatchMatMulOp(shares, heads))
    h = b(top.ReshapeOp(b(top.PermuteOp(mixed, [1, 0, 2])), [ROWS, WIDTH]))
    h = b(top.RMSNormOp(h, b.weight("last.norm", WIDTH), eps=1e-6))
    h = b(top.DivOp(h, b(top.AddConstOp(b(top.SigmoidOp(joined)), 1.0))))
    h = b(top.MaxOp(h, b(top.TanhOp(h))))
    y = b(top.MatMulOp(h, b.weight("head", 24, WIDTH), right_transpose=True))
    main = finished("main", block, [y])
    main.attributes["note"] = StringAttr("made for tests")
    module = ModuleOp([main])
    verify_module(module)
    return module
