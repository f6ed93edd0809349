"""Tables of number formats: every pattern once, simple ones first."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import CodeFormat, parse_scheme
from tilewright.testing.formats import (
    BFLOAT16,
    FLOAT8_E4M3,
    FLOAT16,
    INT4,
    NUMBER_FORMATS,
    NumberFormat,
    code_limit,
    code_range,
    code_spacing,
    code_steps,
    code_values,
    overflow_threshold,
    spacing,
    table,
    unit_roundoff,
)

FORMATS = pytest.mark.parametrize("number", NUMBER_FORMATS, ids=lambda n: n.name)


@FORMATS
def test_a_table_has_every_pattern_once(number: NumberFormat) -> None:
    values = table(number)
    assert len(values) == 2**number.bits
    assert len({value.tobytes() for value in values}) == 2**number.bits


@FORMATS
def test_simple_values_come_first(number: NumberFormat) -> None:
    first = [float(value) for value in table(number)[:7]]
    assert first == [0, 0, 1, -1, 2, -2, 4] or number is INT4
    if number is INT4:
        assert first == [0, 1, -1, 2, -2, 4, -4]


def test_filters() -> None:
    finite = table(FLOAT16, allow_nan=False, allow_infinity=False)
    assert len(finite) == 2 * 0x7C00
    assert np.isfinite(finite.astype(np.float32)).all()
    normal = table(BFLOAT16, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    assert np.abs(normal[normal != 0].astype(np.float64)).min() == 2.0**-126
    some = table(FLOAT8_E4M3, allow_nan=False, min_magnitude=1, max_magnitude=2)
    assert sorted(set(np.abs(some.astype(np.float64)))) == [1 + i / 8 for i in range(9)]
    with pytest.raises(OptionError, match="no value of f8e4m3"):
        table(FLOAT8_E4M3, allow_nan=False, min_magnitude=449)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_spacing_is_that_of_numpy(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    values = np.ldexp(rng.uniform(1, 2, 500), rng.integers(-24, 15, 500)).astype(dtype)
    # numpy's is the distance to the next larger one
    np.testing.assert_array_equal(spacing(values, np.dtype(dtype)), np.spacing(values))
    assert unit_roundoff(np.dtype(dtype)) == np.finfo(dtype).eps / 2


def test_where_rounding_overflows() -> None:
    threshold = overflow_threshold(np.dtype(np.float16))
    assert threshold == 65520
    with np.errstate(over="ignore"):
        assert np.isinf(np.float64(threshold).astype(np.float16))
    assert np.nextafter(threshold, 0).astype(np.float16) == 65504


def test_codes_of_every_format() -> None:
    ranges = {"w8a16": (-128, 127), "w4a16": (0, 15), "w4a16-absmax": (-8, 7)}
    for name, expected in ranges.items():
        assert code_range(parse_scheme(name)) == expected
    assert [code_limit(parse_scheme(n)) for n in ("f8e4m3", "f8e5m2")] == [448, 57344]
    assert [code_steps(parse_scheme(n)) for n in ("w8a16", "w8a16-zp", "w4a16")] == [127, 255, 15]
    bits = np.array([[0x7E, 0xFE, 0x38]], np.uint8).view(np.int8)
    assert code_values(bits, CodeFormat.F8E4M3).tolist() == [[448, -448, 1]]
    assert code_values(bits.view(np.uint8), CodeFormat.F8E4M3).tolist() == [[448, -448, 1]]
    floats = bits.view(ml_dtypes.float8_e4m3fn)
    assert code_values(floats, CodeFormat.F8E4M3).tolist() == [[448, -448, 1]]
    steps = code_spacing(np.array([0, 2.0**-7, 1, 1.9, 2, 448]), parse_scheme("f8e4m3"))
    assert steps.tolist() == [2.0**-9, 2.0**-9, 2.0**-3, 2.0**-3, 2.0**-2, 32]
