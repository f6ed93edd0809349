"""The functions of the vector unit, formats of codes, and the attributes that name them."""

from __future__ import annotations

from enum import auto

from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.str_enum import StrEnum

from tilewright.dialects.quantization import CodeFormat


class UnaryFunction(StrEnum):
    """Element functions of the vector unit. `cast` only rounds to the result's type."""

    CAST = auto()
    NEG = auto()
    ABS = auto()
    SQRT = auto()
    RSQRT = auto()
    RECIPROCAL = auto()
    EXP = auto()
    SIGMOID = auto()
    TANH = auto()
    ERF = auto()


class BinaryFunction(StrEnum):
    """Two-operand element functions of the vector unit."""

    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    MAX = auto()
    MIN = auto()


class ReduceFunction(StrEnum):
    """Functions that reduce the columns of a row to one."""

    SUM = auto()
    MAX = auto()
    MIN = auto()


@irdl_attr_definition
class UnaryFunctionAttr(EnumAttribute[UnaryFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.unary`."""

    name = "bdc.unary_function"


@irdl_attr_definition
class BinaryFunctionAttr(EnumAttribute[BinaryFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.binary` or `bdc.scalar`."""

    name = "bdc.binary_function"


@irdl_attr_definition
class ReduceFunctionAttr(EnumAttribute[ReduceFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.reduce`."""

    name = "bdc.reduce_function"


@irdl_attr_definition
class CodeFormatAttr(EnumAttribute[CodeFormat], SpacedOpaqueSyntaxAttribute):
    """What the codes of a `bdc.dequant` are."""

    name = "bdc.code_format"
