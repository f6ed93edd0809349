"""Records and arguments in a `bdc.program`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from tilewright.dialects.bdc.program import AccessMode, ArgumentAttr, ProgramOp
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.element_types import F16
from tilewright.dialects.memory_types import GlobalType


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_records_round_trip(gdma: bytes, bdc: bytes) -> None:
    view = GlobalType.of(4, 8, F16, 32)
    arguments = [ArgumentAttr.of(access, view) for access in AccessMode]
    program = ProgramOp("k", "tpu.Add", arguments, gdma=gdma, bdc=bdc, local_bytes=64)
    module = ModuleOp([program])
    module.verify()
    parsed = parse_module(print_module(module), "m.mlir")
    assert parsed.is_structurally_equivalent(module)
    (again,) = parsed.ops
    assert isinstance(again, ProgramOp)
    assert (again.gdma.data, again.bdc.data) == (gdma, bdc)
    assert [argument.access for argument in again.arguments] == ["read", "write", "update"]
    assert all(argument.view == view for argument in again.arguments)
