"""`bdc.program`: a kernel as the machine takes it, the encoded records of both engines.

`emit-commands` makes one out of every kernel function. Its records are bytes (the layout is that of
`tilewright.backends.encoding.records`), printed as hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import auto

from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, StringAttr, SymbolNameConstraint, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Data, ParametrizedAttribute, SpacedOpaqueSyntaxAttribute
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    prop_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import SymbolOpInterface
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from tilewright.dialects.memory_types import GlobalType


class AccessMode(StrEnum):
    """What a kernel does with the view of an argument."""

    READ = auto()
    WRITE = auto()
    UPDATE = auto()


@irdl_attr_definition
class AccessModeAttr(EnumAttribute[AccessMode], SpacedOpaqueSyntaxAttribute):
    """The access of a kernel to an argument."""

    name = "bdc.access"


@irdl_attr_definition
class ArgumentAttr(ParametrizedAttribute):
    """An argument of a program: `#bdc.argument<read, !gdma.global<512x4096xf16>>`."""

    name = "bdc.argument"

    access_attr: AccessModeAttr
    view: GlobalType

    @staticmethod
    def of(access: AccessMode | str, view: GlobalType) -> ArgumentAttr:
        """The argument that looks at global memory through `view`."""
        return ArgumentAttr(AccessModeAttr(AccessMode(access)), view)

    @property
    def access(self) -> AccessMode:
        return self.access_attr.data

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[AccessModeAttr | GlobalType]:
        with parser.in_angle_brackets():
            access = parser.parse_str_enum(AccessMode)
            parser.parse_punctuation(",")
            view = parser.parse_attribute()
            if not isinstance(view, GlobalType):
                parser.raise_error("expected a view of global memory: !gdma.global<...>")
        return [AccessModeAttr(access), view]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.access}, ")
            printer.print_attribute(self.view)


@irdl_attr_definition
class RecordsAttr(Data[bytes]):
    """Encoded records: `#bdc.records<"00ff">`, two hexadecimal digits a byte."""

    name = "bdc.records"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> bytes:
        with parser.in_angle_brackets():
            digits = parser.parse_str_literal()
            try:
                return bytes.fromhex(digits)
            except ValueError:
                parser.raise_error("records are not pairs of hexadecimal digits")

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f'"{self.data.hex()}"')


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """A kernel in encoded records.

    ```mlir
    bdc.program @matmul_0 {op = "tpu.MatMul",
      arguments = [#bdc.argument<read, !gdma.global<512x4096xf16>>,
                   #bdc.argument<read, !gdma.global<4096x256xf16, pitch = 1024>>,
                   #bdc.argument<write, !gdma.global<512x256xf16>>],
      gdma = #bdc.records<"0001feff">, bdc = #bdc.records<"">, local_bytes = 65536 : i64}
    ```

    `op` is the op that it computes, `arguments` the views of global memory that it is launched
    with, `local_bytes` how much of every lane's local memory it uses.

    Invariants:

    - `bdc.program: local_bytes is B, not 0 or more`
    - `bdc.program: writes none of its arguments`
    """

    name = "bdc.program"

    sym_name = prop_def(SymbolNameConstraint())
    op = prop_def(StringAttr)
    arguments = prop_def(ArrayAttr[ArgumentAttr])
    gdma = prop_def(RecordsAttr)
    bdc = prop_def(RecordsAttr)
    local_bytes = prop_def(IntegerAttr.constr(i64))

    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name attr-dict"

    def __init__(
        self,
        sym_name: str,
        op: str,
        arguments: Sequence[ArgumentAttr],
        *,
        gdma: bytes,
        bdc: bytes,
        local_bytes: int,
    ) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(sym_name),
                "op": StringAttr(op),
                "arguments": ArrayAttr(arguments),
                "gdma": RecordsAttr(gdma),
                "bdc": RecordsAttr(bdc),
                "local_bytes": IntegerAttr(local_bytes, i64),
            }
        )

    def verify_(self) -> None:
        local_bytes = self.local_bytes.value.data
        if local_bytes < 0:
            raise VerifyException(f"{self.name}: local_bytes is {local_bytes}, not 0 or more")
        if all(argument.access == AccessMode.READ for argument in self.arguments):
            raise VerifyException(f"{self.name}: writes none of its arguments")
