"""What the reference reads off an op of `top` or `tpu`: its kind, attributes and types.

Both dialects have the same ops, so the kind is the name without the dialect: `MatMul` for `top.MatMul` and `tpu.MatMul`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, Data, Operation, SSAValue

from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import IRError, OptionError

Array = NDArray[Any]


@dataclass(frozen=True)
class OperationView:
    """An op as the reference sees it."""

    op: Operation

    @property
    def kind(self) -> str:
        """The op's name without its dialect."""
        return self.op.name.partition(".")[2]

    @property
    def result_element(self) -> ElementType:
        return element_of(self.op.results[0].type)

    @property
    def result_shape(self) -> tuple[int, ...]:
        return shape_of(self.op.results[0])

    def operand_element(self, index: int) -> ElementType:
        return element_of(self.op.operands[index].type)

    # Attributes.

    def _attribute(self, name: str) -> Attribute:
        found = self._optional_attribute(name)
        if found is None:
            raise IRError(f"{self.op.name} has no attribute {name!r}")
        return found

    def _optional_attribute(self, name: str) -> Attribute | None:
        return self.op.properties.get(name, self.op.attributes.get(name))

    def integer(self, name: str) -> int:
        attribute = self._attribute(name)
        if not isinstance(attribute, IntegerAttr):
            raise IRError(f"{self.op.name}: {name!r} is not an integer")
        return attribute.value.data

    def number(self, name: str) -> float:
        """A float attribute, rounded to its own type (the machine's constants are f32)."""
        attribute = self._attribute(name)
        if not isinstance(attribute, FloatAttr):
            raise IRError(f"{self.op.name}: {name!r} is not a float")
        width = attribute.type.bitwidth if isinstance(attribute.type, AnyFloat) else 64
        value = attribute.value.data
        return float(np.float32(value)) if width <= 32 else value

    def flag(self, name: str) -> bool:
        """A boolean or unit attribute; absent means false."""
        attribute = self._optional_attribute(name)
        if isinstance(attribute, IntegerAttr):
            return bool(attribute.value.data)
        return isinstance(attribute, UnitAttr)

    def text(self, name: str) -> str:
        """A string or an enumeration's spelling."""
        attribute = self._attribute(name)
        if not isinstance(attribute, StringAttr | Data):
            raise IRError(f"{self.op.name}: {name!r} is not a word")
        return str(attribute.data)

    def integers(self, name: str) -> tuple[int, ...]:
        attribute = self._attribute(name)
        if isinstance(attribute, DenseArrayBase):
            return tuple(int(value) for value in attribute.get_values())
        if isinstance(attribute, ArrayAttr):
            items = tuple(item for item in attribute.data if isinstance(item, IntegerAttr))
            return tuple(item.value.data for item in items)
        raise IRError(f"{self.op.name}: {name!r} is not a list of integers")

    # Inputs.

    def optional(self, inputs: Sequence[Array], first: int, *names: str) -> list[Array | None]:
        """The inputs of the optional operands `names`, which stand behind `first` operands."""
        remaining = iter(inputs[first:])
        present = (getattr(self.op, name) is not None for name in names)
        return [next(remaining) if there else None for there in present]

    def check_inputs(self, inputs: Sequence[Array], *, storage_types: bool) -> None:
        """Raise `OptionError` unless there is an array of the right shape (and type) an operand."""
        operands = self.op.operands
        if len(inputs) != len(operands):
            raise OptionError(f"{self.op.name} takes {len(operands)} inputs, not {len(inputs)}")
        for index, (array, operand) in enumerate(zip(inputs, operands, strict=True)):
            expected, element = shape_of(operand), element_of(operand.type)
            wrong_type = storage_types and array.dtype != element.dtype
            if array.shape != expected or wrong_type:
                raise OptionError(
                    f"input {index} of {self.op.name} is {array.dtype}{list(array.shape)}, "
                    f"not {element.name}{list(expected)}"
                )


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value; raises `IRError` for any other value."""
    if not isinstance(value.type, TensorType):
        raise IRError(f"{value.type} is not a tensor type")
    return value.type.get_shape()
