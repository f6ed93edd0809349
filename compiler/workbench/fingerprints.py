"""Whether two functions are the same IR, told by a number and not by text.

Printing a module costs as much as most passes; walking it and hashing what it says costs a tenth.
"""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue


def fingerprints(module: ModuleOp) -> dict[str, int]:
    """The fingerprint of every symbol of a module, by name, in order. Locations do not count."""
    return {symbol_of(op): fingerprint(op) for op in module.ops}


def symbol_of(op: Operation) -> str:
    """The symbol that an op of a module defines; the op's name if it defines none."""
    name = op.properties.get("sym_name")
    return name.data if isinstance(name, StringAttr) else op.name


def fingerprint(op: Operation) -> int:
    """A hash of an op and all inside it: names, attributes, types, which value is used where."""
    return hash(tuple(_Parts().of_op(op)))


def split_fingerprint(op: Operation, apart: frozenset[str]) -> tuple[int, int]:
    """A hash of all but the attributes named in `apart`, and one of those."""
    parts = _Parts(apart)
    return hash(tuple(parts.of_op(op))), hash(tuple(parts.apart))


class _Parts:
    """What two ops that are the same have in common."""

    def __init__(self, apart: frozenset[str] = frozenset()) -> None:
        self.apart: list[object] = []
        self._names_apart = apart
        self._numbers: dict[SSAValue, int] = {}

    def of_op(self, op: Operation) -> list[object]:
        numbers = self._numbers
        parts: list[object] = [op.name, *(numbers.get(operand, -1) for operand in op.operands)]
        for attributes in (op.properties, op.attributes):
            for name in sorted(attributes):
                group = self.apart if name in self._names_apart else parts
                group += (name, attributes[name])
        for result in op.results:
            numbers[result] = len(numbers)
            parts.append(result.type)
        for region in op.regions:
            for block in region.blocks:
                parts += self._of_block(block)
        return parts

    def _of_block(self, block: Block) -> list[object]:
        parts: list[object] = ["block"]
        for argument in block.args:
            self._numbers[argument] = len(self._numbers)
            parts.append(argument.type)
        for op in block.ops:
            parts += self.of_op(op)
        return parts
