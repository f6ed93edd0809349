"""Functions and `trace`: from Python functions over tensors to a verified `top` module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.dsl.module import results_of
from tilewright.compiler.dsl.tensor import wrap
from tilewright.compiler.dsl.tracer import Tracer, shape_error, tracing
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F32, I32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError


@dataclass(frozen=True)
class ArgumentType:
    """The type of a function's argument."""

    shape: tuple[int, ...]
    element: ElementType


def f32(*shape: int) -> ArgumentType:
    """A tensor of floats."""
    return _argument(shape, F32)


def i32(*shape: int) -> ArgumentType:
    """A tensor of indices."""
    return _argument(shape, I32)


def _argument(shape: tuple[int, ...], element: ElementType) -> ArgumentType:
    if not shape or any(size < 1 for size in shape):
        raise shape_error(f"an argument of shape {list(shape)}: sizes start at 1")
    return ArgumentType(shape, element)


@dataclass(frozen=True)
class Function:
    """A Python function with the types of its arguments, by name."""

    body: Callable[..., Any]
    arguments: Mapping[str, ArgumentType]

    @property
    def name(self) -> str:
        return self.body.__name__


def function(**arguments: ArgumentType) -> Callable[[Callable[..., Any]], Function]:
    """Decorator: `@dsl.function(x=dsl.f32(1, 4096))`. The names are those of the function's
    arguments.
    """

    def decorate(body: Callable[..., Any]) -> Function:
        return Function(body, arguments)

    return decorate


def trace(*functions: Function) -> ModuleOp:
    """Run each function once on placeholder tensors and return the verified `top` module of what it
    did.

    Raises `UnsupportedError` or `IRError` with the line of the function that is wrong.
    """
    with tracing() as tracer:
        for item in functions:
            if tracer.reserve(item.name) != item.name:
                raise OptionError(f"two functions are named {item.name!r}")
        for item in functions:
            _trace_entry(tracer, item)
    module = ModuleOp(list(tracer.functions))
    verify_module(module)
    return module


def _trace_entry(tracer: Tracer, item: Function) -> None:
    types = [
        (name, tensor_type(argument.shape, argument.element))
        for name, argument in item.arguments.items()
    ]
    tracer.entry = item.name
    with tracer.function(types, None) as builder:
        names = list(item.arguments)
        tensors = {name: wrap(value) for name, value in zip(names, builder.block.args, strict=True)}
        outputs = results_of(item.body(**tensors), item.name)
    tracer.finish(builder, item.name, outputs, private=False)
