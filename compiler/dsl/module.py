"""Modules: a model as a tree of Python objects, as in PyTorch.

Attributes that are `Parameter`, `State`, `Table`, modules or lists of modules make up the tree; the
path of attribute names is the key. A class with `outlined = True` (a decoder layer) becomes a
function of its own, traced once for each distinct structure and called for every instance: a model
of 280 equal layers costs 280 calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, cast

from xdsl.ir import Attribute, SSAValue

from tilewright.compiler.dsl import ops
from tilewright.compiler.dsl.tensor import Leaf, Operand, Parameter, Tensor, wrap
from tilewright.compiler.dsl.tracer import Node, Tracer, current, emit, shape_error
from tilewright.dialects import top

_TREE_FIELDS = ("owner", "name_in_owner", "_structure")


def _no_forward(self: Module, *arguments: object) -> Any:
    raise shape_error(f"{type(self).__name__} has no method forward")


class Module(Node):
    """The base of all modules. Subclasses set attributes in `__init__` and compute in `forward`.

    `outlined`: compile it as a function of its own. Two instances share the function if their
    classes, the shapes of their parameters, all other attributes and the types of the arguments are
    equal; so an outlined module must not store its own index. `names` gives an attribute another
    name in the key; `""` leaves it out.
    """

    outlined: ClassVar[bool] = False
    names: ClassVar[Mapping[str, str]] = {}

    forward: Callable[..., Any] = _no_forward
    _structure: object = None

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _TREE_FIELDS:
            key = self.names.get(name, name)
            if isinstance(value, Node):
                self._adopt(value, key)
            elif isinstance(value, (list, tuple)):
                items = cast(tuple[object, ...], tuple(value))
                if any(isinstance(item, Node) for item in items):
                    value = items  # a tuple, as an item appended later would have no key
                    for index, item in enumerate(items):
                        if isinstance(item, Node):
                            self._adopt(item, f"{key}.{index}" if key else str(index))
            self._forget_structure()
        object.__setattr__(self, name, value)

    def _forget_structure(self) -> None:
        node: Node | None = self
        while isinstance(node, Module):
            object.__setattr__(node, "_structure", None)
            node = node.owner

    def _adopt(self, node: Node, name: str) -> None:
        if node.owner is None:  # the first owner names it; further ones share it
            node.owner = self
            node.name_in_owner = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Run `forward`: in place, or by a call of the function that it was outlined to."""
        tracer = current()
        if self.outlined:
            return _call_outlined(tracer, self, arguments, keywords)
        modules = tracer.builder.modules
        modules.append(self)
        try:
            return self.forward(*arguments, **keywords)
        finally:
            modules.pop()

    def leaves(self) -> Iterator[tuple[str, Leaf]]:
        """All parameters, states and tables that it owns, with their keys from the root."""
        yield from _leaves(self, f"{key}." if (key := self.key()) else "")

    def structure(self) -> object:
        """A value that is equal for modules that can share a function."""
        if self._structure is None:
            values = [
                (name, _structure_of(value, self))
                for name, value in vars(self).items()
                if name not in _TREE_FIELDS
            ]
            object.__setattr__(self, "_structure", (type(self), *values))
        return self._structure


def _leaves(module: Module, prefix: str) -> Iterator[tuple[str, Leaf]]:
    for value in vars(module).values():
        for node in cast(tuple[object, ...], value) if isinstance(value, tuple) else (value,):
            if isinstance(node, Node) and node.owner is module:
                if isinstance(node, Leaf):
                    yield prefix + node.name_in_owner, node
                elif isinstance(node, Module):
                    name = node.name_in_owner
                    yield from _leaves(node, f"{prefix}{name}." if name else prefix)


def _structure_of(value: object, owner: Module | None = None) -> object:
    """A hashable picture of an attribute; a node of another `owner` is equal only to itself."""
    if isinstance(value, Node) and value.owner is not owner:
        return id(value)
    if isinstance(value, Module):
        return value.structure()
    if isinstance(value, Leaf):
        return (type(value), value.name_in_owner, value.shape)
    if isinstance(value, (list, tuple)):
        items = cast(tuple[object, ...], tuple(value))
        return tuple(_structure_of(item, owner) for item in items)
    if isinstance(value, dict):
        entries = cast(dict[object, object], value)
        return tuple((key, _structure_of(item, owner)) for key, item in entries.items())
    try:
        hash(value)
    except TypeError:
        return id(value)
    return (type(value), value)


@dataclass(frozen=True)
class _Tensor:
    """Stands for a tensor among the arguments of an outlined module."""

    type: Attribute


@dataclass(frozen=True)
class _Outlined:
    """A traced function, and whether `forward` returns a single tensor."""

    name: str
    results: tuple[Attribute, ...]
    single: bool


