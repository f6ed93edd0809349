"""The passes that tune weights, on layers in memory."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.passes.tuning.memory import MemoryWeights, correlated, data_of
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.element_types import F16
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import parse_scheme
from tilewright.passes.tuning.data import TuningData, tuning
from tilewright.passes.tuning.rounding import energy, round_to_nearest

Array = npt.NDArray[Any]

DEPTH, CHANNELS, ROWS = 128, 96, 600
TUNERS = ("gptq", "awq-scale", "smooth-quant")


def module_of(*, transposed: bool = False) -> ModuleOp:
    shape = f"{DEPTH}x{CHANNELS}" if transposed else f"{CHANNELS}x{DEPTH}"
    transpose = "" if transposed else "{right_transpose}"
    text = f"""
    func.func @f(%x: tensor<4x{DEPTH}xf32>) -> tensor<4x{CHANNELS}xf32> {{
      %g = top.Weight "norm" : tensor<{DEPTH}xf32>
      %h = top.RMSNorm %x weight %g {{eps = 1.0e-05 : f32}} :
        tensor<4x{DEPTH}xf32>, tensor<{DEPTH}xf32> -> tensor<4x{DEPTH}xf32>
      %w = top.Weight "proj" : tensor<{shape}xf32>
      %y = top.MatMul %h, %w {transpose} :
        tensor<4x{DEPTH}xf32>, tensor<{shape}xf32> -> tensor<4x{CHANNELS}xf32>
      func.return %y : tensor<4x{CHANNELS}xf32>
    }}
    """
    return parse_module(text, "test")


def problem(quant: str, *, outliers: float = 20.0, hessian: bool = True) -> TuningData:
    """A layer of which a few inputs are large."""
    rng = np.random.default_rng(11)
    inputs = correlated(rng, ROWS, DEPTH)
    inputs[:, :4] *= outliers
    weight = rng.standard_normal((CHANNELS, DEPTH)).astype(np.float32)
    arrays = {"norm": np.ones(DEPTH, np.float32), "proj": weight}
    return data_of(arrays, {"proj": inputs}, quant, hessian=hessian)


def run(data: TuningData, passes: str, module: ModuleOp | None = None) -> None:
    module = module_of() if module is None else module
    before = print_module(module)
    with tuning(data):
        run_pipeline(module, passes_from_text(passes))
    assert print_module(module) == before


def arrays_of(data: TuningData) -> dict[str, Array]:
    assert isinstance(data.weights, MemoryWeights)
    return data.weights.arrays


def output_error(data: TuningData, scheme: str) -> float:
    """Of the weight as it is kept, or else rounded to nearest, on inputs as they are."""
    assert isinstance(data.weights, MemoryWeights)
    weight = data.weights.arrays["proj"]
    rounded = data.weights.stored.get("proj")
    rounded = rounded or round_to_nearest(weight, parse_scheme(scheme), F16)
    return energy(weight - rounded.values(), data.statistics("proj", reason="the test"))


@pytest.mark.parametrize("name", TUNERS)
def test_without_data_a_pass_says_how_to_give_it(name: str) -> None:
    with pytest.raises(OptionError) as raised:
        run_pipeline(module_of(), passes_from_text(name))
    assert f"{name} has no weights" in str(raised.value)
    assert "tw calibrate" in str(raised.value)
    assert f"--tune {name}" in str(raised.value)


@pytest.mark.parametrize("name", TUNERS)
def test_without_statistics_of_a_layer_too(name: str) -> None:
    data = problem("int8")
    data.statistics_of = lambda key: None
    with pytest.raises(OptionError, match="no statistics of the inputs of 'proj'"):
        run(data, name)


def test_gptq_needs_a_hessian() -> None:
    with pytest.raises(OptionError, match="no Hessian of the inputs of 'proj'"):
        run(problem("w4a16", hessian=False), "gptq")


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16", "w4a16-g32-absmax", "w4a16-channel"])
def test_gptq_keeps_codes_of_less_error_and_reports_it(scheme: str) -> None:
    data = problem(scheme)
    before = output_error(data, scheme)
    run(data, "gptq")
    after = output_error(data, scheme)
    assert data.weights.is_stored("proj")
    (report,) = data.reports
    assert report.changed
    assert report.before is not None
    assert report.after is not None
    gain = report.after.output_db - report.before.output_db
    assert gain == pytest.approx(10 * np.log10(before / after), abs=1e-3)
    assert gain > 2


@pytest.mark.parametrize("scheme", ["w4a16", "w4a16-channel-absmax"])
@pytest.mark.parametrize("passes", ["awq-scale", "awq-scale,gptq"])
def test_each_pass_of_a_pipeline_makes_the_error_smaller(scheme: str, passes: str) -> None:
    data = problem(scheme)
    errors = [output_error(data, scheme)]
    for name in passes.split(","):
        run(data, name)
        errors.append(output_error(data, scheme))
    assert all(later < 0.8 * earlier for earlier, later in pairwise(errors))


def test_awq_scale_without_a_hessian_takes_inputs_as_uncorrelated() -> None:
    data, full = (problem("w4a16-channel", hessian=each) for each in (False, True))
    run(data, "awq-scale")
    full.weights = data.weights
    full.input_scales = data.input_scales
    plain = problem("w4a16-channel")
    assert output_error(full, "w4a16-channel") < 0.8 * output_error(plain, "w4a16-channel")


def test_a_weight_stored_as_its_transpose_gets_the_same_factors_and_codes() -> None:
    data, turned = problem("w4a16"), problem("w4a16")
    arrays_of(turned)["proj"] = np.ascontiguousarray(arrays_of(turned)["proj"].T)
    run(data, "awq-scale,gptq")
    run(turned, "awq-scale,gptq", module_of(transposed=True))
    np.testing.assert_array_equal(arrays_of(turned)["proj"].T, arrays_of(data)["proj"])
    np.testing.assert_array_equal(arrays_of(turned)["norm"], arrays_of(data)["norm"])
    assert isinstance(data.weights, MemoryWeights)
    assert isinstance(turned.weights, MemoryWeights)
    codes = data.weights.stored["proj"].codes
    np.testing.assert_array_equal(turned.weights.stored["proj"].codes, codes)


@pytest.mark.parametrize("name", ["awq-scale", "smooth-quant"])
def test_rescaling_after_rounding_is_an_error(name: str) -> None:
    with pytest.raises(OptionError, match="kept as codes"):
        run(problem("int8"), f"gptq,{name}")


def test_smooth_quant_evens_out_inputs_of_int8_layers() -> None:
    data = problem("int8", outliers=100)
    known = data.statistics("proj", reason="the test").absmax
    weight = arrays_of(data)["proj"]
    run(data, "smooth-quant")
    scale = data.input_scales["proj"]
    expected = np.sqrt(known / np.abs(weight).max(axis=0))
    np.testing.assert_allclose(scale / scale[0], expected / expected[0], rtol=1e-6)
    np.testing.assert_allclose(arrays_of(data)["norm"], 1 / scale, rtol=1e-6)
    np.testing.assert_allclose(arrays_of(data)["proj"], weight * scale, rtol=1e-6)
    (report,) = data.reports
    assert report.before is not None
    assert report.after is not None
    assert report.after.output_db > report.before.output_db + 3


def test_smooth_quant_predicts_the_error_of_int8() -> None:
    """The error of weights and inputs rounded to int8, measured on inputs that were seen."""
    data = problem("int8", outliers=100)
    rng = np.random.default_rng(11)
    inputs = correlated(rng, ROWS, DEPTH)
    inputs[:, :4] *= 100
    weight = arrays_of(data)["proj"].astype(np.float64)

    def measured(inputs: Array, weight: Array) -> float:
        step = np.abs(inputs).max() / 127
        values = round_to_nearest(weight.astype(np.float32), parse_scheme("int8"), F16).values()
        exact = inputs @ weight.T
        error = np.round(inputs / step) * step @ values.astype(np.float64).T - exact
        return float(10 * np.log10(np.sum(exact**2) / np.sum(error**2)))

    run(data, "smooth-quant")
    (report,) = data.reports
    assert report.before is not None
    assert report.after is not None
    assert report.before.output_db == pytest.approx(measured(inputs, weight), abs=1.0)
    scale = data.input_scales["proj"]
    after = measured(inputs / scale, weight * scale)
    assert report.after.output_db == pytest.approx(after, abs=1.0)


def test_a_layer_that_would_not_gain_stays_as_it_is() -> None:
    data = problem("w4a16")
    data.statistics_of = data_of(
        {}, {"proj": np.eye(DEPTH, dtype=np.float32)}, "w4a16"
    ).statistics_of
    before = {key: array.copy() for key, array in arrays_of(data).items()}
    run(data, "gptq,awq-scale,smooth-quant")
    assert not data.weights.is_stored("proj")
    for key, array in before.items():
        np.testing.assert_array_equal(arrays_of(data)[key], array)
    assert [report.changed for report in data.reports] == [False, False]
    assert all("kept as it was" in report.line() for report in data.reports)


def test_layers_that_stay_dense_and_8_bit_floats_are_left_alone() -> None:
    dense, floats = problem("f16"), problem("f8e4m3")
    run(dense, "smooth-quant,awq-scale,gptq")
    assert dense.reports == []
    run(floats, "gptq")
    assert [report.why for report in floats.reports] == [
        "codes of 8-bit floats are rounded to nearest"
    ]


@pytest.mark.parametrize(
    "text", ["gptq{percdamp=-1.0}", "awq-scale{grid=0}", "smooth-quant{alpha=1.5}"]
)
def test_options_that_make_no_sense(text: str) -> None:
    with pytest.raises(OptionError):
        passes_from_text(text)


def test_reports_are_json() -> None:
    data = problem("w4a16")
    run(data, "awq-scale,gptq")
    rows = json.loads(json.dumps([report.to_json() for report in data.reports], allow_nan=False))
    assert [row["pass_name"] for row in rows] == ["awq-scale", "gptq"]
    assert rows[0]["details"]["alpha"] > 0
