"""Functions on balls at every stage: ops, launches of kernels, and launches of emitted programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.passes.kernels.checking import chip_file, element_of
from tests.passes.kernels.test_every_kernel import CASES
from tests.passes.lowering import run as simulate
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.parser import Parser
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.backends.reference.composition import FLOAT64, MACHINE, Arithmetic, Ball
from tilewright.backends.reference.executor import (
    SemanticsName,
    run_function,
    run_with_bounds,
)
from tilewright.backends.reference.slices import is_view
from tilewright.dialects import bdc, graph, tpu
from tilewright.dialects.bdc.functions import UnaryFunctionAttr
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F32, tensor_type
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.memory_types import GlobalType
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass
from tilewright.passes.views import view_of

Array = NDArray[Any]

ARITHMETICS = (FLOAT64, MACHINE)


def no_weights(key: str, op: Operation) -> Array:
    raise AssertionError((key, op))


def parse(text: str) -> ModuleOp:
    module = Parser(make_context(), text).parse_module()
    module.verify()
    return module


def kernel_passes(chip: str = "bm1684x") -> tuple[ModulePass, ...]:
    return TileForLocalMemoryPass(chip), DoubleBufferPass(), AllocateLocalMemoryPass(chip)


def apply(module: ModuleOp, *passes: ModulePass) -> None:
    for each in passes:
        each.apply(make_context(), module)
    module.verify()


def bounded(
    module: ModuleOp,
    inputs: Sequence[Array | Ball],
    m: Arithmetic = FLOAT64,
    states: dict[str, Ball] | None = None,
    name: str = "main",
    **options: Any,
) -> list[Ball]:
    kept = {} if states is None else states
    return run_with_bounds(
        module, name, inputs, weights=no_weights, states=kept, arithmetic=m, **options
    )


def agree(one: Ball, other: Ball) -> bool:
    both_undefined = np.isnan(one.value) & np.isnan(other.value)
    near = np.abs(one.value - other.value) <= one.radii + other.radii
    return bool(np.all(near | both_undefined))


def module_of(build: Any, arrays: Sequence[Array]) -> ModuleOp:
    """`main` with one op on its arguments."""
    block = Block(arg_types=[tensor_type(array.shape, element_of(array)) for array in arrays])
    op: Operation = build(*block.args)
    block.add_ops([op, func.ReturnOp(op.results[0])])
    types: list[Attribute] = [argument.type for argument in block.args]
    return ModuleOp([func.FuncOp("main", (types, [op.results[0].type]), Region(block))])


@pytest.mark.parametrize("m", ARITHMETICS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
def test_every_kernel_means_its_op(name: str, m: Arithmetic, tmp_path: Path) -> None:
    """At every stage, on tiles of some size and of a very small one."""
    build, arrays = CASES[name]
    before = [array.copy() for array in arrays]
    for chip in ("bm1684x", chip_file(tmp_path, 16384)):
        module = module_of(build, arrays)
        (op,) = bounded(module, arrays, m)
        limit = (1e-12 if m is FLOAT64 else 0.01) * np.nanmax(np.abs(op.value))
        assert np.nanmax(op.radii) <= limit
        for each in kernel_passes(chip):
            apply(module, each)
            (kernel,) = bounded(module, arrays, m)
            assert agree(op, kernel), each.name
            assert np.nanmax(kernel.radii) <= limit
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", ["tpu.MatMul", "tpu.RMSNorm", "tpu.Attention", "tpu.SiLU"])
def test_operands_with_errors(name: str) -> None:
    """Balls that come in: kernel and op agree on what they lead to, within a factor."""
    build, arrays = CASES[name]
    balls = [Ball(a.astype(np.float64), 1e-6 * np.abs(a.astype(np.float64))) for a in arrays]
    module = module_of(build, arrays)
    (op,) = bounded(module, balls)
    apply(module, *kernel_passes())
    (kernel,) = bounded(module, balls)
    assert agree(op, kernel)
    assert np.max(kernel.radii) < 10 * np.max(op.radii)
    assert np.max(op.radii) > 1e-7


def test_a_wrong_function_is_out_of_bound() -> None:
    build, arrays = CASES["tpu.SiLU"]
    module = module_of(build, arrays)
    (op,) = bounded(module, arrays)
    apply(module, TileForLocalMemoryPass())
    for found in [o for o in module.walk() if isinstance(o, bdc.UnaryOp)]:
        found.function = UnaryFunctionAttr(bdc.UnaryFunction.TANH)
    assert not agree(op, bounded(module, arrays)[0])


def test_a_product_the_wrong_way_round_is_out_of_bound() -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 1, 60, 60))
    module = module_of(tpu.BatchMatMulOp, [a.astype(np.float32), b.astype(np.float32)])
    (op,) = bounded(module, [a, b])
    apply(module, TileForLocalMemoryPass())
    assert agree(op, bounded(module, [a, b])[0])
    for found in [o for o in module.walk() if isinstance(o, bdc.MmOp | bdc.MmAccumulateOp)]:
        last = len(found.operands) - 1
        left, right = found.left, found.right
        found.operands[last - 1], found.operands[last] = right, left
    assert not agree(op, bounded(module, [a, b])[0])


# Views.

VIEWS = """
func.func @main(%x : tensor<6x24xf32>, %cos : tensor<6x4xf32>) -> tensor<6x8xf32> {
  %left = tpu.Slice %x {offsets = array<i64: 0, 8>} : tensor<6x24xf32> -> tensor<6x8xf32>
  %heads = tpu.Reshape %left : tensor<6x8xf32> -> tensor<2x3x8xf32>
  %flat = tpu.Reshape %heads : tensor<2x3x8xf32> -> tensor<6x8xf32>
  %y = tpu.Rope %flat cos %cos sin %cos
    {num_heads = 2 : i64, rotary_dim = 4 : i64, interleaved = true} :
    tensor<6x8xf32>, tensor<6x4xf32>, tensor<6x4xf32> -> tensor<6x8xf32>
  %part = tpu.Slice %y {offsets = array<i64: 2, 0>} : tensor<6x8xf32> -> tensor<2x8xf32>
  %z = tpu.SiLU %part : tensor<2x8xf32> -> tensor<2x8xf32>
  %r = tpu.Concat %y, %z {axis = 0 : i64} : tensor<6x8xf32>, tensor<2x8xf32> -> tensor<8x8xf32>
  %s = tpu.Slice %r {offsets = array<i64: 2, 0>} : tensor<8x8xf32> -> tensor<6x8xf32>
  func.return %s : tensor<6x8xf32>
}
"""


def view_inputs() -> list[Array]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((6, 24)), rng.standard_normal((6, 4))]


def test_kernels_see_pitched_operands() -> None:
    """RoPE's kernel views 6 rows of 2 heads, 96 bytes apart, as rows of one head."""
    module = parse(VIEWS)
    (op,) = bounded(module, view_inputs())
    apply(module, TileForLocalMemoryPass())
    pitched = [
        argument
        for function in module.ops
        if isinstance(function, func.FuncOp)
        for argument in function.body.block.args
        if isinstance(argument.type, GlobalType) and argument.type.rows * argument.type.cols > 48
    ]
    assert pitched
    (kernel,) = bounded(module, view_inputs())
    assert agree(op, kernel)
    # One row less: the last heads would not be reached.
    view = pitched[0].type
    assert isinstance(view, GlobalType)
    Rewriter.replace_value_with_new_type(pitched[0], GlobalType.of(view.rows - 1, view.cols, F32))
    with pytest.raises(IRError, match="argument 0 of @rope") as info:
        bounded(module, view_inputs())
    assert info.value.why == "its tensor is 6x8xf32, rows 96 bytes apart"


