"""Weight quantization at the speed of memory, by every scheme.

The rules are those of the numerics contract; `backends/reference/numerics.py` states them in plain
NumPy, and this agrees with it to the bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.quantization import CodeFormat, Scheme

if TYPE_CHECKING:
    from tilewright.compiler.weights.loops import Float8, Rule

Array = npt.NDArray[Any]
CodesRule = Literal["stored-scale", "tpu-mlir"]

CODE_RANGES = {CodeFormat.I8: (-128, 127), CodeFormat.I4: (-8, 7), CodeFormat.U4: (0, 15)}
"""The least and the greatest code of the integer formats."""
FLOAT8_MOST = {CodeFormat.F8E4M3: 448.0, CodeFormat.F8E5M2: 57344.0}
"""The largest 8-bit floats."""

_DROPPED_BITS = {F32: 0, F16: 0x1FFF, BF16: 0xFFFF}
"""Bits of an f32 significand that the stored scale does not have."""
_BITS_DTYPE = {F32: np.uint32, F16: np.uint16, BF16: np.int16}
"""What the loops know a type of floats by."""
_INFINITY = {F32: 0x7F800000, F16: 0x7C00, BF16: 0x7F80}
_F16_LEAST = np.float32(2.0**-14)
_F16_MOST = np.float32(65504)
_TPU_MLIR_NARROWEST = np.float32(1e-5)
_PARTS_A_THREAD = 4
"""Threads take turns at parts of a tensor this much smaller than their share, so that they end
together."""


class ScaleOutOfRangeError(Exception):
    """A scale would be subnormal or infinite in f16: the whole tensor takes f32 scales."""


@dataclass(frozen=True)
class RowQuantizer:
    """Quantizes rows (output channels) of one tensor, chunk by chunk.

    `stored` is the type that the scales will be stored in, `name` the tensor, `transposed` whether
    errors give indices of the transpose.
    """

    scheme: Scheme
    stored: ElementType
    name: str
    rule: CodesRule = "stored-scale"
    transposed: bool = False

    def quantize(
        self, rows: Array, codes: Array, scales: Array, zeros: Array, first_row: int = 0
    ) -> None:
        """Writes codes `i8[N, scheme.format.row_bytes(K)]`, scales f32 `[N, G]` (values that
        `stored` holds exactly, but for "tpu-mlir") and, if the scheme has them, zero points `i8[N,
        G]`.

        `rows` is f16, bf16 or f32 `[N, K]`; `first_row` is its place in the tensor. Raises
        `ModelReadError` for NaN and Inf, `ScaleOutOfRangeError` where f16 scales will not do.
        """
        from tilewright.compiler.weights import loops

        element = _element_of_array(rows, self.name)
        rule = _rule(self.scheme, self.stored, self.rule, element)
        if not rows.size:
            scales[...] = 1
            zeros[...] = rule.least_code
            return
        bits = rows.view(_BITS_DTYPE[element])
        if self.scheme.format.is_float:
            form = _float8(self.scheme.format)
            status = loops.quantize_floats(bits, scales, codes, rule, form)
        else:
            narrow = F32 not in (element, self.stored) and self.rule == "stored-scale"
            packed = self.scheme.format.bits == 4
            status = loops.quantize_integers(bits, scales, zeros, codes, rule, narrow, packed)
        if status == loops.SCALE_OUT_OF_RANGE:
            raise ScaleOutOfRangeError
        if status != loops.QUANTIZED:
            self._reject(rows, status, first_row)

    def _reject(self, rows: Array, row: int, first_row: int) -> NoReturn:
        values = rows[row].astype(np.float32)
        column = int(np.argmax(~np.isfinite(values)))
        index = (first_row + row, column)
        raise not_finite(self.name, values[column], index[::-1] if self.transposed else index)


@cache
def _rule(scheme: Scheme, stored: ElementType, codes: CodesRule, element: ElementType) -> Rule:
    """The rule of the loops; `element` is the type of the weight."""
    from tilewright.compiler.weights.loops import Rule

    exact = codes == "stored-scale"
    bounded = exact and stored == F16
    least, most = CODE_RANGES.get(scheme.format, (0, 0))
    steps = FLOAT8_MOST.get(scheme.format, most - least if scheme.zero_point else most)
    if not (exact or scheme.zero_point or (scheme.format == CodeFormat.I8 and not scheme.group)):
        steps = (most - least) / 2  # symmetric groups: twice the absolute maximum over all steps
    return Rule(
        steps=np.float64(steps),
        zero_point=np.bool_(scheme.zero_point),
        widens=np.bool_(exact),
        narrowest=_TPU_MLIR_NARROWEST if scheme.zero_point and not exact else np.float32(0),
        least_code=np.float32(least),
        most_code=np.float32(most),
        drop=np.uint32(_DROPPED_BITS[stored] if exact else 0),
        least_scale=_F16_LEAST if bounded else np.float32(0),
        most_scale=_F16_MOST if bounded else np.float32(np.inf),
        infinity=np.int64(_INFINITY[element]),
    )


@cache
def _float8(code_format: CodeFormat) -> Float8:
    """Source: OCP 8-bit Floating Point Specification (OFP8) 1.0, table 1."""
    from tilewright.compiler.weights.loops import Float8

    mantissa, least_exponent = (3, -6) if code_format == CodeFormat.F8E4M3 else (2, -14)
    bias = 1 - least_exponent
    return Float8(
        shift=np.uint32(23 - mantissa),
        rebias=np.uint32((127 - bias) << mantissa),
        least_normal=np.float32(2.0**least_exponent),
        subnormal=np.float32(2.0 ** (least_exponent - mantissa + 23)),
        most=np.float32(FLOAT8_MOST[code_format]),
    )


def not_finite(name: str, value: Any, index: tuple[int, ...]) -> ModelReadError:
    """The error for a NaN or Inf in a weight."""
    return ModelReadError(
        f"weight {name!r} holds {value} at index {list(index)}",
        why="a weight that is not finite would make its whole output channel NaN",
        hint="the checkpoint is damaged, or was saved after training diverged",
    )


def quantize_weight(
    weight: Array,
    scheme: Scheme,
    scale_element: ElementType,
    *,
    name: str = "weight",
    codes_rule: CodesRule = "stored-scale",
    threads: int = 1,
    out: Array | None = None,
) -> QuantizedWeight:
    """`weight[N, K]`, stored as f16, bf16 or f32, quantized by `scheme` to the nearest codes.

    Scales are stored as `scale_element`: f16, bf16 or f32; as f32 where an f16 scale would be
    subnormal or infinite. `out`, `i8[N, scheme.format.row_bytes(K)]`, takes the codes, if given.
    Raises `ModelReadError` for NaN and Inf, `UnsupportedError` for what is no matrix of floats and
    where groups do not divide `K`, `OptionError` for a rule that there is not.
    """
    check_rule(codes_rule, scheme)
    if weight.ndim != 2:
        raise UnsupportedError(
            f"weight {name!r} has rank {weight.ndim}; only matrices are quantized"
        )
    channels, depth = weight.shape
    if not scheme.fits(depth):
        raise UnsupportedError(
            f"groups of {scheme.group} do not divide the {depth} inputs of weight {name!r}",
            hint="use a group that does, or one scale a channel",
        )
    weight = np.ascontiguousarray(weight)
    shape = (channels, scheme.format.row_bytes(depth))
    codes = np.empty(shape, np.int8) if out is None else out
    if codes.shape != shape or codes.dtype != np.int8 or not codes.flags.c_contiguous:
        raise ValueError(f"the codes take a contiguous i8 array of shape {list(shape)}")
    groups = (channels, scheme.groups(depth))
    scales = np.empty(groups, np.float32)
    zeros = np.zeros(groups if scheme.zero_point else (channels, 1), np.int8)
    parts = (codes, scales, zeros)
    try:
        quantizer = RowQuantizer(scheme, scale_element, name, codes_rule)
        _quantize_parts(quantizer, weight, parts, threads)
    except ScaleOutOfRangeError:
        scale_element = F32
        _quantize_parts(RowQuantizer(scheme, F32, name, codes_rule), weight, parts, threads)
    return QuantizedWeight(
        scheme,
        (channels, depth),
        codes,
        store_scales(scales, scale_element),
        scale_element,
        zeros if scheme.zero_point else None,
    )


def _quantize_parts(
    quantizer: RowQuantizer, weight: Array, parts: tuple[Array, Array, Array], threads: int
) -> None:
    """Quantizes `weight` into its codes, scales and zero points.

    The caller's thread takes parts like the others, in order, and waits for none that has not
    begun. Of several errors, that of the first part is raised.
    """
    count = len(weight)
    if threads <= 1:
        quantizer.quantize(weight, *parts)
        return
    step = max(1, -(-count // (threads * _PARTS_A_THREAD)))

    def part(start: int) -> None:
        codes, scales, zeros = (array[start : start + step] for array in parts)
        quantizer.quantize(weight[start : start + step], codes, scales, zeros, start)

    starts = iter(range(0, count, step))

    def work() -> tuple[int, Exception] | None:
        for start in starts:
            try:
                part(start)
            except (ModelReadError, ScaleOutOfRangeError) as error:
                return start, error
        return None

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    ends = [work(), *(other.result() for other in others if not other.cancel())]
    failed = [end for end in ends if end is not None]
    if failed:
        raise min(failed, key=lambda end: end[0])[1]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that help the caller's: they stay, as starting one can take longer than a weight."""
    return ThreadPoolExecutor(threads)


def store_scales(scales: Array, element: ElementType) -> Array:
    """Scales f32 as they are stored: rounded to `element`."""
    with np.errstate(over="ignore", under="ignore"):
        return scales.astype(element.dtype)


def check_rule(rule: str, scheme: Scheme | None = None) -> None:
    """Raises `OptionError` for a rule of codes that does not exist, or not for `scheme`."""
    if rule not in ("stored-scale", "tpu-mlir"):
        raise OptionError(
            f"unknown rule for codes {rule!r}", hint="one of 'stored-scale', 'tpu-mlir'"
        )
    if rule == "tpu-mlir" and scheme is not None and scheme.format.is_float:
        raise OptionError(
            f"TPU-MLIR has no rule for the codes of {scheme.name}", hint="use 'stored-scale'"
        )


def _element_of_array(array: Array, name: str) -> ElementType:
    for element in (F16, BF16, F32):
        if array.dtype == element.dtype:
            return element
    raise UnsupportedError(f"weight {name!r} is stored as {array.dtype}, not as f16, bf16 or f32")
