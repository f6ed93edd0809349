"""How conditions compare: floats in f32, as attributes hold them.

`where value == 0.1` asks what `{value: 0.1}` asks. The attribute holds the f32 nearest to 0.1,
which is another number than the float64 nearest to it: in float64 they would never be equal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tilewright.passes.rules.values import same_constant, to_f32


def _in_f32(compare: Callable[..., bool]) -> Callable[[object, object], bool]:
    """`compare` in f32 where one of both is a float; of all else as it is."""

    def compared(left: object, right: object) -> bool:
        match left, right:
            case (float(), int() | float()) | (int(), float()):
                return compare(to_f32(left), to_f32(right))
            case _:
                return compare(left, right)

    return compared


def _differs(left: object, right: object) -> bool:
    return not same_constant(left, right)


def _contains(left: object, right: object) -> bool:
    return isinstance(right, tuple) and any(same_constant(left, item) for item in right)


COMPARISONS: Mapping[str, Callable[[object, object], bool]] = MappingProxyType(
    {
        "==": same_constant,
        "!=": _differs,
        "in": _contains,
        "<": _in_f32(operator.lt),
        "<=": _in_f32(operator.le),
        ">": _in_f32(operator.gt),
        ">=": _in_f32(operator.ge),
    }
)
"""By their signs; those by order raise `TypeError` where there is none."""
