"""Functions of their own for the layers whose weights are stored differently.

How a weight is stored may differ between layers that share a function: a rule of the user's gives
one of them another scheme, or its scales are stored as f32 because f16 ones would be subnormal
(docs/numerics.md). What differs is known by resolved key, and stands on `top.Weight` as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple, TypeAlias

from xdsl.dialects.builtin import ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp

from tilewright.dialects import top
from tilewright.dialects.scopes import functions_of

QUANT_ATTRIBUTE = "top.quant"
"""On a `top.Weight`: the scheme, or the dense element type, that it is stored in; that of the
options if it is not there."""

SCALE_ATTRIBUTE = "top.scale"
"""On a `top.Weight`: `"f32"` if its scales are stored as f32."""


class _Mark(NamedTuple):
    """An attribute of the weight with a key, which is relative to the function that is marked."""

    key: str
    attribute: str
    value: str


_Pattern: TypeAlias = frozenset[_Mark]


def specialize_weights(module: ModuleOp, marks: Mapping[str, Mapping[str, str]]) -> None:
    """Give the weights with the resolved keys of `marks` the attributes that stand there.

    A private function that is called for layers with different marks is cloned, once for each
    pattern of marks, and chains of calls are split accordingly. Functions that nothing calls any
    more are removed; an only clone takes over the name. Requires a verified module.
    """
    pattern = frozenset(
        _Mark(key, attribute, value)
        for key, attributes in marks.items()
        for attribute, value in attributes.items()
    )
    if not pattern:
        return
    called_before = set(_callees(functions_of(module).values()))
    variants = _Variants(module)
    for name, function in functions_of(module).items():
        if function.sym_visibility is None:
            variants.mark(function, _of_keys(pattern, variants.keys_of(name)))
    _remove_unused(module, called_before)
    variants.take_over_names(module)


def _of_keys(pattern: _Pattern, keys: frozenset[str]) -> _Pattern:
    return frozenset(mark for mark in pattern if mark.key in keys)


def _remove_unused(module: ModuleOp, candidates: set[str]) -> None:
    """Erase those of the functions `candidates` that no function calls."""
    functions = functions_of(module)
    while True:
        called = set(_callees(functions.values()))
        unused = [name for name in functions if name in candidates and name not in called]
        if not unused:
            return
        for name in unused:
            function = functions.pop(name)
            function.detach()
            function.erase()


def _calls(function: FuncOp) -> Iterator[top.CallOp]:
    return (op for op in function.walk() if isinstance(op, top.CallOp))


def _callees(functions: Iterable[FuncOp]) -> Iterator[str]:
    for function in functions:
        yield from (call.callee.string_value() for call in _calls(function))


class _Variants:
    """The functions of a module and their clones, by the marks that are made in them."""

    def __init__(self, module: ModuleOp) -> None:
        self._originals = {name: op.clone() for name, op in functions_of(module).items()}
        self._block = module.body.block
        self._names = set(self._originals)
        self._keys: dict[str, frozenset[str]] = {}
        self._variants: dict[tuple[str, _Pattern], str] = {}

    def keys_of(self, name: str) -> frozenset[str]:
        """The keys of the weights that a function reads, also through calls, relative to it."""
        if name not in self._keys:
            function = self._originals[name]
            own = {op.key.data for op in function.walk() if isinstance(op, top.WeightOp)}
            for call in _calls(function):
                keys = self.keys_of(call.callee.string_value())
                own.update(scope + key for scope in call.scope_names for key in keys)
            self._keys[name] = frozenset(own)
        return self._keys[name]

    def mark(self, function: FuncOp, pattern: _Pattern) -> None:
        """Make the marks of `pattern`, here and in the functions called."""
        if not pattern:
            return
        for op in list(function.walk()):
            if isinstance(op, top.WeightOp):
                for mark in pattern:
                    if mark.key == op.key.data:
                        op.attributes[mark.attribute] = StringAttr(mark.value)
            elif isinstance(op, top.CallOp):
                self._split(op, pattern)

    def _split(self, call: top.CallOp, pattern: _Pattern) -> None:
        """Replace a chain of calls by chains of calls of the variant that each scope needs."""
        callee = call.callee.string_value()
        keys = self.keys_of(callee)

        def variant(scope: str) -> str:
            inside = frozenset(
                mark._replace(key=mark.key[len(scope) :])
                for mark in pattern
                if mark.key.startswith(scope)
            )
            return self._variant(callee, _of_keys(inside, keys))

        types, operands = list(call.outputs.types), list(call.arguments)
        chain: list[top.CallOp] = []
        for name, scopes in groupby(call.scope_names, key=variant):
            op = top.CallOp(name, operands, types, scopes=tuple(scopes))
            op.location = call.location
            chain.append(op)
            operands = [*op.outputs, *operands[len(types) :]]
        block = call.parent_block()
        assert block is not None
        block.insert_ops_before(chain, call)
        for old, new in zip(call.outputs, chain[-1].outputs, strict=True):
            old.replace_all_uses_with(new)
        call.detach()
        call.erase()

    def _variant(self, name: str, pattern: _Pattern) -> str:
        """The name of function `name` with the marks of `pattern`."""
        if not pattern:
            return name
        if (name, pattern) not in self._variants:
            count = sum(known == name for known, _ in self._variants) + 1
            new = f"{name}_variant_{count}"
            while new in self._names:
                new = f"{new}_"
            self._names.add(new)
            self._variants[name, pattern] = new
            clone = self._originals[name].clone()
            clone.sym_name = StringAttr(new)
            clone.sym_visibility = StringAttr("private")
            self._block.add_op(clone)
            self.mark(clone, pattern)
        return self._variants[name, pattern]

    def take_over_names(self, module: ModuleOp) -> None:
        """Give the only variant of a function that has been removed its name."""
        functions = functions_of(module)
        of: dict[str, list[str]] = {}
        for (name, _), variant in self._variants.items():
            of.setdefault(name, []).append(variant)
        new_names = {
            variants[0]: name
            for name, variants in of.items()
            if len(variants) == 1 and name not in functions
        }
        for variant, name in new_names.items():
            functions[variant].sym_name = StringAttr(name)
        for function in functions.values():
            for call in _calls(function):
                name = call.callee.string_value()
                call.callee = SymbolRefAttr(new_names.get(name, name))
