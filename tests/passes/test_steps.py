"""A pass that is held back after any of its steps leaves a module that computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_CHATGLM, TINY_LLAMA, model_of
from tests.passes.lowering import KERNELS, PASSES, emitted, expected, inputs_of
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from tilewright.backends.reference.balls import FLOAT64, Ball
from tilewright.backends.reference.executor import run_function, run_with_bounds
from tilewright.backends.reference.kernels import run_kernel
from tilewright.compiler.pipeline import CompileOptions, kernel_passes, lower
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.dialects import top, tpu
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.scopes import functions_of
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.kernels.commands import kernels_of
from tilewright.passes.lowerings import Conversion, Lowering, temporarily
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

Array = npt.NDArray[Any]

SEQ = 8
QUANTS = ("f32", "f16", "bf16", "w8a16")
CONFIGS = {"chatglm": TINY_CHATGLM, "llama": TINY_LLAMA}


@dataclass
class HoldBack(Watcher):
    """Lets the first `limit` steps pass; remembers all, and what the steps have made."""

    limit: int | None = None
    begun: list[str] = field(default_factory=list[str])
    ended: int = 0
    made: list[Operation] = field(default_factory=list[Operation])

    def begin(self, pattern: str, op: Operation) -> bool:
        assert op.parent is not None, "a step begins at an op that stands in the module"
        self.begun.append(pattern)
        return self.limit is None or len(self.begun) <= self.limit

    def end(self, new_ops: Sequence[Operation]) -> None:
        self.ended += 1
        self.made += new_ops


def held_back(module: ModuleOp, pass_: ModulePass, limit: int | None) -> tuple[ModuleOp, HoldBack]:
    """A verified copy of `module` after the first `limit` steps of `pass_`."""
    copy, watcher = module.clone(), HoldBack(limit)
    with watching(watcher):
        pass_.apply(make_context(), copy)
    verify_module(copy)
    assert watcher.ended == (
        len(watcher.begun) if limit is None else min(limit, len(watcher.begun))
    )
    return copy, watcher


def numbers(module: ModuleOp, inputs: GeneratedInputs) -> dict[str, list[Array]]:
    """What each public function computes in float64, and the states as it leaves them."""
    found: dict[str, list[Array]] = {}
    for name in inputs.functions:
        states = inputs.states(module, name)
        results = run_function(
            module,
            name,
            inputs.arguments(functions_of(module)[name]),
            weights=inputs.weight,
            states=states,
            semantics="float64",
        )
        found[name] = [*results, *(states[key] for key in sorted(states))]
    return found


def assert_equal_numbers(module: ModuleOp, inputs: GeneratedInputs, expected: ModuleOp) -> None:
    for name, arrays in numbers(expected, inputs).items():
        for new, old in zip(numbers(module, inputs)[name], arrays, strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


def signatures(module: ModuleOp) -> dict[str, str]:
    return {name: str(function.function_type) for name, function in functions_of(module).items()}


def some(count: int) -> list[int]:
    """Some numbers of steps from none to all."""
    return sorted({0, min(1, count), count // 3, count // 2, max(count - 1, 0), count})


# convert-top-to-tpu


@cache
def traced(config: str) -> ModuleOp:
    return model_of(CONFIGS[config], SEQ).trace()


def conversion(quant: str) -> ConvertTopToTpuPass:
    everything = quant == "w8a16"
    return ConvertTopToTpuPass(
        quant=quant, quant_head=everything, quant_embedding=everything, act="bf16"
    )


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("config", CONFIGS)
def test_a_conversion_that_is_held_back_computes_the_same(config: str, quant: str) -> None:
    module, pass_ = traced(config), conversion(quant)
    inputs = GeneratedInputs(module)
    full, watcher = held_back(module, pass_, None)
    assert watcher.ended == len(watcher.begun) > 20
    for limit in some(len(watcher.begun)):
        mixed, _ = held_back(module, pass_, limit)
        assert signatures(mixed) == signatures(full)
        assert_equal_numbers(mixed, inputs, module)


def test_what_is_held_back_is_as_it_was() -> None:
    """Without a step there are only `top` ops, and the casts between them and what stays tpu."""
    mixed, watcher = held_back(traced("chatglm"), conversion("w8a16"), 0)
    assert watcher.made == []
    names = {op.name for op in mixed.walk() if op.name.startswith("tpu.")}
    assert names == {"tpu.Cast", "tpu.Call"}
    weights = [op for op in mixed.walk() if isinstance(op, top.WeightOp)]
    assert weights


def test_each_step_makes_the_ops_that_stand_in_the_result() -> None:
    full, watcher = held_back(traced("chatglm"), conversion("w8a16"), None)
    made = {op.name for op in watcher.made}
    assert made == {op.name for op in full.walk() if op.name.startswith("tpu.")} - {
        "tpu.Call",
        "tpu.State",
    }
    assert {"LowerMatMulToW8A16", "LowerGatherToW8A16", "LowerRope"} <= set(watcher.begun)


STATE = """
func.func @main(%rows: tensor<2x8xf32>, %at: tensor<2xi32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %cache = top.State "cache" : tensor<4x8xf32>
  BEFORE
  %new = top.CacheUpdate %cache, %rows at %at :
    tensor<4x8xf32>, tensor<2x8xf32>, tensor<2xi32> -> tensor<4x8xf32>
  %last = top.CacheUpdate %new, %rows at %at :
    tensor<4x8xf32>, tensor<2x8xf32>, tensor<2xi32> -> tensor<4x8xf32>
  %y = top.Neg %last : tensor<4x8xf32> -> tensor<4x8xf32>
  AFTER
}
"""


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("limit", range(5))
def test_a_cache_is_written_in_place_whatever_is_held_back(limit: int, read_before: bool) -> None:
    """A cast is a copy: an update of one would be lost."""
    read = "%b = top.Exp %cache : tensor<4x8xf32> -> tensor<4x8xf32>" if read_before else ""
    result = "%b" if read_before else "%y"
    back = f"func.return %y, {result} : tensor<4x8xf32>, tensor<4x8xf32>"
    module = parse_module(STATE.replace("BEFORE", read).replace("AFTER", back), "test.mlir")
    verify_module(module)
    mixed, _ = held_back(module, ConvertTopToTpuPass(quant="f16"), limit)
    assert_equal_numbers(mixed, GeneratedInputs(module), module)


@dataclass
class Only(Watcher):
    """Lets the steps pass that are, or are not, of a pattern."""

    pattern: str
    wanted: bool

    def begin(self, pattern: str, op: Operation) -> bool:
        del op
        return (pattern == self.pattern) == self.wanted


@pytest.mark.parametrize("pattern", ["LowerToSameOp", "LowerMatMulToW8A16", "LowerSlice"])
def test_any_choice_of_steps_computes_the_same(pattern: str) -> None:
    """Not only the first n: all steps of one lowering, the rest held back, and the other way."""
    module = traced("chatglm")
    for wanted in (True, False):
        mixed = module.clone()
        with watching(Only(pattern, wanted)):
            conversion("w8a16").apply(make_context(), mixed)
        verify_module(mixed)
        assert_equal_numbers(mixed, GeneratedInputs(module), module)


def test_a_cache_that_was_kept_is_not_written_through_a_cast_later() -> None:
    class AllButTheFirst(Watcher):
        begun = 0

        def begin(self, pattern: str, op: Operation) -> bool:
            self.begun += 1
            return self.begun > 1

    back = "func.return %y, %y : tensor<4x8xf32>, tensor<4x8xf32>"
    text = STATE.replace("BEFORE", "").replace("AFTER", back)
    module = parse_module(text, "test.mlir")
    mixed = module.clone()
    with watching(AllButTheFirst()):
        ConvertTopToTpuPass(quant="f16").apply(make_context(), mixed)
    verify_module(mixed)
    assert_equal_numbers(mixed, GeneratedInputs(module), module)
    names = [op.name for op in functions_of(mixed)["main"].walk()]
    assert names.count("top.CacheUpdate") == 2
    assert "tpu.Neg" in names


def test_a_lowering_that_raises_does_so_only_where_it_is_not_held_back() -> None:
    def fail(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        convert.append(tpu.CastOp(convert.read(op.operands[0]), convert.compute), op)
        raise RuntimeError("planted")

    module, pass_ = traced("llama"), conversion("f16")
    with temporarily(Lowering("Planted", top.RopeOp, fail, benefit=9)):
        with pytest.raises(RuntimeError, match="planted"):
            held_back(module, pass_, None)
        counted = HoldBack()
        with watching(counted), pytest.raises(RuntimeError):
            pass_.apply(make_context(), module.clone())
        assert counted.begun[-1] == "Planted"
        mixed, _ = held_back(module, pass_, len(counted.begun) - 1)
        assert_equal_numbers(mixed, GeneratedInputs(module), module)


def test_a_wrong_lowering_shows_from_its_step_on() -> None:
    """What these tests would not see, they could not vouch for."""

    def wrong(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        return convert.append(tpu.NegOp(convert.read(op.operands[0], convert.compute)), op)

    module, pass_ = traced("llama"), conversion("f16")
    inputs = GeneratedInputs(module)
    with temporarily(Lowering("Wrong", top.SiLUOp, wrong, benefit=9)):
        _, watcher = held_back(module, pass_, None)
        first = watcher.begun.index("Wrong")
        assert_equal_numbers(held_back(module, pass_, first)[0], inputs, module)
        with pytest.raises(AssertionError):
            assert_equal_numbers(held_back(module, pass_, first + 1)[0], inputs, module)


# The kernel passes

PATTERNS = {
    "tile-for-local-memory": {"BuildKernel"},
    "double-buffer": {"InlineLoop", "PipelineLoop"},
    "allocate-local-memory": {"PlaceTiles"},
    "insert-waits": {"InsertWaits"},
    "emit-commands": {"EncodeKernel"},
}


def executed(module: ModuleOp, inputs: GeneratedInputs) -> dict[str, list[Array]]:
    """What each public function of a module of any stage computes, and the states afterwards."""
    found: dict[str, list[Array]] = {}
    for name in inputs.functions:
        arrays = inputs.states(module, name)
        states = {key: Ball.exact(array) for key, array in arrays.items()}
        results = run_with_bounds(
            module,
            name,
            inputs.arguments(functions_of(module)[name]),
            weights=inputs.weight,
            states=states,
        )
        balls = [*results, *(states[key] for key in sorted(states))]
        found[name] = [ball.value for ball in balls]
    return found


CONSTANTS = 1e-5
"""What the f32 constants of kernels (1 / C of a mean) may change, of values up to some tens."""


@pytest.mark.parametrize(("config", "quant"), [("chatglm", "w8a16"), ("llama", "f32")])
def test_a_kernel_pass_that_is_held_back_computes_the_same(config: str, quant: str) -> None:
    module = traced(config)
    inputs = GeneratedInputs(module)
    module = lower(module, CompileOptions(quant))
    expected = executed(module, inputs)
    for pass_ in kernel_passes("bm1684x")[:-1]:
        full, watcher = held_back(module, pass_, None)
        if pass_.name in PATTERNS:
            assert watcher.begun
            assert set(watcher.begun) <= PATTERNS[pass_.name]
        for limit in some(len(watcher.begun)):
            results = executed(held_back(module, pass_, limit)[0], inputs)
            for name, arrays in expected.items():
                for new, old in zip(results[name], arrays, strict=True):
                    np.testing.assert_allclose(new, old, rtol=0, atol=CONSTANTS)
        module = full


def test_a_tiling_that_is_held_back_keeps_the_ops_behind() -> None:
    module = lower(traced("llama"), CompileOptions("f16"))
    tiling = TileForLocalMemoryPass()
    for limit in (0, 1, 7):
        mixed, watcher = held_back(module, tiling, limit)
        launches = [op for op in mixed.walk() if isinstance(op, tpu.LaunchOp)]
        assert len(launches) == limit < len(watcher.begun)
        used = {launch.kernel.string_value() for launch in launches}
        assert {kernel.sym_name.data for kernel in kernels_of(mixed)} == used


@pytest.mark.parametrize("name", KERNELS)
def test_loops_may_be_pipelined_in_part(name: str) -> None:
    """And each of these programs is placed, and waits, in part: with as few as no step."""
    module, arrays = ModuleOp([KERNELS[name]()]), inputs_of(emitted(KERNELS[name]()))
    for pass_ in PASSES[:-1]:
        full, watcher = held_back(module, pass_, None)
        for limit in range(len(watcher.begun) + 1):
            (kernel,) = kernels_of(held_back(module, pass_, limit)[0])
            after = run_kernel(kernel, arrays, arithmetic=FLOAT64)
            for argument, values in expected(name, arrays).items():
                np.testing.assert_allclose(after[argument].value, values, rtol=1e-9, atol=1e-9)
        module = full


def test_the_loops_of_the_example_kernels_are_steps_of_both_kinds() -> None:
    begun: list[str] = []
    for name in ("matmul", "transposed"):
        _, watcher = held_back(ModuleOp([KERNELS[name]()]), PASSES[0], None)
        begun += watcher.begun
    assert begun.count("PipelineLoop") >= 4
    assert begun.count("InlineLoop") == 2


def test_kernels_that_are_not_encoded_stay() -> None:
    module = ModuleOp([KERNELS[name]() for name in ("elementwise", "transposed")])
    for pass_ in PASSES[:-1]:
        module, _ = held_back(module, pass_, None)
    for limit in range(3):
        mixed, watcher = held_back(module, PASSES[-1], limit)
        assert watcher.begun == ["EncodeKernel"] * 2
        names = [op.name for op in mixed.body.ops]
        assert sorted(names) == ["bdc.program"] * limit + ["func.func"] * (2 - limit)
