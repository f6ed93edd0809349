"""Functions of their own for the layers whose scales are stored as f32.

docs/numerics.md: where a stored f16 scale would be subnormal, the scales of that tensor are f32.
Which tensors those are is known by resolved key, after quantization; layers that share a function
may differ in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp

from tilewright.dialects import top
from tilewright.dialects.scopes import functions_of

SCALE_ATTRIBUTE = "top.scale"
"""On a `top.Weight`: `"f32"` if its scales are stored as f32."""


def specialize_scales(module: ModuleOp, f32_scale_keys: frozenset[str]) -> None:
    """Mark the weights with the resolved keys `f32_scale_keys` with `top.scale = "f32"`.

    A private function that is called for layers with different marks is cloned, once for each
    pattern of marks. Functions that nothing calls any more are removed. Requires a verified module.
    """
    if not f32_scale_keys:
        return
    called_before = set(_callees(functions_of(module).values()))
    variants = _Variants(module)
    for name, function in functions_of(module).items():
        if function.sym_visibility is None:
            variants.mark(function, f32_scale_keys & variants.keys_of(name))
    _remove_unused(module, called_before)


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
    """The functions of a module and their clones, by the relative keys that are marked in them."""

    def __init__(self, module: ModuleOp) -> None:
        self._originals = {name: op.clone() for name, op in functions_of(module).items()}
        self._block = module.body.block
        self._names = set(self._originals)
        self._keys: dict[str, frozenset[str]] = {}
        self._variants: dict[tuple[str, frozenset[str]], str] = {}

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

    def mark(self, function: FuncOp, pattern: frozenset[str]) -> None:
        """Mark the weights with the relative keys `pattern`, here and in the functions called."""
        if not pattern:
            return
        for op in list(function.walk()):
            if isinstance(op, top.WeightOp) and op.key.data in pattern:
                op.attributes[SCALE_ATTRIBUTE] = StringAttr("f32")
            elif isinstance(op, top.CallOp):
                self._split(op, pattern)

    def _split(self, call: top.CallOp, pattern: frozenset[str]) -> None:
        """Replace a chain of calls by chains of calls of the variant that each scope needs."""
        callee = call.callee.string_value()
        keys = self.keys_of(callee)

        def variant(scope: str) -> str:
            inside = {key[len(scope) :] for key in pattern if key.startswith(scope)}
            return self._variant(callee, keys & inside)

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

    def _variant(self, name: str, pattern: frozenset[str]) -> str:
        """The name of function `name` with the weights `pattern` marked."""
        if not pattern:
            return name
        if (name, pattern) not in self._variants:
            count = sum(known == name for known, _ in self._variants) + 1
            new = f"{name}_f32_scales_{count}"
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
