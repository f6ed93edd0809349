"""Types of the two memories that a kernel sees.

`!gdma.global<512x4096xf16, pitch = 9216>` is a two-dimensional view of global memory: rows of
contiguous elements, `pitch` bytes from one row to the next (left out where rows follow each other
without a gap).

`!bdc.local<384x4096xf16>` is a tile in local memory. Row `r` lies on lane `r mod lanes`, in slot `r
div lanes` of that lane; a slot is rounded up to 64 bytes. `!bdc.local<1x4096xf16, replicated>` is a
single row of which every lane holds a copy. The shape is the largest that the tile can have: a tile
that is loaded across the edge of a global view is cut at the edge, and ops on it work on what is
left.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import UnsupportedError

VECTOR_BYTES = 64
"""Bytes that a lane's vector unit takes a cycle; local slots are rounded up to it."""


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `value`."""
    return -(-value // alignment) * alignment


def _parse_shape(parser: AttrParser) -> tuple[int, int, Attribute]:
    dims, element = parser.parse_ranked_shape()
    if len(dims) != 2:
        parser.raise_error("expected two dimensions: ROWSxCOLUMNSxTYPE")
    return dims[0], dims[1], element


@irdl_attr_definition
class GlobalType(ParametrizedAttribute, TypeAttribute):
    """A two-dimensional view of global memory."""

    name = "gdma.global"

    rows_attr: IntAttr
    cols_attr: IntAttr
    element_type: Attribute
    pitch_attr: IntAttr

    @staticmethod
    def of(
        rows: int, cols: int, element: ElementType, pitch_bytes: int | None = None
    ) -> GlobalType:
        """A view of `rows` x `cols` elements; `pitch_bytes` defaults to contiguous rows."""
        pitch = cols * element.size_bytes if pitch_bytes is None else pitch_bytes
        return GlobalType(IntAttr(rows), IntAttr(cols), element.ir, IntAttr(pitch))

    @property
    def rows(self) -> int:
        return self.rows_attr.data

    @property
    def cols(self) -> int:
        return self.cols_attr.data

    @property
    def element(self) -> ElementType:
        return element_of(self.element_type)

    @property
    def pitch_bytes(self) -> int:
        return self.pitch_attr.data

    @property
    def is_contiguous(self) -> bool:
        return self.rows == 1 or self.pitch_bytes == self.cols * self.element.size_bytes

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the end of the last."""
        return (self.rows - 1) * self.pitch_bytes + self.cols * self.element.size_bytes

    def verify(self) -> None:
        _verify_shape(self.name, self.rows, self.cols, self.element_type)
        if self.pitch_bytes < self.cols * self.element.size_bytes:
            raise VerifyException(
                f"{self.name}: a pitch of {self.pitch_bytes} bytes is shorter than a row "
                f"of {self.cols * self.element.size_bytes} bytes"
            )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            rows, cols, element = _parse_shape(parser)
            pitch = cols * element_of(element).size_bytes
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("pitch")
                parser.parse_punctuation("=")
                pitch = parser.parse_integer(allow_negative=False, allow_boolean=False)
        return [IntAttr(rows), IntAttr(cols), element, IntAttr(pitch)]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.rows}x{self.cols}x{self.element.name}")
            if self.pitch_bytes != self.cols * self.element.size_bytes:
                printer.print_string(f", pitch = {self.pitch_bytes}")


@irdl_attr_definition
class LocalType(ParametrizedAttribute, TypeAttribute):
    """A tile in local memory, its rows spread over the lanes."""

    name = "bdc.local"

    rows_attr: IntAttr
    cols_attr: IntAttr
    element_type: Attribute
    replicated_attr: IntAttr

    @staticmethod
    def of(rows: int, cols: int, element: ElementType, *, replicated: bool = False) -> LocalType:
        """A tile of at most `rows` x `cols` elements."""
        return LocalType(IntAttr(rows), IntAttr(cols), element.ir, IntAttr(int(replicated)))

    @property
    def rows(self) -> int:
        return self.rows_attr.data

    @property
    def cols(self) -> int:
        return self.cols_attr.data

    @property
    def element(self) -> ElementType:
        return element_of(self.element_type)

    @property
    def replicated(self) -> bool:
        return bool(self.replicated_attr.data)

    @property
    def slot_bytes(self) -> int:
        """Bytes from one row of a lane to the lane's next row."""
        return align_up(self.cols * self.element.size_bytes, VECTOR_BYTES)

    def lane_bytes(self, lanes: int) -> int:
        """Bytes that the tile takes in each of `lanes` lanes."""
        slots = self.rows if self.replicated else -(-self.rows // lanes)
        return slots * self.slot_bytes

    def verify(self) -> None:
        _verify_shape(self.name, self.rows, self.cols, self.element_type)
        if self.replicated and self.rows != 1:
            raise VerifyException(f"{self.name}: a replicated tile has one row, not {self.rows}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            rows, cols, element = _parse_shape(parser)
            replicated = False
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("replicated")
                replicated = True
        return [IntAttr(rows), IntAttr(cols), element, IntAttr(int(replicated))]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.rows}x{self.cols}x{self.element.name}")
            if self.replicated:
                printer.print_string(", replicated")


def _verify_shape(name: str, rows: int, cols: int, element: Attribute) -> None:
    if rows < 1 or cols < 1:
        raise VerifyException(f"{name}: needs at least one row and one column, has {rows}x{cols}")
    try:
        element_of(element)
    except UnsupportedError as error:
        raise VerifyException(f"{name}: {error.what}") from error
