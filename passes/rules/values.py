"""Attributes as Python values, and the functions that rules may call."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, SSAValue

from tilewright.dialects.element_types import ELEMENT_TYPES, ElementType
from tilewright.dialects.graph import shape_of, storage_of

ELEMENTS: Mapping[str, ElementType] = {element.name: element for element in ELEMENT_TYPES}
"""The element types, as rules call them."""

TOLERANCE = 1e-5
"""Relative difference up to which `approx` holds: about a hundred roundings of f32."""


class NoValueError(Exception):
    """An expression has no value here: the rule does not apply."""


def attribute_value(attribute: Attribute | None) -> object:
    """What a rule sees of a property: a number, text, bool or tuple; None where it is missing."""
    match attribute:
        case None:
            return None
        case FloatAttr():
            return attribute.value.data
        case IntegerAttr():
            is_bool = attribute.type == BoolAttr.from_bool(True).type
            return bool(attribute.value.data) if is_bool else attribute.value.data
        case StringAttr() | EnumAttribute():
            return attribute.data
        case UnitAttr():
            return True
        case SymbolRefAttr():
            return attribute.string_value()
        case DenseArrayBase():
            return tuple(attribute.elt_type.unpack(attribute.data.data, len(attribute)))
        case ArrayAttr():
            return tuple(attribute_value(each) for each in attribute)
        case _:
            return attribute


def same_constant(actual: object, wanted: object) -> bool:
    """Whether two values are the same, such as an attribute's and what a rule writes; floats are
    compared in f32, in lists too."""
    match actual, wanted:
        case (float(), int() | float()) | (int(), float()):
            return to_f32(actual) == to_f32(wanted)
        case tuple(), tuple():
            return len(actual) == len(wanted) and all(map(same_constant, actual, wanted))
        case _:
            return actual == wanted


def to_f32(number: float) -> float:
    """The f32 nearest to a number; infinite where it is out of the range of f32."""
    try:
        (nearest,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    return nearest


def _value(value: object) -> SSAValue:
    if not isinstance(value, SSAValue):
        raise NoValueError
    return value


def _rank(value: object) -> int:
    return len(shape_of(_value(value)))


def _dim(value: object, axis: int) -> int:
    return shape_of(_value(value))[axis]


def _shape(value: object) -> tuple[int, ...]:
    return tuple(shape_of(_value(value)))


def _dtype(value: object) -> ElementType:
    return storage_of(_value(value))


def _elements(value: object) -> int:
    return math.prod(_shape(value))


def _uses(value: object) -> int:
    return sum(1 for _ in _value(value).uses)


def _last(value: object) -> object:
    items = value if isinstance(value, tuple) else _shape(value)
    return items[-1]


def _approx(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-30)


def _is_f32(number: float) -> bool:
    return math.isfinite(number) and to_f32(number) == number


def _compose(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(first[axis] for axis in second)


def _add(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _floor(a: float) -> int:
    return math.floor(a)


def _all_equal(items: Sequence[object], value: object) -> bool:
    return all(item == value for item in items)


FUNCTIONS: Mapping[str, tuple[int, Callable[..., object], str]] = MappingProxyType(
    {
        "rank": (1, _rank, "the number of dimensions of a value"),
        "dim": (2, _dim, "one size of a value; axes below 0 count from the last"),
        "shape": (1, _shape, "all sizes of a value"),
        "dtype": (1, _dtype, "the element type of a value: f32, f16, bf16, i8 or i32"),
        "elements": (1, _elements, "how many elements a value has"),
        "uses": (1, _uses, "how often a value is used"),
        "last": (1, _last, "the last item of a list, or the last size of a value"),
        "present": (1, lambda value: value is not None, "whether an optional operand is there"),
        "approx": (2, _approx, f"whether two numbers differ by at most {TOLERANCE:g} of them"),
        "is_f32": (1, _is_f32, "whether f32 holds a number exactly"),
        "abs": (1, abs, "the size of a number"),
        "min": (2, min, "the smaller of two numbers"),
        "max": (2, max, "the larger of two numbers"),
        "sqrt": (1, math.sqrt, "the square root"),
        "exp": (1, math.exp, "e to a power"),
        "floor": (1, _floor, "the largest whole number that is not above a number"),
        "len": (1, len, "how many items a list has"),
        "product": (1, math.prod, "the product of a list"),
        "range": (1, lambda count: tuple(range(count)), "the list [0, 1, ..., n - 1]"),
        "compose": (2, _compose, "the order of a Permute by the first, then by the second"),
        "add": (2, _add, "the sum of two lists, item by item"),
        "all_equal": (2, _all_equal, "whether all items of a list are a value"),
    }
)
"""Builtin functions: how many arguments, what they do, in words."""

LOWERING_BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "codes": "the int8 codes of a weight, [N, K]",
        "scale": "the scales of a weight's codes, [N, 1]",
    }
)
"""Builtin functions of lowerings that make values."""
