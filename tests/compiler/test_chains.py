"""Stacks of equal layers as chains of calls: joined, executed, and split where layers differ."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler import dsl
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects import graph

SIZE = 24


class Layer(dsl.Module):
    """`x + silu(x W^T)`."""

    outlined = True

    def __init__(self) -> None:
        self.linear = dsl.Linear(SIZE, SIZE)

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        return x + dsl.silu(self.linear(x))


class Stack(dsl.Module):
    """Layers one after the other, then doubled."""

    def __init__(self, depth: int) -> None:
        self.layers = [Layer() for _ in range(depth)]

    def main(self, x: dsl.Operand) -> dsl.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x * 2.0

    def skipping(self, x: dsl.Operand) -> dsl.Tensor:
        """What a layer in the middle gives is read again at the end."""
        middle = x
        for index, layer in enumerate(self.layers):
            x = layer(x)
            middle = x if index == 1 else middle
        return x + middle


def weights(depth: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(depth)
    return {
        f"layers.{i}.linear.weight": (rng.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype("f4")
        for i in range(depth)
    }


def exact(x: np.ndarray, arrays: dict[str, np.ndarray], *, skip: bool) -> np.ndarray:
    y, middle = x.astype(np.float64), x.astype(np.float64)
    for index, weight in enumerate(arrays.values()):
        h = y @ weight.T.astype(np.float64)
        y = y + h / (1 + np.exp(-h))
        middle = y if index == 1 else middle
    return y + middle if skip else 2 * y


def calls(module: ModuleOp) -> list[tuple[str, ...]]:
    """The scopes of each call."""
    return [op.scope_names for op in module.walk() if isinstance(op, graph.Call)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("method", ["main", "skipping"])
def test_chains_compute_what_the_layers_do(depth: int, method: str) -> None:
    stack = Stack(depth)
    module = dsl.trace(dsl.function(x=dsl.f32(5, SIZE))(getattr(stack, method)))
    scopes = calls(module)
    if method == "main":
        assert scopes == [tuple(f"layers.{i}." for i in range(depth))]
    elif depth > 2:
        assert [len(chain) for chain in scopes] == [2, depth - 2]
    arrays = weights(depth)
    executable = compile_module(module, arrays, CompileOptions("f32"))
    x = np.random.default_rng(0).standard_normal((5, SIZE)).astype(np.float32)
    (y,) = executable.run(method, x=x)
    np.testing.assert_allclose(y, exact(x, arrays, skip=method == "skipping"), rtol=2e-5, atol=2e-5)


def test_a_chain_is_split_where_scales_are_f32() -> None:
    depth = 6
    module = dsl.trace(dsl.function(x=dsl.f32(5, SIZE))(Stack(depth).main))
    arrays = weights(depth)
    for index in (2, 3):
        arrays[f"layers.{index}.linear.weight"] *= np.float32(1e-4)
    executable = compile_module(module, arrays, CompileOptions("w8a16"))
    chains = calls(executable.tpu_module)
    assert [len(chain) for chain in chains] == [2, 2, 2]
    x = np.random.default_rng(0).standard_normal((5, SIZE)).astype(np.float32)
    (y,) = executable.run("main", x=x)
    np.testing.assert_allclose(y, exact(x, arrays, skip=False), rtol=0.05, atol=0.2)
