"""Keys, outlining, locations and tables of modules."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.compiler import dsl
from tilewright.dialects import graph, top
from tilewright.dialects.errors import IRError, OptionError, UnsupportedError
from tilewright.dialects.scopes import functions_of, op_name, source_of, walk_calls


class Layer(dsl.Module):
    """A layer with a submodule, a state and an attribute."""

    outlined = True

    def __init__(self, size: int, factor: float = 1.0) -> None:
        self.norm = dsl.RMSNorm(size, eps=1e-5)
        self.cache = dsl.State(4, size)
        self.factor = factor

    def forward(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
        h = self.norm(x)
        h = dsl.cache_update(self.cache, h, positions)
        return h * self.factor


class Stack(dsl.Module):
    """Layers one after the other."""

    def __init__(self, *layers: dsl.Module) -> None:
        self.layers = list(layers)

    def forward(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Operand:
        for layer in self.layers:
            x = layer(x, positions)
        return x


class Model(dsl.Module):
    """A stack under a name."""

    def __init__(self, *layers: dsl.Module) -> None:
        self.stack = Stack(*layers)

    def main(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Operand:
        return self.stack(x, positions)


def trace(model: Any, size: int = 8) -> ModuleOp:
    types = {"x": dsl.f32(4, size), "positions": dsl.i32(4)}
    return dsl.trace(dsl.function(**types)(model.main))


def calls(module: ModuleOp) -> list[tuple[str, str]]:
    """Callee and scope of each call, chains taken apart."""
    return [
        (op.callee.string_value(), scope)
        for op in module.walk()
        if isinstance(op, top.CallOp)
        for scope in op.scope_names
    ]


def weight_keys(module: ModuleOp) -> list[str]:
    """Resolved keys of weights, in the order in which they are read."""
    return [
        scope + op.key.data
        for op, scope in walk_calls(module, "main")
        if isinstance(op, graph.Weight)
    ]


def test_equal_layers_share_a_function() -> None:
    module = trace(Model(Layer(8), Layer(8), Layer(8)))
    assert calls(module) == [("main_layer", f"stack.layers.{i}.") for i in range(3)]
    assert functions_of(module)["main_layer"].sym_visibility is not None
    assert weight_keys(module) == [f"stack.layers.{i}.norm.weight" for i in range(3)]


def test_layers_with_other_attributes_or_classes_do_not() -> None:
    class Other(Layer):
        pass

    module = trace(Model(Layer(8), Layer(8, 2.0), Layer(8, 1), Other(8), Layer(8)))
    assert [callee for callee, _ in calls(module)] == [
        "main_layer",
        "main_layer_2",
        "main_layer_3",
        "main_other",
        "main_layer",
    ]


def test_a_changed_attribute_is_seen() -> None:
    model = Model(Layer(8), Layer(8))
    assert len({callee for callee, _ in calls(trace(model))}) == 1
    model.stack.layers[0].norm.eps = 1e-3  # pyright: ignore[reportAttributeAccessIssue]
    assert len({callee for callee, _ in calls(trace(model))}) == 2


def test_functions_share_outlined_modules_of_equal_arguments() -> None:
    model = Model(Layer(8))
    types = {"x": dsl.f32(4, 8), "positions": dsl.i32(4)}

    def other(x: dsl.Operand, positions: dsl.Operand) -> dsl.Operand:
        return model.stack(x, positions)

    module = dsl.trace(dsl.function(**types)(model.main), dsl.function(**types)(other))
    assert list(functions_of(module)) == ["main_layer", "main", "other"]


def test_outlined_modules_nest() -> None:
    class Pair(dsl.Module):
        outlined = True

        def __init__(self) -> None:
            self.a, self.b = Layer(8), Layer(8)

        def forward(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return self.b(self.a(x, positions), positions)

    module = trace(Model(Pair(), Pair()))
    assert len(functions_of(module)) == 3
    assert weight_keys(module) == [
        f"stack.layers.{i}.{name}.norm.weight" for i in range(2) for name in "ab"
    ]


def test_locations_are_the_users_lines_and_relative_names() -> None:
    module = trace(Model(Layer(8)))
    found = {op.name: (op_name(op), source_of(op)) for op in module.walk()}
    line = Layer.forward.__code__.co_firstlineno
    assert found["top.RMSNorm"] == ("norm", f"test_modules.py:{line + 1}")
    assert found["top.Weight"] == ("norm.weight", f"test_modules.py:{line + 1}")
    assert found["top.CacheUpdate"] == ("CacheUpdate", f"test_modules.py:{line + 2}")
    assert found["top.MulConst"] == ("MulConst", f"test_modules.py:{line + 3}")
    assert found["top.Call"][0] == "stack.layers.0"


def test_an_error_names_module_and_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        trace(Model(Layer(8), Layer(9)), size=8)
    line = Layer.forward.__code__.co_firstlineno + 1
    where = caught.value.where or ""
    assert where.endswith("(in stack.layers.1.norm)")
    assert f"test_modules.py:{line}:" in where


def test_an_outlined_module_uses_only_what_it_owns() -> None:
    class Shared(dsl.Module):
        outlined = True

        def __init__(self, weight: dsl.Parameter) -> None:
            self.weight = weight

        def forward(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return x * self.weight

    weight = dsl.Parameter(8)
    with pytest.raises(IRError, match=r"'stack.layers.0.weight' is used inside 'stack.layers.1'"):
        trace(Model(Shared(weight), Shared(weight)))


def test_tied_parameters_have_one_key() -> None:
    class Tied(dsl.Module):
        def __init__(self) -> None:
            self.embedding = dsl.Embedding(16, 8)
            self.head = dsl.Linear(8, 16)
            self.head.weight = self.embedding.weight

        def main(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return self.head(self.embedding(positions) + x)

    model = Tied()
    module = trace(model)
    assert [key for key, _ in model.leaves()] == ["embedding.weight"]
    assert weight_keys(module) == ["embedding.weight"]


def test_names_override_attributes() -> None:
    class Inner(dsl.Module):
        names: ClassVar[Mapping[str, str]] = {"gain": "weight"}

        def __init__(self) -> None:
            self.gain = dsl.Parameter(8)

        def main(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return x * self.gain

    class Outer(dsl.Module):
        names: ClassVar[Mapping[str, str]] = {"inner": "", "items": "h"}

        def __init__(self) -> None:
            self.inner = Inner()
            self.items = [Inner(), Inner()]

    assert [key for key, _ in Outer().leaves()] == ["weight", "h.0.weight", "h.1.weight"]
    assert weight_keys(trace(Inner())) == ["weight"]


def test_tables_are_computed_late_and_read_as_weights() -> None:
    class Scaled(dsl.Module):
        def __init__(self) -> None:
            self.table = dsl.Table(self.compute, 8)
            self.computed = False

        def compute(self) -> Any:
            self.computed = True
            return np.full(8, 3.0, np.float32)

        def main(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return x * self.table

    model = Scaled()
    module = trace(model)
    assert weight_keys(module) == ["table"]
    assert not model.computed
    assert model.table.compute().tolist() == [3.0] * 8


def test_states_keep_what_the_last_call_wrote() -> None:
    class Keep(dsl.Module):
        def __init__(self) -> None:
            self.cache = dsl.State(4, 2)

        def main(self, x: dsl.Operand, positions: dsl.Operand) -> dsl.Tensor:
            return dsl.cache_update(self.cache, x, positions)

    module = dsl.trace(dsl.function(x=dsl.f32(1, 2), positions=dsl.i32(1))(Keep().main))
    states = {"cache": np.zeros((4, 2))}

    def no_weights(key: str, op: Operation) -> Any:
        raise KeyError(key)

    for row in (1, 3):
        inputs = [np.full((1, 2), row, np.float32), np.array([row], np.int32)]
        run_function(module, "main", inputs, weights=no_weights, states=states, semantics="float64")
    assert states["cache"][:, 0].tolist() == [0, 1, 0, 3]


@dataclass(frozen=True)
class Extra:
    """Arguments of a layer in a dataclass."""

    scale: dsl.Operand
    power: int


class Flexible(dsl.Module):
    """Takes and returns structures."""

    outlined = True

    def forward(
        self, x: dsl.Operand, extra: Extra, *, pair: tuple[dsl.Operand, ...]
    ) -> tuple[dsl.Tensor, dsl.Tensor]:
        y = x * extra.scale
        for _ in range(extra.power):
            y = y * y
        return y + pair[0], y - pair[1]


@pytest.mark.parametrize("power", [0, 2])
def test_arguments_and_results_may_be_structures(power: int) -> None:
    layer = Flexible()

    @dsl.function(x=dsl.f32(2, 3), a=dsl.f32(3), b=dsl.f32(2, 3))
    def main(x: dsl.Tensor, a: dsl.Tensor, b: dsl.Tensor) -> tuple[dsl.Tensor, ...]:
        plus, minus = layer(x, Extra(a, power), pair=(b, x))
        return plus, minus, layer(x, Extra(a, 0), pair=(b, b))[0]

    module = dsl.trace(main)
    assert len(functions_of(module)) == (2 if power == 0 else 3)
    inputs = [np.full(shape, 2.0, np.float32) for shape in ((2, 3), (3,), (2, 3))]

    def no_weights(key: str, op: Operation) -> Any:
        raise KeyError(key)

    results = run_function(
        module, "main", inputs, weights=no_weights, states={}, semantics="float64"
    )
    y = 4.0 ** (2**power)
    assert [result[0, 0] for result in results] == [y + 2, y - 2, 6.0]


def test_what_a_function_returns_is_checked() -> None:
    @dsl.function(x=dsl.f32(2))
    def main(x: dsl.Tensor) -> str:
        return "x"

    with pytest.raises(UnsupportedError, match="main returns 'x'"):
        dsl.trace(main)


def test_two_functions_of_one_name_are_refused() -> None:
    @dsl.function(x=dsl.f32(2))
    def main(x: dsl.Tensor) -> dsl.Tensor:
        return x

    with pytest.raises(OptionError, match="two functions are named 'main'"):
        dsl.trace(main, main)


def test_a_module_needs_forward() -> None:
    with pytest.raises(UnsupportedError, match="Model has no method forward"):
        trace(Model(Model()))


def test_a_list_of_modules_cannot_grow_later() -> None:
    stack = Stack(Layer(8))
    with pytest.raises(AttributeError):
        stack.layers.append(Layer(8))


def test_ten_times_the_layers_cost_little_more() -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        trace(Model(*(Layer(8) for _ in range(count))))
        return time.process_time() - start

    seconds(1)
    assert min(seconds(300) for _ in range(3)) < 0.5
