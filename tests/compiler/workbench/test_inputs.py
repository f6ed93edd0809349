"""Generated inputs: exact in every storage type, legal for every use, the same at every stage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler.workbench.models import SEQ, language_model, mixture
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.reference.executor import run_function
from tilewright.backends.reference.numerics import dequantize
from tilewright.compiler.pipeline import CompileOptions, lower
from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.compiler.workbench.inputs import CASES, GeneratedInputs, InputCase
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import parse_scheme
from tilewright.dialects.scopes import functions_of

W8A16 = parse_scheme("w8a16")
WHOLE = CompileOptions("w8a16", quant_head=True, quant_embedding=True)


def module_of(text: str) -> ModuleOp:
    module = parse_module(text, "test")
    verify_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [WHOLE, CompileOptions("bf16")], ids=["w8a16", "bf16"])
@pytest.mark.parametrize("make", [language_model, mixture])
def test_storage_types_change_nothing(
    make: Callable[[], ModuleOp], options: CompileOptions, case: InputCase
) -> None:
    """A top and its tpu module agree to float64's own rounding, states included."""
    before = make()
    after = lower(before, options)
    inputs = GeneratedInputs(before, case=case)
    for name in inputs.functions:
        runs: list[list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = []
        for module in (before, after):
            states = inputs.states(module, name)
            arguments = inputs.arguments(functions_of(module)[name])
            outputs = run_function(
                module, name, arguments, weights=inputs.weight, states=states, semantics="float64"
            )
            runs.append([*outputs, *states.values()])
        for one, other in zip(*runs, strict=True):
            assert np.isfinite(one).all()
            scale = max(float(np.abs(one).max()), 1.0)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * scale)


MATRIX = """
func.func @main(%x: tensor<2x{k}xf32>) -> tensor<2x{n}xf32> {{
  %w = top.Weight "w" : tensor<{shape}xf32>
  %y = top.MatMul %x, %w {turned} : tensor<2x{k}xf32>, tensor<{shape}xf32> -> tensor<2x{n}xf32>
  func.return %y : tensor<2x{n}xf32>
}}
"""


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 300),
    k=st.integers(1, 300),
    by_rows=st.booleans(),
    element=st.sampled_from([F16, BF16, F32]),
    seed=st.integers(0, 9),
)
def test_matrices_are_their_codes(
    n: int, k: int, by_rows: bool, element: ElementType, seed: int
) -> None:
    """Scales are powers of two, and codes times scales are the matrix, in either orientation."""
    shape, turned = (f"{n}x{k}", "{right_transpose}") if by_rows else (f"{k}x{n}", "")
    module = module_of(MATRIX.format(n=n, k=k, shape=shape, turned=turned))
    inputs = GeneratedInputs(module, seed=seed)
    stored = inputs.stored("w", "dense", (n, k), F32, transposed=not by_rows)
    made = quantize_weight(stored, W8A16, element)
    codes, scales = made.codes, made.scale
    assert scales.dtype == element.dtype
    assert (np.abs(codes).max(axis=1) == 127).all()
    exponents = np.log2(scales.astype(np.float64))
    assert (exponents == np.round(exponents)).all()
    assert (dequantize(codes, scales, F32) == stored).all()
    assert (stored.astype(F16.dtype) == stored).all()
    assert (stored.astype(BF16.dtype).astype(np.float32) == stored).all()
    if n > 20:
        assert len(np.unique(scales.astype(np.float64))) > 1


def test_a_matrix_that_is_read_both_ways_is_exact_both_ways() -> None:
    module = module_of("""
func.func @main(%x: tensor<2x24xf32>, %z: tensor<2x40xf32>)
    -> (tensor<2x40xf32>, tensor<2x24xf32>) {
  %w = top.Weight "w" : tensor<40x24xf32>
  %y = top.MatMul %x, %w {right_transpose} :
    tensor<2x24xf32>, tensor<40x24xf32> -> tensor<2x40xf32>
  %v = top.MatMul %z, %w : tensor<2x40xf32>, tensor<40x24xf32> -> tensor<2x24xf32>
  func.return %y, %v : tensor<2x40xf32>, tensor<2x24xf32>
}
""")
    inputs = GeneratedInputs(module)
    for transposed, shape in ((False, (40, 24)), (True, (24, 40))):
        stored = inputs.stored("w", "dense", shape, F32, transposed=transposed)
        made = quantize_weight(stored, W8A16, F16)
        assert (dequantize(made.codes, made.scale, F32) == stored).all()


