"""The base of all `tpu` ops."""

from __future__ import annotations

from typing import ClassVar

from tilewright.dialects.element_types import ELEMENT_TYPES, ElementType
from tilewright.dialects.graph import GraphOp


class TpuOp(GraphOp):
    """An op of `tpu`: tensors hold what the machine stores."""

    ELEMENTS: ClassVar[tuple[ElementType, ...]] = ELEMENT_TYPES
