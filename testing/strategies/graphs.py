"""Small models of the `top` dialect, with weights and inputs: what a compiler lowers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilewright.dialects.quantization import Scheme

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.ir import Block, Operation, SSAValue

Array = npt.NDArray[Any]

FUNCTION = "main"
"""The name of the function of a graph."""
_EPSILON = 1e-5
_KINDS = (
    "linear",
    "relu",
    "silu",
    "gelu",
    "tanh",
    "scale",
    "rms norm",
    "layer norm",
    "residual",
    "gate",
)


@dataclass(frozen=True)
class TopGraph:
    """A verified module with a function `main(x) -> y`, its weights and an input.

    `linear` are the keys of the weights of linear layers, `[N, K]` all of them.
    """

    module: ModuleOp
    weights: Mapping[str, Array]
    linear: tuple[str, ...]
    x: Array

    def __repr__(self) -> str:
        shapes = {key: list(array.shape) for key, array in self.weights.items()}
        return f"TopGraph on x{list(self.x.shape)} with weights {shapes}\n{self.module}"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """How Hypothesis prints it: without the arrays."""
        del cycle
        printer.text(repr(self))


@st.composite
def top_graphs(
    draw: st.DrawFn, scheme: Scheme | None = None, *, most_ops: int = 6, most_rows: int = 3
) -> TopGraph:
    """Chains of linear layers (with and without bias), norms, activations, gates and residuals, in
    f32, with one linear layer or more; depths are multiples of the scheme's group.

        @given(top_graphs(parse_scheme("w4a16-g16")))
        def test_my_pass(graph): ...
    """
    unit = scheme.group if scheme and scheme.group else 16
    rows, width = draw(st.integers(1, most_rows)), unit * draw(st.integers(1, 2))
    kinds = draw(st.lists(st.sampled_from(_KINDS), max_size=most_ops - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = _Building(rng, rows, width)
    made.add("linear", unit * draw(st.integers(1, 2)), biased=draw(st.booleans()))
    for kind in kinds:
        made.add(kind, unit * draw(st.integers(1, 2)), biased=draw(st.booleans()))
    return made.finished()


class _Building:
    """A graph in the making: the values of one width that residuals can go back to."""

    def __init__(self, rng: np.random.Generator, rows: int, width: int) -> None:
        from xdsl.ir import Block

        from tilewright.dialects.element_types import F32, tensor_type

        self.rng, self.rows = rng, rows
        self.x = rng.standard_normal((rows, width)).astype(np.float16).astype(np.float32)
        self.block: Block = Block(arg_types=[tensor_type((rows, width), F32)])
        self.block.args[0].name_hint = "x"
        self.weights: dict[str, Array] = {}
        self.linear: list[str] = []
        self.values: list[SSAValue] = [self.block.args[0]]

    def append(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def weight(self, values: Array) -> SSAValue:
        from tilewright.dialects import top
        from tilewright.dialects.element_types import F32

        key = f"w{len(self.weights)}"
        self.weights[key] = values.astype(np.float32)
        return self.append(top.WeightOp(key, values.shape, F32))

    def product(self, x: SSAValue, width: int, *, biased: bool) -> SSAValue:
        from tilewright.dialects import top
        from tilewright.dialects.graph import shape_of

        depth = shape_of(x)[-1]
        self.linear.append(f"w{len(self.weights)}")
        right = self.weight(self.rng.standard_normal((width, depth)) / sqrt(depth))
        bias = self.weight(self.rng.standard_normal(width) / 4) if biased else None
        return self.append(top.MatMulOp(x, right, bias, right_transpose=True))

    def add(self, kind: str, width: int, *, biased: bool) -> None:
        """Appends an op, or a few."""
        from tilewright.dialects import top
        from tilewright.dialects.graph import shape_of

        x = self.values[-1]
        depth = shape_of(x)[-1]
        unary = {"relu": top.ReluOp, "silu": top.SiLUOp, "gelu": top.GELUOp, "tanh": top.TanhOp}
        if kind in unary:
            self.values.append(self.append(unary[kind](x)))
        elif kind == "scale":
            self.values.append(self.append(top.MulConstOp(x, 0.5)))
        elif kind == "rms norm":
            weight = self.weight(1 + self.rng.standard_normal(depth) / 8)
            self.values.append(self.append(top.RMSNormOp(x, weight, eps=_EPSILON)))
        elif kind == "layer norm":
            weight = self.weight(1 + self.rng.standard_normal(depth) / 8)
            bias = self.weight(self.rng.standard_normal(depth) / 8)
            self.values.append(self.append(top.LayerNormOp(x, weight, bias, eps=_EPSILON)))
        elif kind == "residual":
            alike = [value for value in self.values if shape_of(value) == shape_of(x)]
            self.values.append(self.append(top.AddOp(x, alike[0])))
        elif kind == "gate":
            gate, up = (self.product(x, width, biased=biased) for _ in range(2))
            self.values.append(self.append(top.SwiGLUOp(gate, up)))
        else:
            self.values.append(self.product(x, width, biased=biased))

    def finished(self) -> TopGraph:
        from xdsl.dialects.builtin import ModuleOp
        from xdsl.dialects.func import FuncOp, ReturnOp
        from xdsl.ir import Region

        from tilewright.dialects.dominance import verify_module

        result = self.values[-1]
        self.block.add_op(ReturnOp(result))
        types = [argument.type for argument in self.block.args], [result.type]
        module = ModuleOp([FuncOp(FUNCTION, types, Region(self.block))])
        verify_module(module)
        return TopGraph(module, self.weights, tuple(self.linear), self.x)
