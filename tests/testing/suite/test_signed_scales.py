"""Formats whose scale is negative where the largest weight is positive (Q4_0 of llama.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tests.testing.amount import examples

from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing import examine_weight_quantizer
from tilewright.testing.bounds import quantization_error_bound

Array = npt.NDArray[Any]
SCHEME = Scheme(CodeFormat.I4, 32)


def signed(weight: Array) -> tuple[Array, Array]:
    """The largest weight of a group has the code -7."""
    groups = weight.reshape(len(weight), -1, 32).astype(np.float64)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)
    scale = np.where(largest == 0, 1, largest / -7)
    return np.rint(groups / scale).astype(np.int8).reshape(weight.shape), scale[..., 0]


def test_a_bound_is_that_of_the_scale_without_its_sign() -> None:
    codes, scale = np.full((1, 32), 3), np.full((1, 1), 0.25)
    bound = quantization_error_bound(-scale, codes, SCHEME, scale_rounded_after=2**-11)
    assert np.all(bound > 0.125)
    assert np.array_equal(
        bound, quantization_error_bound(scale, codes, SCHEME, scale_rounded_after=2**-11)
    )


def test_signs_of_scales_are_no_faults() -> None:
    names = ["error-bound", "saturation", "subnormal-scales"]
    report = examine_weight_quantizer(signed, SCHEME, examples=examples(15), properties=names)
    assert report.ok, report.text()


def test_a_lost_sign_is_found() -> None:
    def lost(weight: Array) -> tuple[Array, Array]:
        codes, scale = signed(weight)
        return codes, np.abs(scale)

    report = examine_weight_quantizer(
        lost, SCHEME, examples=examples(15), properties=["error-bound", "saturation"]
    )
    assert len(report.failures) == 2
