"""Requantization against exact arithmetic, and against ONNX Runtime."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tilewright.backends.reference.requant import (
    BIAS,
    INT32_HIGHEST,
    INT32_LOWEST,
    MULTIPLIER,
    SHIFT,
    add_bias,
    quantize_activations,
    requant_parameters,
    requant_table,
    requantize,
    requantize_by_table,
)
from tilewright.dialects.errors import OptionError, UnsupportedError

Array = NDArray[Any]

SUMS = st.integers(INT32_LOWEST, INT32_HIGHEST) | st.sampled_from(
    [INT32_LOWEST, INT32_HIGHEST, 0, 1, -1]
)
REALS = st.floats(2.0**-40, 2.0**34, exclude_min=True) | st.floats(1e-5, 1e-1)


def exact_code(total: Fraction) -> int:
    """Rounded half up, and cut."""
    return min(max((total + Fraction(1, 2)).__floor__(), -128), 127)


def run_onnx(op: str, tensors: dict[str, Array]) -> Array:
    """The result of one ONNX op on constant operands."""
    node = helper.make_node(op, list(tensors), ["y"])
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    kind = TensorProto.INT32 if op == "MatMulInteger" else TensorProto.INT8
    output = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "g", [], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {})
    return np.asarray(result)


@settings(deadline=None)
@given(REALS)
def test_parameters_are_within_2_to_the_minus_31(real: float) -> None:
    multiplier, shift = requant_parameters(real)
    if 2.0**-32 <= real < 2.0**30 * (1 - 2.0**-32):
        assert 2**30 <= multiplier < 2**31
        assert 1 <= shift <= 62
        error = abs(Fraction(multiplier, 2**shift) - Fraction(real))
        assert error <= Fraction(real) / 2**31


@settings(deadline=None)
@given(REALS, SUMS)
def test_codes_are_those_of_the_real_factor_within_one(real: float, total: int) -> None:
    """And those of the factor that is stored exactly."""
    multiplier, shift = requant_parameters(real)
    (code,) = requantize(np.array([total], np.int32), multiplier, shift)
    assert int(code) == exact_code(Fraction(total) * multiplier / 2**shift)
    assert abs(int(code) - exact_code(Fraction(total) * Fraction(real))) <= 1


@settings(deadline=None)
@given(st.floats(0.0, 2.0**-32, exclude_max=True), SUMS)
def test_a_factor_that_is_too_small_gives_zeros_as_the_real_one_does(real: float, total: int):
    (code,) = requantize(np.array([total], np.int32), *requant_parameters(real))
    assert int(code) == exact_code(Fraction(total) * Fraction(real)) == 0


@settings(deadline=None)
@given(st.floats(2.0**30, 1e300), SUMS)
def test_a_factor_that_is_too_large_saturates_as_the_real_one_does(real: float, total: int):
    (code,) = requantize(np.array([total], np.int32), *requant_parameters(real))
    assert int(code) == exact_code(Fraction(total) * Fraction(real))


def test_parameters_at_the_ends() -> None:
    assert requant_parameters(0.0) == (0, 1)
    assert requant_parameters(0.5) == (2**30, 31)
    assert requant_parameters(np.nextafter(1.0, 0.0)) == (2**30, 30)  # rounds up to 1
    assert requant_parameters(2.0**-32) == (2**30, 62)
    assert requant_parameters(np.nextafter(2.0**-32, 0.0)) == (2**30, 62)
    assert requant_parameters(2.0**30) == (2**31 - 1, 1)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(OptionError, match=r"requantization by .* is not possible"):
            requant_parameters(bad)


@settings(deadline=None)
@given(SUMS, st.integers(INT32_LOWEST, INT32_HIGHEST), st.integers(-70, 70))
def test_any_table_has_a_defined_meaning(total: int, multiplier: int, shift: int) -> None:
    """Whatever is in memory: the lowest six bits of a shift count."""
    (code,) = requantize(np.array([total], np.int32), multiplier, shift)
    bits = shift % 64
    rounded = total * multiplier + (2 ** (bits - 1) if bits else 0)
    assert int(code) == min(max(rounded >> bits, -128), 127)


def test_bias_saturates_at_32_bits() -> None:
    sums = np.array([INT32_HIGHEST, INT32_LOWEST, 5], np.int32)
    assert add_bias(sums, np.array([1, -1, 2])).tolist() == [INT32_HIGHEST, INT32_LOWEST, 7]


# Tables.

SCALES = st.floats(2.0**-30, 16.0, width=32, exclude_min=True)


@settings(deadline=None)
@given(SCALES, SCALES, SCALES, st.floats(-100, 100), st.integers(-(2**20), 2**20))
def test_a_layer_is_that_of_real_numbers(
    weight_scale: float, input_scale: float, output_scale: float, bias: float, total: int
) -> None:
    """Half a unit of the sums is lost on the bias, and a half of a code is the rounding's."""
    unit = Fraction(input_scale) * Fraction(weight_scale)
    if abs(Fraction(bias) / unit) > 2**30:
        return
    table = requant_table(np.array([weight_scale]), np.array([bias]), input_scale, output_scale)
    code = int(requantize_by_table(np.array([[total]], np.int32), table)[0, 0])
    exact = (total * unit + Fraction(bias)) / Fraction(output_scale)
    slack = unit / Fraction(output_scale) / 2 + abs(exact) * Fraction(1, 2**30)
    low, high = exact_code(exact - slack), exact_code(exact + slack)
    assert low <= code <= high