def test_indices_are_legal_wherever_they_lead() -> None:
    """Token ids stay in the vocabulary, positions in caches and tables, all of them different."""
    inputs = GeneratedInputs(language_model())
    arrays = inputs.arrays()
    for name in ("prefill", "decode"):
        ids, positions = arrays[f"{name}.0"], arrays[f"{name}.1"]
        assert ids.min() >= 0
        assert ids.max() < 200
        assert sorted(set(positions.tolist())) == sorted(positions.tolist())
        assert set(positions.tolist()) <= set(range(SEQ))
    assert len(arrays["prefill.1"]) == SEQ
    assert 0 <= int(arrays["prefill.3"][0]) < SEQ
    mask = arrays["prefill.2"]
    assert (mask.max(axis=1) == 0).all()
    assert mask.min() < 0


def test_rope_tables_turn_nothing_past_the_rotary_columns() -> None:
    module = module_of("""
func.func @main(%x: tensor<3x16xf32>, %i: tensor<3xi32>) -> tensor<3x16xf32> {
  %c = top.Weight "cos" : tensor<9x8xf32>
  %s = top.Weight "sin" : tensor<9x8xf32>
  %a = top.Gather %c, %i : tensor<9x8xf32>, tensor<3xi32> -> tensor<3x8xf32>
  %b = top.Gather %s, %i : tensor<9x8xf32>, tensor<3xi32> -> tensor<3x8xf32>
  %y = top.Rope %x cos %a sin %b
    {num_heads = 2 : i64, rotary_dim = 4 : i64, interleaved = false} :
    tensor<3x16xf32>, tensor<3x8xf32>, tensor<3x8xf32> -> tensor<3x16xf32>
  func.return %y : tensor<3x16xf32>
}
""")
    inputs = GeneratedInputs(module)
    cos, sin = (inputs.stored(key, "dense", (9, 8), F32) for key in ("cos", "sin"))
    assert (cos[:, 4:] == 1).all()
    assert (sin[:, 4:] == 0).all()
    assert len(np.unique(cos[:, :4])) > 4
    assert len(np.unique(sin[:, :4])) > 4


def test_values_depend_on_seed_and_case_alone() -> None:
    chosen: list[tuple[int, InputCase]] = [
        (1, "random"),
        (1, "random"),
        (2, "random"),
        (1, "large"),
    ]
    arrays = [
        GeneratedInputs(mixture(), seed=seed, case=case).arrays()["main.0"] for seed, case in chosen
    ]
    assert (arrays[0] == arrays[1]).all()
    assert (arrays[0] != arrays[2]).any()
    assert (arrays[0] * 32 == arrays[3]).all()
    one_hot = GeneratedInputs(mixture(), case="one-hot").arrays()["main.0"]
    assert (one_hot.sum(axis=1) == 1).all()
    assert not GeneratedInputs(mixture(), case="zeros").arrays()["main.0"].any()


def test_roots_and_divisors_are_positive() -> None:
    module = module_of("""
func.func @main(%x: tensor<64xf32>, %z: tensor<64xf32>) -> tensor<64xf32> {
  %r = top.Rsqrt %x : tensor<64xf32> -> tensor<64xf32>
  %y = top.Div %r, %z : tensor<64xf32>, tensor<64xf32> -> tensor<64xf32>
  func.return %y : tensor<64xf32>
}
""")
    arrays = GeneratedInputs(module).arrays()
    assert all((array > 0).all() for array in arrays.values())


@pytest.mark.parametrize("case", CASES)
def test_positive_numbers_are_exact_in_bf16(case: InputCase) -> None:
    module = module_of("""
func.func @main(%x: tensor<64x64xf32>) -> tensor<64x64xf32> {
  %y = top.Sqrt %x : tensor<64x64xf32> -> tensor<64x64xf32>
  func.return %y : tensor<64x64xf32>
}
""")
    x = GeneratedInputs(module, case=case).arrays()["main.0"]
    assert np.array_equal(x, x.astype(BF16.dtype).astype(x.dtype))


def test_other_arguments_than_at_first_are_refused() -> None:
    inputs = GeneratedInputs(mixture())
    other = module_of(MATRIX.format(n=4, k=4, shape="4x4", turned=""))
    with pytest.raises(OptionError, match="does not take the arguments"):
        inputs.arguments(functions_of(other)["main"])
