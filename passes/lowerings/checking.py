"""What a lowering must give; what it gave instead is an error that names it."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Block, Operation, SSAValue

from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import where_of
from tilewright.passes.lowerings.conversion import Conversion, Mark
from tilewright.passes.lowerings.registry import Lowering


def check_lowered(
    lowering: Lowering, op: Operation, results: object, convert: Conversion, mark: Mark
) -> None:
    """Check what `lowering` has given for `op`, and the ops that it has appended since `mark`.

    Raises `IRError` unless there is a value of the new function and of the right shape for each
    result, and the ops read values of the new function.
    """

    def refuse(what: str, why: str | None = None, hint: str | None = None) -> IRError:
        message = f"lowering {lowering.name} {what}"
        return IRError(message, where=where_of(op), why=why, hint=hint)

    if not isinstance(results, Sequence) or not all(isinstance(r, SSAValue) for r in results):
        raise refuse(
            f"returns {_described(results)}, not values for the results of {op.name}",
            hint="return convert.append(new_op, op), or a list of values, or None",
        )
    given = [shape_of(result) for result in results]
    needed = [shape_of(result) for result in op.results]
    if given != needed:
        raise refuse(
            f"gives {_shapes(given)} for the results of {op.name}",
            f"the op's results are {_shapes(needed)}",
        )
    for new in convert.since(mark):
        for operand in new.operands:
            if not _is_in(operand, convert.block):
                raise refuse(
                    f"appends a {new.name} that reads a value from elsewhere",
                    hint="read operands by convert.read(value, convert.compute), and append every "
                    "op that is read",
                )
    if not all(_is_in(result, convert.block) for result in results):
        raise refuse(
            f"gives a value from elsewhere for a result of {op.name}",
            hint="append the op that makes it by convert.append(new_op, op)",
        )


def _is_in(value: SSAValue, block: Block) -> bool:
    owner = value.owner
    return owner is block or owner.parent is block


def _described(value: object) -> str:
    return f"the op {value.name}" if isinstance(value, Operation) else f"{value!r}"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes) or "nothing"