@settings(max_examples=60)
@given(data=st.data())
def test_slices_are_views_where_the_passes_say_so(data: st.DataObject) -> None:
    """Two slices in a row, and something that may need rows without gaps."""
    draw = data.draw
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    block = Block(arg_types=[tensor_type(shape, F32)])
    value: SSAValue = block.args[0]
    array = np.zeros(shape)
    ops: list[graph.Slice] = []
    for _ in range(2):
        now = graph.shape_of(value)
        sizes = tuple(draw(st.integers(1, size)) for size in now)
        offsets = tuple(draw(st.integers(0, n - s)) for n, s in zip(now, sizes, strict=True))
        ops.append(tpu.SliceOp(value, offsets, sizes))
        value = ops[-1].results[0]
    block.add_ops(ops)
    last = graph.shape_of(value)
    user = draw(st.sampled_from(["kernel", "return", "flat", "heads"]))
    if user == "kernel":
        block.add_op(tpu.NegOp(value))
    elif user == "return":
        block.add_op(func.ReturnOp(value))
    else:
        flat = (int(np.prod(last)),) if user == "flat" else (1, *last)
        block.add_op(tpu.ReshapeOp(value, flat))
    for op in ops:
        expected = view_of(op.result).root is not op.result
        assert is_view(op, array) == expected
        at = tuple(
            slice(o, o + s)
            for o, s in zip(op.offsets.get_values(), graph.shape_of(op.result), strict=True)
        )
        array = array[at] if expected else array[at].copy()


# States, calls, programs.

STATES = """
func.func @main(%rows : tensor<1x4xf32>, %at : tensor<1xi32>) -> tensor<3x4xf32> {
  %h = tpu.Call @layer(%rows, %at) {scopes = ["a.", "b."]} :
    (tensor<1x4xf32>, tensor<1xi32>) -> tensor<1x4xf32>
  %cache = tpu.State "last" : tensor<3x4xf32>
  %new = tpu.CacheUpdate %cache, %h at %at :
    tensor<3x4xf32>, tensor<1x4xf32>, tensor<1xi32> -> tensor<3x4xf32>
  %y = tpu.Neg %new : tensor<3x4xf32> -> tensor<3x4xf32>
  func.return %y : tensor<3x4xf32>
}
func.func private @layer(%x : tensor<1x4xf32>, %at : tensor<1xi32>) -> tensor<1x4xf32> {
  %k = tpu.State "k" : tensor<3x4xf32>
  %n = tpu.CacheUpdate %k, %x at %at :
    tensor<3x4xf32>, tensor<1x4xf32>, tensor<1xi32> -> tensor<3x4xf32>
  %s = tpu.MulConst %x {value = 3.0 : f32} : tensor<1x4xf32> -> tensor<1x4xf32>
  func.return %s : tensor<1x4xf32>
}
"""


