"""Limits on weights: never worse than none, and better where a few weights are large."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.passes.tuning.memory import correlated, data_of, statistics_of

from tilewright.backends.reference import numerics
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects.context import parse_module
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.quantization import parse_scheme
from tilewright.passes.tuning.clipping import clip_to_least_error
from tilewright.passes.tuning.data import tuning
from tilewright.passes.tuning.rounding import energy, round_to_nearest

SCHEMES = ["w4a16-g32", "w4a16-channel-absmax", "w8a16"]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("hessian", [False, True])
def test_limits_make_the_error_of_each_group_least(name: str, hessian: bool) -> None:
    """A Hessian without blocks between groups: then the sum over groups is the layer's error, for
    every output channel."""
    scheme, rng = parse_scheme(name), np.random.default_rng(1)
    weight = rng.standard_t(3, (40, 64)).astype(np.float32)
    known = statistics_of(correlated(rng, 400, 64), hessian=hessian)
    if known.hessian is not None and scheme.group:
        known.hessian[:32, 32:] = known.hessian[32:, :32] = 0
    clipped = clip_to_least_error(weight, scheme, F16, known)
    assert np.all(np.abs(clipped) <= np.abs(weight))
    assert np.all(np.sign(clipped) == np.sign(weight))
    errors = [
        [energy(row - rounded, known) for row, rounded in zip(weight[:, None], made, strict=True)]
        for each in (weight, clipped)
        for made in [round_to_nearest(each, scheme, F16).values()[:, None]]
    ]
    assert all(after <= before * 1.001 for before, after in zip(*errors, strict=True))
    if scheme.format.bits == 4:
        assert sum(errors[1]) < 0.95 * sum(errors[0])


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_on_the_grid_stay(name: str) -> None:
    scheme, rng = parse_scheme(name), np.random.default_rng(2)
    weight = rng.standard_normal((8, 64)).astype(np.float32)
    weight = round_to_nearest(weight, scheme, F32).values()
    codes, scale, zero = numerics.quantize(weight, scheme, F32)
    exact = numerics.dequantize(codes, scale, F32, zero, scheme.format)
    assert np.abs(exact - weight).max() < 1e-5
    known = statistics_of(rng.standard_normal((100, 64)))
    np.testing.assert_array_equal(clip_to_least_error(weight, scheme, F16, known), weight)


def test_the_pass_limits_a_layer_without_a_producer() -> None:
    """Nothing can be divided for these inputs; limits need no producer."""
    module = parse_module(
        """
        func.func @f(%x: tensor<4x64xf32>) -> tensor<4x40xf32> {
          %w = top.Weight "proj" : tensor<40x64xf32>
          %y = top.MatMul %x, %w {right_transpose} :
            tensor<4x64xf32>, tensor<40x64xf32> -> tensor<4x40xf32>
          func.return %y : tensor<4x40xf32>
        }
        """,
        "test",
    )
    rng = np.random.default_rng(3)
    weight = rng.standard_t(3, (40, 64)).astype(np.float32)
    data = data_of({"proj": weight}, {"proj": correlated(rng, 400, 64)}, "w4a16-channel")
    known = data.statistics("proj", reason="the test")
    scheme = parse_scheme("w4a16-channel")
    errors = []
    for passes in ("awq-scale", "awq-scale{clip=true}"):
        with tuning(data):
            run_pipeline(module, passes_from_text(passes))
        made = round_to_nearest(data.weights.read("proj"), scheme, F16).values()
        errors.append(energy(weight - made, known))
    assert all(later < earlier for earlier, later in pairwise(errors))
    (report,) = data.reports
    assert report.changed
    assert report.after is not None
    assert report.before is not None
    gain = report.after.output_db - report.before.output_db
    assert gain == pytest.approx(10 * np.log10(errors[0] / errors[1]), abs=1e-3)
