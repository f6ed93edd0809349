"""The base of all ops of `top` and `tpu`, and the rules on types that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, TensorType, f32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.element_types import (
    ELEMENT_TYPES,
    ElementType,
    element_of,
    tensor_type,
)
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.shape_rules import Shape

Value = SSAValue[Attribute]


def shape_of(value: Value) -> Shape:
    """The shape of a tensor value; raises `VerifyException` for any other value."""
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"expected a tensor, not {value.type}")
    return value.type.get_shape()


def optional_shape_of(value: Value | None) -> Shape | None:
    """The shape of an optional operand."""
    return None if value is None else shape_of(value)


def storage_of(value: Value) -> ElementType:
    """The element type of a tensor value; raises `VerifyException` for one the machine lacks."""
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"expected a tensor, not {value.type}")
    try:
        return element_of(value.type)
    except UnsupportedError as error:
        raise VerifyException(error.what) from error


def like(value: Value, shape: Sequence[int]) -> TensorType[Attribute]:
    """The tensor type of `shape` with the elements of `value`."""
    return tensor_type(tuple(shape), storage_of(value))


def require_one_float(**values: Value | None) -> ElementType:
    """All `values` that are there hold one floating-point type; returns it."""
    storage = {name: storage_of(value) for name, value in values.items() if value is not None}
    first, *others = storage.values()
    if not first.is_float or any(other != first for other in others):
        listed = ", ".join(f"{name} {element.name}" for name, element in storage.items())
        raise VerifyException(f"one floating-point type is needed, not {listed}")
    return first


def require_element(name: str, value: Value, *elements: ElementType) -> None:
    """The tensor called `name` holds one of `elements`."""
    actual = storage_of(value)
    if actual not in elements:
        expected = " or ".join(element.name for element in elements)
        raise VerifyException(f"{name} holds {expected}, not {actual.name}")


def int_attr(value: int) -> IntegerAttr:
    """An i64 property."""
    return IntegerAttr(value, i64)


def float_attr(value: float) -> FloatAttr:
    """An f32 property; `value` is rounded to f32."""
    return FloatAttr(value, f32)


class GraphOp(IRDLOperation):
    """An op of the tensor graph: `verify_` checks every tensor's type, then what `check` says.

    Messages are prefixed with the op's name.
    """

    ELEMENTS: ClassVar[tuple[ElementType, ...]] = ELEMENT_TYPES
    """Element types that tensors of the dialect may have."""

    def verify_(self) -> None:
        try:
            for value in (*self.operands, *self.results):
                if isinstance(value.type, TensorType):
                    self._check_tensor(value)
            self.check()
        except VerifyException as error:
            raise VerifyException(f"{self.name}: {error}") from error

    def _check_tensor(self, value: Value) -> None:
        shape = shape_of(value)
        if any(size < 1 for size in shape):
            raise VerifyException(f"{value.type} is not static and non-empty")
        if storage_of(value) not in self.ELEMENTS:
            dialect = self.name.split(".")[0]
            known = ", ".join(element.name for element in self.ELEMENTS)
            raise VerifyException(f"{value.type} does not hold one of {dialect}'s types: {known}")

    def check(self) -> None:
        """The rules of this op; raises `VerifyException` with a sentence without the op's name."""