@settings(deadline=None)
@given(
    st.floats(-(2.0**20), 2.0**20),
    st.floats(2.0**-60, 2.0**60, exclude_min=True),
    st.floats(2.0**-10, 2.0**10),
)
def test_a_channel_of_zeros_gives_its_bias(bias: float, input_scale: float, output_scale: float):
    """However large the input is: its codes do not matter."""
    table = requant_table(
        np.ones(1, np.float32),
        np.array([bias]),
        input_scale,
        output_scale,
        zero_channels=np.array([True]),
    )
    code = int(requantize_by_table(np.zeros((1, 1), np.int32), table)[0, 0])
    exact = Fraction(bias) / Fraction(output_scale)
    slack = Fraction(1, 2**24) + abs(exact) / 2**23
    assert exact_code(exact - slack) <= code <= exact_code(exact + slack)


def test_a_bias_that_does_not_fit_is_an_error() -> None:
    scales = np.array([1e-3, 1e-8], np.float32)
    table = requant_table(scales, np.array([2.0, 1e-4]), 1e-2, 0.1, name="proj")
    assert np.abs(table[:, BIAS] - np.array([200_000, 1_000_000])).max() <= 1
    assert table.shape == (2, 3)
    assert table.dtype == np.int32
    assert (table[:, MULTIPLIER] >= 2**30).all()
    assert (table[:, SHIFT] > 31).all()
    with pytest.raises(UnsupportedError, match=r"bias 2.0 of channel 1 of 'proj' does not fit"):
        requant_table(scales, np.array([2.0, 2.0]), 1e-2, 0.1, name="proj")
    with pytest.raises(UnsupportedError, match="bias nan of channel 0"):
        requant_table(scales, np.array([np.nan, 0.0]), 1e-2, 0.1)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_none_are_errors(bad: float) -> None:
    one = np.ones(2, np.float32)
    with pytest.raises(OptionError, match="weight scale of 'w' is"):
        requant_table(np.array([1.0, bad]), None, 1.0, 1.0, name="w")
    with pytest.raises(OptionError, match="input scale of 'w' is"):
        requant_table(one, None, bad, 1.0, name="w")
    with pytest.raises(OptionError, match="output scale of 'w' is"):
        requant_table(one, None, 1.0, bad, name="w")


# ONNX Runtime.


def test_activations_are_quantized_as_onnx_does() -> None:
    numbers = np.random.default_rng(0)
    for scale in np.array([0.0371, 1.0, 0.25, 3e-5], np.float32):
        x = np.concatenate(
            [
                numbers.standard_normal(500) * scale * 60,
                (np.arange(-300, 300) / 2) * scale,
                [np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0],
            ]
        ).astype(np.float32)
        tensors = {"x": x, "scale": scale, "zero": np.int8(0)}
        mine = quantize_activations(x, scale)
        assert np.array_equal(mine, run_onnx("QuantizeLinear", _arrays(tensors)))
    assert quantize_activations(np.array([np.nan], np.float16), 1.0).tolist() == [0]


def test_layers_are_those_of_onnx_within_one_code() -> None:
    """QLinearMatMul scales in f32 and rounds halves to even; sums are equal."""
    numbers = np.random.default_rng(1)
    m, n, k = 9, 33, 200
    x = numbers.integers(-128, 128, (m, k)).astype(np.int8)
    codes = numbers.integers(-127, 128, (n, k)).astype(np.int8)
    scales = (numbers.random(n) * 1e-3 + 1e-4).astype(np.float32)
    right = np.ascontiguousarray(codes.T)
    sums = run_onnx("MatMulInteger", {"a": x, "b": right})
    assert np.array_equal(sums, x.astype(np.int32) @ codes.T.astype(np.int32))
    mine = requantize_by_table(sums, requant_table(scales, None, 0.02, 0.02))
    zeros = np.zeros(n, np.int8)
    theirs = run_onnx(
        "QLinearMatMul",
        _arrays(
            {
                "a": x,
                "a_scale": np.float32(0.02),
                "a_zero": np.int8(0),
                "b": right,
                "b_scale": scales,
                "b_zero": zeros,
                "y_scale": np.float32(0.02),
                "y_zero": np.int8(0),
            }
        ),
    )
    difference = np.abs(mine.astype(int) - theirs.astype(int))
    assert difference.max() <= 1
    assert (difference != 0).mean() < 0.01
    assert 20 < np.abs(mine.astype(int)).mean() < 100


def _arrays(tensors: dict[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(value) for name, value in tensors.items()}
