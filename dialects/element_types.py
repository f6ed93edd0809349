"""Element types: one table between xDSL types, numpy dtypes, short names and record codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import BFloat16Type, Float16Type, Float32Type, TensorType, i8, i32
from xdsl.ir import Attribute

from tilewright.dialects.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ElementType:
    """An element type of the machine: its `name`, record `code`, IR type and size."""

    name: str
    code: int
    ir: Attribute
    size_bytes: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype. Tools that only read IR do without numpy, which takes long to import."""
        import ml_dtypes
        import numpy as np

        return np.dtype(ml_dtypes.bfloat16 if self.name == "bf16" else _NUMPY_NAMES[self.name])

    @property
    def is_float(self) -> bool:
        return self.name in ("f32", "f16", "bf16")


F32 = ElementType("f32", 0, Float32Type(), 4)
F16 = ElementType("f16", 1, Float16Type(), 2)
BF16 = ElementType("bf16", 2, BFloat16Type(), 2)
I8 = ElementType("i8", 3, i8, 1)
I32 = ElementType("i32", 4, i32, 4)

ELEMENT_TYPES: tuple[ElementType, ...] = (F32, F16, BF16, I8, I32)
_NUMPY_NAMES = {"f32": "float32", "f16": "float16", "i8": "int8", "i32": "int32"}
_BY_NAME = {element.name: element for element in ELEMENT_TYPES}
_BY_CODE = {element.code: element for element in ELEMENT_TYPES}
_BY_IR = {element.ir: element for element in ELEMENT_TYPES}


def element_by_name(name: str) -> ElementType:
    """The element type called `name`; raises `UnsupportedError` for any other."""
    if name not in _BY_NAME:
        raise UnsupportedError(
            f"unknown element type {name!r}", hint=f"one of {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name]


def element_by_code(code: int) -> ElementType:
    """The element type with record code `code`; raises `KeyError` for any other."""
    return _BY_CODE[code]


def element_of(ir_type: Attribute) -> ElementType:
    """The element type of a scalar IR type, or of a tensor's elements.

    Raises `UnsupportedError` for a type that the machine lacks.
    """
    scalar: Attribute = ir_type.element_type if isinstance(ir_type, TensorType) else ir_type
    if scalar not in _BY_IR:
        raise UnsupportedError(f"element type {scalar} is not supported by the machine")
    return _BY_IR[scalar]


@cache
def tensor_type(shape: tuple[int, ...], element: ElementType) -> TensorType[Attribute]:
    """The tensor type of `shape`, built once (xDSL does not unique types)."""
    return TensorType(element.ir, shape)
