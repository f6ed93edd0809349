"""`tk.matmul`: the compiler's own matrix multiplication as one call, with an epilogue in tiles."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import bdc
from tilewright.dialects.bdc import BinaryFunction, UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import LocalType
from tilewright.dialects.quantization import CodeFormat
from tilewright.passes.kernel_language.recording import (
    Recording,
    current,
    here,
    kernel_error,
    recording_of,
)
from tilewright.passes.kernel_language.tensors import Tensor
from tilewright.passes.kernel_language.tiles import Tile
from tilewright.passes.kernels.matmul import (
    MatMulArguments,
    MatMulViews,
    bias_shape,
    emit,
    problem_of,
)
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_tiles import Epilogue

MakeEpilogue = Callable[[Tile], Tile]
_CHEAP_FUNCTIONS = (UnaryFunction.CAST, UnaryFunction.NEG, UnaryFunction.ABS)


def matmul(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    *,
    zero: Tensor | None = None,
    code_format: CodeFormat = CodeFormat.I8,
    epilogue: MakeEpilogue | None = None,
    transpose_right: bool = True,
) -> None:
    """`y = epilogue(x @ weight^T + bias)`: the whole kernel, with the compiler's tilings.

    `x` is `[..., K]`, `weight` `[N, K]`, or `[K, N]` without `transpose_right`; with `scale` (`[N,
    G]`, and zero points of that shape) codes of `code_format`. `epilogue` computes a tile of the
    f32 sums, element by element, before they are rounded once to the type of `y`; its tile may be
    transposed.

    Raises `IRError` for operands that do not go together, `FitError` where no tiling fits.
    """
    _check(x, weight, scale, bias, y, transpose_right=transpose_right, code_format=code_format)
    if zero is not None:
        _check_zero(zero, scale)
    recording = current()
    views = [None if each is None else each.argument.view for each in (scale, zero, bias)]
    given = MatMulViews(x.argument.view, weight.argument.view, y.argument.view, *views)
    cost = Epilogue() if epilogue is None else epilogue_cost(epilogue, recording.chip)
    problem = problem_of(
        given, channels_are_rows=transpose_right, epilogue=cost, code_format=code_format
    )
    try:
        tiling = choose_tiling(problem, recording.chip)
    except FitError as error:
        error.where = error.where or here()
        raise
    for groups in (scale, zero):
        if groups is not None:
            groups.reshape(problem.n, problem.groups(problem.k))
    if bias is not None:
        bias.reshape(*bias_shape(problem, tiling))
    optional = [None if each is None else each.argument.use(here()) for each in (scale, zero, bias)]
    x_value, weight_value, result = (each.argument.use(here()) for each in (x, weight, y))
    arguments = MatMulArguments(x_value, weight_value, result, *optional)
    last = None if epilogue is None else _on_values(epilogue)
    emit(recording, arguments, problem, tiling, last)


def _on_values(epilogue: MakeEpilogue) -> Callable[[SSAValue], SSAValue]:
    """`epilogue` on the values of tiles."""

    def emit_epilogue(product: SSAValue) -> SSAValue:
        before = Tile(product)
        after = epilogue(before)
        if (after.rows, after.cols, after.replicated) != (before.rows, before.cols, False):
            raise kernel_error(
                f"the epilogue makes {after.describe()} of {before.describe()}",
                hint="it works element by element",
            )
        return after.value

    return emit_epilogue


def _check(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    *,
    transpose_right: bool,
    code_format: CodeFormat,
) -> None:
    product = f"matmul of {x.describe()} and {weight.describe()}"
    n, depth = (weight.rows, weight.cols) if transpose_right else (weight.cols, weight.rows)
    if scale is not None and depth == code_format.row_bytes(x.cols):
        depth = x.cols
    if depth != x.cols or (y.rows, y.cols) != (x.rows, n):
        raise kernel_error(
            f"{product} into {y.describe()}",
            hint="x is [..., K], the weight [N, K] (transpose_right=False: [K, N]), y [..., N]",
        )
    if (weight.dtype.name == "i8") != (scale is not None):
        raise kernel_error(product, hint="int8 codes have a scale [N, 1], other weights none")
    if scale is None and weight.dtype != x.dtype:
        raise kernel_error(product, why="both are of one type")
    if scale is not None:
        groups, left = divmod(scale.rows * scale.cols, n)
        if not transpose_right or left or x.cols % max(groups, 1):
            raise kernel_error(
                f"{product} by {scale.describe()}",
                hint="codes [N, K], scales [N, 1], or [N, G] for groups of K / G",
            )
    if bias is not None and bias.rows * bias.cols != n:
        raise kernel_error(f"{product} with a bias {bias.describe()}", hint=f"[{n}]")


def _check_zero(zero: Tensor, scale: Tensor | None) -> None:
    if zero.dtype.name != "i8" or scale is None or zero.rows * zero.cols != scale.rows * scale.cols:
        raise kernel_error(
            f"matmul with zero points {zero.describe()}", hint="int8, one for each scale"
        )


def epilogue_cost(epilogue: MakeEpilogue, chip: Chip) -> Epilogue:
    """What an epilogue takes: it is traced on a tile of its own."""
    scratch = Recording("epilogue", [], chip)
    with recording_of(scratch):
        first = Tile(scratch.fill(0.0, LocalType.of(chip.lanes, 1, F32)))
        last = epilogue(first).value
    ops = scratch.recorded()[1:]
    if not ops:
        return Epilogue()
    uses = {value: number for number, op in enumerate(ops) for value in op.operands}
    uses[last] = len(ops)
    live = [
        sum(1 for made in ops[: now + 1] if uses.get(made.results[0], -1) >= now)
        for now in range(len(ops))
    ]
    return Epilogue(len(ops), sum(_passes(op, chip) for op in ops), max(live))


def _passes(op: Operation, chip: Chip) -> int:
    """Vector passes of a command."""
    special = isinstance(op, bdc.UnaryOp) and op.function.data not in _CHEAP_FUNCTIONS
    special |= isinstance(op, bdc.BinaryOp) and op.function.data == BinaryFunction.DIV
    return chip.special_function_passes if special else 1
