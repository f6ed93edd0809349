"""What the ops of `bdc` share: the attributes that passes add, and checks of tiles."""

from __future__ import annotations

from xdsl.dialects.builtin import I32, DenseArrayBase
from xdsl.ir import SSAValue
from xdsl.irdl import IRDLOperation, opt_prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.memory_types import LocalType


class BdcOp(IRDLOperation):
    """An op that is a command of the compute engine."""

    waits = opt_prop_def(DenseArrayBase.constr(I32))


class TileOp(BdcOp):
    """A command whose result is a tile of its own."""

    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))


def local(value: SSAValue) -> LocalType:
    """The type of a tile."""
    assert isinstance(value.type, LocalType)
    return value.type


def require_floats(op: IRDLOperation) -> None:
    """Raises `VerifyException` unless every operand and result of `op` is floating point."""
    values = (*op.operands, *op.results)
    floats = all(
        value.type.element.is_float for value in values if isinstance(value.type, LocalType)
    )
    require(floats, f"{op.name} works on floating point")


def require(condition: bool, message: str) -> None:
    """Raises `VerifyException` with `message` unless `condition` holds."""
    if not condition:
        raise VerifyException(message)