def _call_outlined(
    tracer: Tracer, module: Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    names = _positional_names(module, len(arguments))
    named = {**dict(zip(names, arguments, strict=True)), **keywords}
    values: dict[str, SSAValue] = {}
    shape = (len(arguments), _flatten(named, values, ""))
    signature = (module.structure(), shape)
    function = tracer.outlined.get(signature)
    if not isinstance(function, _Outlined):
        function = _trace_outlined(tracer, module, (arguments, keywords), values)
        tracer.outlined[signature] = function
    key = module.key(tracer.builder.base)
    scope = f"{key}." if key else ""
    op = top.CallOp(function.name, list(values.values()), function.results, scopes=(scope,))
    results = tuple(wrap(value) for value in emit(op, key or None))
    return results[0] if function.single else results or None


def _trace_outlined(
    tracer: Tracer, module: Module, arguments: tuple[Any, Any], values: dict[str, SSAValue]
) -> _Outlined:
    types = [(name, value.type) for name, value in values.items()]
    name = tracer.reserve(f"{tracer.entry}_{_snake(type(module).__name__)}")
    with tracer.function(types, module) as builder:
        inside = iter(builder.block.args)
        positional, keywords = _rebuild(arguments, inside)
        returned = module.forward(*positional, **keywords)
        outputs = results_of(returned, name)
    op = tracer.finish(builder, name, outputs, private=True)
    return _Outlined(name, tuple(op.function_type.outputs), isinstance(returned, Operand))


def results_of(returned: object, function: str) -> list[SSAValue]:
    """The values that a function returns: a tensor, several, or none."""
    if returned is None:
        return []
    if isinstance(returned, Operand):
        return [returned.value]
    items = cast(tuple[object, ...], returned) if isinstance(returned, (tuple, list)) else ()
    tensors = [item for item in items if isinstance(item, Operand)]
    if not tensors or len(tensors) != len(items):
        raise shape_error(
            f"{function} returns {returned!r}", hint="return a tensor or a tuple of them"
        )
    return [tensor.value for tensor in tensors]


def _positional_names(module: Module, count: int) -> list[str]:
    """Names for `count` arguments of `forward` after `self`: its own, then `argument_3`, ..."""
    code = getattr(type(module).forward, "__code__", None)
    names = list(code.co_varnames[1 : code.co_argcount]) if code is not None else []
    return [names[i] if i < len(names) else f"argument_{i}" for i in range(count)]


def _flatten(value: Any, values: dict[str, SSAValue], name: str) -> object:
    """Collects the tensors of `value` under their names; returns a hashable picture of the rest."""
    if isinstance(value, Operand):
        values[name if name not in values else f"{name}_{len(values)}"] = value.value
        return _Tensor(value.value.type)
    if isinstance(value, (list, tuple)):
        items = cast(tuple[object, ...], tuple(value))
        return tuple(_flatten(item, values, f"{name}_{i}") for i, item in enumerate(items))
    if isinstance(value, dict):
        entries = cast(dict[object, object], value)
        return tuple((key, _flatten(item, values, str(key))) for key, item in entries.items())
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
        return (type(value), *((part, _flatten(item, values, part)) for part, item in parts))
    return _structure_of(value)


def _rebuild(value: Any, inside: Iterator[SSAValue]) -> Any:
    """`value` with its tensors replaced by the function's arguments."""
    if isinstance(value, Operand):
        return wrap(next(inside))
    if isinstance(value, (list, tuple)):
        items = cast(tuple[object, ...], value)
        return type(value)(_rebuild(item, inside) for item in items)
    if isinstance(value, dict):
        entries = cast(dict[object, object], value)
        return {key: _rebuild(item, inside) for key, item in entries.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
        return type(value)(**{name: _rebuild(item, inside) for name, item in parts})
    return value


def _snake(name: str) -> str:
    """`DecoderLayer` -> `decoder_layer`, `GLMBlock` -> `glm_block`."""
    text = ""
    for i, letter in enumerate(name):
        after_small = i > 0 and not name[i - 1].isupper()
        before_small = i > 0 and i + 1 < len(name) and name[i + 1].islower()
        text += f"_{letter}" if letter.isupper() and (after_small or before_small) else letter
    return text.lower().strip("_")


class Linear(Module):
    """`x @ weight^T + bias` with `weight` `[out_features, in_features]`, as in PyTorch."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = False, role: str | None = None
    ) -> None:
        self.weight = Parameter(out_features, in_features)
        self.bias = Parameter(out_features) if bias else None
        self.role = role

    def forward(self, x: Operand) -> Tensor:
        return ops.linear(x, self.weight, self.bias, role=self.role)


class Embedding(Module):
    """Rows of `weight` `[count, features]`, looked up by token."""

    def __init__(self, count: int, features: int) -> None:
        self.weight = Parameter(count, features)

    def forward(self, indices: Operand) -> Tensor:
        return ops.gather(self.weight, indices, role="embedding")


class RMSNorm(Module):
    """`x / sqrt(mean(x^2) + eps) * weight`."""

    def __init__(self, features: int, *, eps: float) -> None:
        self.weight = Parameter(features)
        self.eps = eps

    def forward(self, x: Operand) -> Tensor:
        return ops.rms_norm(x, self.weight, eps=self.eps)


class LayerNorm(Module):
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`."""

    def __init__(self, features: int, *, eps: float, bias: bool = True) -> None:
        self.weight = Parameter(features)
        self.bias = Parameter(features) if bias else None
        self.eps = eps

    def forward(self, x: Operand) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)
