"""The base of all `top` ops."""

from __future__ import annotations

from typing import ClassVar

from tilewright.dialects.element_types import F32, I32, ElementType
from tilewright.dialects.graph import GraphOp


class TopOp(GraphOp):
    """An op of `top`: floats are f32, integers i32."""

    ELEMENTS: ClassVar[tuple[ElementType, ...]] = (F32, I32)
