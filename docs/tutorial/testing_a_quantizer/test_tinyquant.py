from functools import partial

import numpy as np
import pytest
import tinyquant
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dialects.quantization import parse_scheme
from tilewright.testing import PROPERTIES, Quantizer, check_weight_quantizer
from tilewright.testing.bounds import expected_snr_db, matmul_error_bound, snr_db
from tilewright.testing.strategies import activations, weights

INT8 = Quantizer(tinyquant.quantize, dequantize=tinyquant.dequantize)
INT4 = Quantizer(
    partial(tinyquant.quantize, bits=4),
    dequantize=tinyquant.dequantize,
    pack=tinyquant.pack,
    unpack=tinyquant.unpack,
)
INT4_SCHEME = parse_scheme("w4a16-channel-absmax")
PACKING = [name for name in PROPERTIES if name.startswith("packing")]


def test_int8():
    check_weight_quantizer(INT8, "w8a16", name="INT8")


def test_int4():
    check_weight_quantizer(INT4, INT4_SCHEME, name="INT4", exclude=PACKING)


@pytest.mark.parametrize("name", PACKING)
def test_packing(name):
    check_weight_quantizer(INT4, INT4_SCHEME, name="INT4", properties=[name])


@given(weights((2, 3), ordinary=True), activations((1, 3)))
def test_product(weight, x):
    codes, scale = tinyquant.quantize(weight)
    exact = codes * scale.astype(np.float64)
    error = np.abs(tinyquant.matmul(x, codes, scale) - x.astype(np.float64) @ exact.T)
    worst = np.max(error / matmul_error_bound(x, exact, np.float16))
    assert worst <= 1


@given(st.integers(0, 2**32 - 1))
def test_noise(seed):
    weight = np.random.default_rng(seed).standard_normal((64, 256))
    measured = snr_db(weight, tinyquant.dequantize(*INT4.quantize(weight)))
    expected = expected_snr_db(weight, INT4_SCHEME, 256)
    assert abs(measured - expected) < 0.3
