"""Whether two functions are the same IR, told by a number and not by text.

Printing a module costs as much as most passes; walking it and hashing what it says costs a tenth.
"""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue


def fingerprints(module: ModuleOp) -> dict[str, int]:
    """The fingerprint of every symbol of a module, by name, in order. Locations do not count."""
    found: dict[str, int] = {}
    for op in module.ops:
        name = op.properties.get("sym_name")
        found[name.data if isinstance(name, StringAttr) else op.name] = fingerprint(op)
    return found


def fingerprint(op: Operation) -> int:
    """A hash of an op and all inside it: names, attributes, types, which value is used where."""
    numbers: dict[SSAValue, int] = {}
    return hash(tuple(_of_op(op, numbers)))


def _of_op(op: Operation, numbers: dict[SSAValue, int]) -> list[object]:
    parts: list[object] = [
        op.name,
        *(numbers.get(operand, -1) for operand in op.operands),
        *_attributes(op),
    ]
    for result in op.results:
        numbers[result] = len(numbers)
        parts.append(result.type)
    for region in op.regions:
        for block in region.blocks:
            parts += _of_block(block, numbers)
    return parts


def _attributes(op: Operation) -> list[object]:
    parts: list[object] = []
    for attributes in (op.properties, op.attributes):
        parts += [(name, attributes[name]) for name in sorted(attributes)]
    return parts


def _of_block(block: Block, numbers: dict[SSAValue, int]) -> list[object]:
    parts: list[object] = ["block"]
    for argument in block.args:
        numbers[argument] = len(numbers)
        parts.append(argument.type)
    for op in block.ops:
        parts += _of_op(op, numbers)
    return parts