def syntax_of_states() -> ModuleOp:
    return parse(STATES)


@pytest.mark.parametrize("tiled", [False, True])
def test_states_live_between_runs(tiled: bool) -> None:
    """Updated in place under their scopes; what was given stays as it is."""
    module = syntax_of_states()
    if tiled:
        apply(module, *kernel_passes())
    given_state = Ball(np.full((3, 4), 7.0), np.full((3, 4), 0.5))
    states = {"last": given_state}
    row = np.array([[1.0, 2.0, 3.0, 4.0]])
    for position in (0, 2):
        (result,) = bounded(module, [row, np.array([position], np.int32)], states=states)
    np.testing.assert_array_equal(result.value[[0, 2]], np.vstack([-9 * row, -9 * row]))
    np.testing.assert_array_equal(result.value[1], -7)
    assert result.radius[1, 0] == 0.5
    assert np.all(result.radius[[0, 2]] < 1e-10)
    np.testing.assert_array_equal(states["b.k"].value[[0, 2]], np.vstack([3 * row, 3 * row]))
    assert np.isnan(states["a.k"].value[1]).all()
    assert (given_state.value == 7).all()


def test_every_op_is_seen() -> None:
    module = syntax_of_states()
    names: list[str] = []
    bounded(
        module,
        [np.ones((1, 4)), np.array([1], np.int32)],
        on_op=lambda op, scope, inputs, outputs: names.append(scope + op.name),
    )
    layer = ["tpu.CacheUpdate", "tpu.MulConst"]
    calls = [scope + name for scope in ("a.", "b.") for name in layer]
    assert names == [*calls, "tpu.CacheUpdate", "tpu.Neg"]


def test_emitted_programs_go_to_the_callback() -> None:
    """One kernel is emitted, the others are still functions or ops; the simulator runs it."""
    build, arrays = CASES["tpu.RMSNorm"]
    module = module_of(build, arrays)
    (op,) = bounded(module, arrays, MACHINE)
    apply(module, *kernel_passes(), InsertWaitsPass(), EmitCommandsPass())

    def run_program(program: ProgramOp, balls: list[Ball]) -> list[Ball]:
        kernel = kernel_of(program)
        given_arrays = [
            ball.value.reshape(argument.rows, argument.cols).astype(argument.element.dtype)
            for ball, argument in zip(balls, kernel.arguments, strict=True)
        ]
        after = simulate(kernel, given_arrays, "early")
        shapes = [ball.value.shape for ball in balls]
        return [Ball.exact(a.reshape(s)) for a, s in zip(after, shapes, strict=True)]

    (ran,) = bounded(module, arrays, MACHINE, run_program=run_program)
    assert agree(op, ran)
    with pytest.raises(IRError, match=r"is a bdc.program, and nothing here runs one") as info:
        bounded(module, arrays)
    assert "run_program" in str(info.value.hint)


# The same as run_function, and errors.


def test_values_are_those_of_the_array_run() -> None:
    rng = np.random.default_rng(0)
    x, cos = rng.standard_normal((6, 24)).astype(np.float32), np.ones((6, 4), np.float32)
    module = parse(VIEWS)
    names: dict[Arithmetic, SemanticsName] = {FLOAT64: "float64", MACHINE: "typed"}
    for m, semantics in names.items():
        (ball,) = bounded(module, [x, cos], m)
        (array,) = run_function(
            module, "main", [x, cos], weights=no_weights, states={}, semantics=semantics
        )
        np.testing.assert_allclose(ball.value, array.astype(np.float64), rtol=1e-12)


def test_errors() -> None:
    module = parse(VIEWS)
    with pytest.raises(OptionError, match=r"input 0 of @main is float64\[6, 23\]"):
        bounded(module, [np.ones((6, 23)), np.ones((6, 4))])
    with pytest.raises(OptionError, match="takes 2 inputs, not 1"):
        bounded(module, [np.ones((6, 24))])
    with pytest.raises(IRError, match="no function @other"):
        bounded(module, [], name="other")
    launch = parse(
        """func.func @main(%x : tensor<2x2xf32>) -> tensor<2x2xf32> {
          %y = tpu.Launch @gone(%x) : (tensor<2x2xf32>) -> tensor<2x2xf32>
          func.return %y : tensor<2x2xf32> }"""
    )
    with pytest.raises(IRError, match="no kernel @gone"):
        bounded(launch, [np.ones((2, 2))])
