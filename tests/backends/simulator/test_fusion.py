"""Weights that a product dequantizes itself: the bits of the commands one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit
from tests.passes.kernels.test_matmul import CHIP, kernel_for
from tests.passes.kernels.test_quantized_matmul import SCHEMES, op_of, random_parts

from tilewright.backends.program import Kernel
from tilewright.backends.simulator import code_products
from tilewright.backends.simulator.fusion import fusions
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.schedule import Schedule, execution_order
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]


def fused(kernel: Kernel, schedule: Schedule = "early") -> tuple[int, int]:
    """How many products dequantize, and how many of them read their codes from global memory."""
    found = fusions(kernel, execution_order(kernel, schedule), CHIP.lanes)
    return len(found), sum(each.load is not None for each in found)


def results(kernel: Kernel, arrays: list[Array], shape: tuple[int, int], **options: Any) -> Array:
    """What a machine with `options` computes, as bytes."""
    machine = Machine(CHIP, **options)
    output = np.zeros(shape, np.float16)
    addresses = [CHIP.global_base + (number << 24) for number in range(len(arrays) + 1)]
    for array, address in zip((*arrays, output), addresses, strict=True):
        machine.map(address, array, writable=array is output)
    machine.run(kernel, addresses)
    return output.view(np.uint16)


def parts_of(name: str, m: int, n: int, k: int, element: ElementType) -> tuple[Kernel, list[Array]]:
    """The kernel of a layer, and its operands."""
    scheme = parse_scheme(name)
    kernel = kernel_for(op_of(scheme, m, n, k, element, element, False))
    x = np.random.default_rng(1).standard_normal((m, k)).astype(element.dtype)
    codes, scale, zero = random_parts(scheme, n, k, element, 2)
    return kernel, [x, codes, scale, *([] if zero is None else [zero])]


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("name", SCHEMES)
def test_fused_products_have_the_same_bits(name: str, element: ElementType, m: int) -> None:
    k = 256 if parse_scheme(name).group else 187
    kernel, arrays = parts_of(name, m, 130, k, element)
    assert fused(kernel)[0] > 0
    one_by_one = results(kernel, arrays, (m, 130), fused=False)
    for threads in (1, 2):
        found = results(kernel, arrays, (m, 130), threads=threads)
        assert np.array_equal(found, one_by_one)


@pytest.mark.parametrize("schedule", ["early", "late"])
def test_a_stream_of_tiles_reads_its_codes_from_global_memory(schedule: Schedule) -> None:
    kernel, arrays = parts_of("w4a16", 1, 1500, 4096, F16)
    products, from_global = fused(kernel, schedule)
    assert products == from_global > 2
    one_by_one = results(kernel, arrays, (1, 1500), fused=False)
    assert np.array_equal(results(kernel, arrays, (1, 1500)), one_by_one)


def test_what_the_kernel_writes_is_read_when_its_command_says() -> None:
    """The result lies over the codes: a read that comes late would see it."""
    kernel, arrays = parts_of("w8a16", 1, 1500, 4096, F16)
    shared = np.zeros(arrays[1].size, np.int8)
    outcomes: list[Array] = []
    for with_fusion in (False, True):
        shared[:] = arrays[1].reshape(-1)
        machine = Machine(CHIP, fused=with_fusion)
        addresses = [CHIP.global_base + (number << 24) for number in range(3)]
        for array, address in zip((arrays[0], shared, arrays[2]), addresses, strict=True):
            machine.map(address, array, writable=array is shared)
        last = addresses[1] + shared.size - 1500 * 2 - 5000
        machine.run(kernel, [*addresses, last])
        outcomes.append(shared.copy())
    assert np.array_equal(outcomes[0], outcomes[1])


def test_scales_in_f32_are_not_fused() -> None:
    scheme = parse_scheme("w8a16")
    kernel = kernel_for(op_of(scheme, 1, 130, 64, F16, F32, False))
    assert fused(kernel) == (0, 0)


LISTING = """
gdma 1 load 64x64xi8 local=0/64 global=0+0/64
gdma 2 load 64x1xf16 local=1024/64 global=1+0/2
gdma 3 load 1x64xf16 local=2048/128 global=2+0/128
bdc 1 dequant 64x64 dst=f16:4096/128 a=i8:0/64 b=f16:1024/64 wait=3
bdc 2 mm 64x1x64 dst=f16:8192/64 a=f16:4096/128 b=f16:2048/128 transpose_right
{then}
gdma 4 store 64x{stored} global=3+0/{pitch} wait={last}
"""


@pytest.mark.parametrize(
    ("then", "stored", "expected"),
    [
        ("", "1xf16 local=8192/64", (1, 1)),
        # The tile of weights is read again, as a whole or in part.
        ("bdc 3 neg 64x64 dst=f16:8192/128 a=f16:4096/128", "64xf16 local=8192/128", (0, 0)),
        ("", "64xf16 local=4096/128", (0, 0)),
        # Before it is read again, a part of it is written over; or all.
        ("bdc 3 fill 64x8 dst=f16:4096/128 immediate=1.0", "64xf16 local=4096/128", (0, 0)),
        ("bdc 3 fill 64x64 dst=f16:4096/128 immediate=1.0", "64xf16 local=4096/128", (1, 1)),
        # The codes are read again, so that they must be there.
        ("bdc 3 dequant 64x64 dst=f16:8192/128 a=i8:0/64 b=f16:1024/64", "64xf16 local=8192/128",
         (1, 0)),
    ],
)  # fmt: skip
def test_what_is_read_again_is_in_local_memory(
    bench: Any, then: str, stored: str, expected: tuple[int, int]
) -> None:
    numbers = np.random.default_rng(4)
    codes = numbers.integers(-99, 99, (64, 64)).astype(np.int8)
    scale = numbers.random((64, 1)).astype(np.float16)
    x = numbers.standard_normal((1, 64)).astype(np.float16)
    cols = int(stored.split("x")[0])
    text = LISTING.format(then=then, stored=stored, pitch=2 * cols, last=3 if then else 2)
    outputs: list[Array] = []
    for with_fusion in (False, True):
        out = np.zeros((64, cols), np.float16)
        arguments = [(codes, "read"), (scale, "read"), (x, "read"), (out, "write")]
        kernel = bench.kernel(text, arguments)
        assert fused(kernel) == expected
        machine = Machine(CHIP, fused=with_fusion)
        addresses = [CHIP.global_base + (number << 24) for number in range(4)]
        for (array, access), address in zip(arguments, addresses, strict=True):
            machine.map(address, array, writable=access == "write")
        machine.run(kernel, addresses)
        outputs.append(out.view(np.uint16))
    assert np.array_equal(outputs[0], outputs[1])


def products(block: Any, codes: Array, scales: Array, zeros: Array, x: Array, *numbers: int) -> Any:
    """The bits of four rows of codes times `x`; `numbers`: signed, groups, steps, rest."""
    signed, *shape = numbers
    factors, points = scales.astype(np.float32), zeros.astype(np.float32)
    held = tuple(row.ctypes.data for row in codes)
    out = np.zeros(4, np.float32)

    @njit(nogil=True)
    def run(rows: Any, others: Any) -> None:
        block(*rows, *others)

    known = (factors.ctypes.data, points.ctypes.data, 0, signed, x.ctypes.data)
    run(held, (*known, *shape, out.ctypes.data))
    return out.view(np.uint32)


@pytest.mark.parametrize("signed", [0, 8])
@pytest.mark.parametrize("missing", ["picks_from_registers", "picks_bytes"])
def test_hosts_that_pick_from_no_register_compute_the_same(
    monkeypatch: pytest.MonkeyPatch, missing: str, signed: int
) -> None:
    numbers = np.random.default_rng(9)
    codes = numbers.integers(-128, 128, (4, 59)).astype(np.int8)
    scales = numbers.random((4, 1)).astype(np.float16)
    zeros = numbers.integers(-9, 9, (4, 1)).astype(np.int8)
    x = np.zeros(128, np.float32)
    x[:117] = numbers.standard_normal(117)
    sums: list[Array] = []
    for as_the_host in (True, False):
        if not as_the_host:
            monkeypatch.setattr(code_products, missing, lambda _: False)
        block = code_products.make_codes_block("nibbles", "f16")
        sums.append(products(block, codes, scales, zeros, x, signed, 1, 7, 5))
    assert np.array_equal(sums[0], sums[1])
    held = (codes.view(np.uint8)[:, :, None] >> np.array([0, 4])) & 15
    values = ((held.reshape(4, 118)[:, :117].astype(int) ^ signed) - signed) - zeros
    weights = (values * scales.astype(np.float64)).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(sums[0].view(np.float32), weights @ x[:117], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero", [-128, -1, 0, 127])
def test_products_with_small_scales_are_rounded_as_others(zero: int) -> None:
    """One code meets x at a time: all codes, with scales of all fractions and exponents."""
    numbers = np.random.default_rng(10)
    bits = numbers.integers(0, 0x5C00, (64, 4, 1)).astype(np.uint16)
    bits[:6] = np.array([0, 1, 0x155, 0x3FF, 0x400, 0x5BFF]).reshape(6, 1, 1)
    negative = numbers.integers(0, 2, bits.shape).astype(np.uint16) << np.uint16(15)
    x = np.ones(16, np.float32)
    codes = np.zeros((4, 256, 16), np.int8)
    codes[:] = zero
    codes[:, :, 3] = np.arange(-128, 128)
    zeros = np.full((4, 256), zero, np.int8)
    small, other = code_products.codes_block_i8_small_f16, code_products.codes_block_i8_f16

    @njit(nogil=True)
    def run(rows: Any, known: Any, x: Any, out: Any) -> None:
        for code in range(256):
            held = (rows + 16 * code, rows + 16 * (code + 256), rows + 16 * (code + 512))
            last = rows + 16 * (code + 768)
            others = (0, 0, x, 1, 1, 0)
            small(*held, last, *known, *others, out + 16 * code)
            other(*held, last, *known, *others, out + 4096 + 16 * code)

    for row_bits in bits | negative:
        scales = row_bits.view(np.float16).astype(np.float32)
        points = zeros[:, :1].astype(np.float32)
        out = np.zeros((2, 256, 4), np.float32)
        known = (scales.ctypes.data, points.ctypes.data)
        run(codes.ctypes.data, known, x.ctypes.data, out.ctypes.data)
        exact = (np.arange(-128, 128)[:, None] - zero) * scales[:, 0].astype(np.float64)
        assert np.array_equal(out[0], exact.astype(np.float16).astype(np.float32))
        assert np.array_equal(out[0], out[1])


@pytest.mark.parametrize("special", [6e-8, 3e-5, 256.0, 65504.0, np.inf, np.nan])
def test_scales_of_all_sizes(bench: Any, special: float) -> None:
    numbers = np.random.default_rng(11)
    codes = numbers.integers(-99, 99, (64, 64)).astype(np.int8)
    scale = numbers.random((64, 1)).astype(np.float16)
    scale[5:50:3] = special
    x = numbers.standard_normal((1, 64)).astype(np.float16)
    text = LISTING.format(then="", stored="1xf16 local=8192/64", pitch=2, last=2)
    outputs: list[Array] = []
    for with_fusion in (False, True):
        out = np.zeros((64, 1), np.float16)
        arguments = [(codes, "read"), (scale, "read"), (x, "read"), (out, "write")]
        kernel = bench.kernel(text, arguments)
        machine = Machine(CHIP, fused=with_fusion)
        addresses = [CHIP.global_base + (number << 24) for number in range(4)]
        for (array, access), address in zip(arguments, addresses, strict=True):
            machine.map(address, array, writable=access == "write")
        machine.run(kernel, addresses)
        outputs.append(out)
    np.testing.assert_array_equal(outputs[0], outputs[1])
