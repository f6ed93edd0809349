"""What is tested: a quantizer of anybody's, with what it can do besides quantizing.

The least is a function `weight[N, K] -> (codes[N, K], scale[, zero])`. A `Quantizer` adds further
abilities, each of which lets the suite check more; an object with methods of the same names will do
as well (`WeightQuantizer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme, parse_scheme
from tilewright.testing.formats import code_limit, code_range, code_values

Array = npt.NDArray[Any]
Parts = tuple[Array, ...]
"""`(codes, scale)` or `(codes, scale, zero)`; `zero` may be None."""


class WeightQuantizer(Protocol):
    """The least that an object has to have. Methods named as `Quantizer`'s fields add abilities."""

    def quantize(self, weight: Array, /) -> Sequence[Any]:
        """`(codes[N, K], scale[, zero])` of `weight[N, K]`."""
        ...


@dataclass(frozen=True)
class Quantizer:
    """A quantizer and what it can do. Whatever is None is not there, and properties that need it do
    not apply.
    """

    quantize: Callable[[Array], Sequence[Any]]
    """`weight[N, K] -> (codes, scale)` or `(codes, scale, zero)`: codes `[N, K]`, integers (8-bit
    floats: their bits, or ml_dtypes floats); scale and zero `[N, G]`, `[N]` or, for a single one,
    of any shape. A weight is `(code - zero) * scale`."""
    with_scheme: Callable[[Scheme], Callable[[Array], Sequence[Any]]] | None = None
    """The same quantizer for another scheme (other groups)."""
    dequantize: Callable[..., Array] | None = None
    """`(codes, scale[, zero]) -> weight[N, K]`, of the parts that `quantize` returned."""
    pack: Callable[[Array], Array] | None = None
    """Codes `[N, K]` of 4 bits to bytes `[N, ceil(K / 2)]`, the first code in the low nibble."""
    unpack: Callable[[Array, int], Array] | None = None
    """`(bytes, K) -> codes[N, K]`."""
    serialize: Callable[..., bytes] | None = None
    """`(codes, scale[, zero]) -> bytes`."""
    deserialize: Callable[[bytes], Sequence[Any]] | None = None
    """What was serialized."""
    matmul: Callable[..., Array] | None = None
    """`(x[M, K], codes, scale[, zero]) -> y[M, N]`: `x @ weight.T`, with sums in f32 or better and
    a result of the type of `x`, or of a wider one."""
    activations: npt.DTypeLike = np.float16
    """The type of activations that `matmul` takes."""
    int_matmul: Callable[[Array, Array, Array], Array] | None = None
    """`(x i8[M, K], codes i8[N, K], bias i32[N]) -> i32[M, N]`, exactly."""
    requantize: Callable[[Array, float], Array] | None = None
    """`(sums i32[...], factor) -> i8[...]`: `sums * factor`, rounded and saturated."""
    calibrate: Callable[[Sequence[Array]], float] | None = None
    """The range (a largest magnitude) from batches of activations `[rows, K]`."""
    quantize_clipped: Callable[[Array], Sequence[Any]] | None = None
    """As `quantize`, with scales that are searched for the least squared error."""
    run_lowered: Callable[..., Sequence[Array]] | None = None
    """`(graph) -> results`: a `TopGraph` compiled under the scheme and executed."""

    @staticmethod
    def of(subject: Quantizer | WeightQuantizer | Callable[[Array], Sequence[Any]]) -> Quantizer:
        """The quantizer that a function or an object is; raises `OptionError` if it is none."""
        if isinstance(subject, Quantizer):
            return subject
        if not hasattr(subject, "quantize"):
            if callable(subject):
                return Quantizer(subject)
            raise OptionError(
                f"a {type(subject).__name__} is not a quantizer",
                hint="give a function weight[N, K] -> (codes, scale[, zero]), or an object with "
                "the method quantize",
            )
        names = [field.name for field in fields(Quantizer)]
        found = {name: getattr(subject, name) for name in names if hasattr(subject, name)}
        return Quantizer(**found)

    def can(self, ability: str) -> bool:
        """Whether the field called `ability` is there."""
        return getattr(self, ability) is not None


class PropertyError(AssertionError):
    """A property that does not hold, and where."""


@dataclass(frozen=True)
class Quantized:
    """What a quantizer made of a weight, in one form.

    `codes` f64[N, K] are the values of the codes, `scale` f64[N, G], `zero` f64[N, G] (0 if there
    are none); `parts` is what was returned.
    """

    codes: Array
    scale: Array
    zero: Array
    parts: Parts

    @property
    def steps(self) -> Array:
        """`codes - zero`, f64[N, K]."""
        return self.codes - self.wide(self.zero)

    @property
    def values(self) -> Array:
        """The weights that the codes stand for, f64[N, K], exact: codes have at most 9 bits and
        scales 24."""
        with np.errstate(all="ignore"):
            return self.steps * self.wide(self.scale)

    def wide(self, by_group: Array) -> Array:
        """`[N, G]` as `[N, K]`."""
        return np.repeat(by_group, self.codes.shape[1] // by_group.shape[1], axis=1)


@dataclass(frozen=True)
class Subject:
    """A quantizer under test: what it can do, the scheme that it claims, what it takes."""

    quantizer: Quantizer
    scheme: Scheme
    dtypes: tuple[np.dtype[Any], ...] = (np.dtype(np.float32),)
    """The types of weights that it takes; the first is what it is given."""

    @staticmethod
    def of(
        quantizer: Quantizer | WeightQuantizer | Callable[[Array], Sequence[Any]],
        scheme: Scheme | str,
        dtypes: Sequence[npt.DTypeLike] = (np.float32,),
    ) -> Subject:
        """The subject that the arguments of `check_weight_quantizer` describe."""
        parsed = parse_scheme(scheme) if isinstance(scheme, str) else scheme
        return Subject(Quantizer.of(quantizer), parsed, tuple(np.dtype(d) for d in dtypes))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the weights it is given."""
        return self.dtypes[0]

    @property
    def is_integer(self) -> bool:
        """Whether codes are integers."""
        return not self.scheme.format.is_float

    @property
    def limit(self) -> float:
        """The largest code."""
        return code_limit(self.scheme)

    def groups(self, array: Array) -> Array:
        """`[N, K]` as `[N, G, K / G]`."""
        count = self.scheme.groups(array.shape[1])
        return array.reshape(len(array), count, -1)

    def quantize(self, weight: Array) -> Quantized:
        """The parts of `weight`, in one form; `PropertyError` for shapes that do not fit."""
        with np.errstate(all="ignore"):
            return self.read(self.quantizer.quantize(weight), weight.shape)

    def read(self, parts: Sequence[Any], shape: tuple[int, ...]) -> Quantized:
        """Parts as returned for a weight of `shape`, in one form."""
        if len(parts) not in (2, 3):
            raise PropertyError(
                f"(codes, scale) or (codes, scale, zero) is returned, not {len(parts)}"
            )
        codes = np.asarray(parts[0])
        scale = np.asarray(parts[1])
        zero = None if len(parts) == 2 or parts[2] is None else np.asarray(parts[2])
        if codes.shape != shape:
            raise PropertyError(f"codes of a weight {list(shape)} have shape {list(codes.shape)}")
        values = code_values(codes, self.scheme.format)
        groups = (shape[0], self.scheme.groups(shape[1]))
        whole_scale = _by_group(scale, groups, "scale")
        whole_zero = np.zeros(groups) if zero is None else _by_group(zero, groups, "zero")
        raw = (codes, scale) if zero is None else (codes, scale, zero)
        return Quantized(values, whole_scale, whole_zero, raw)

    def in_range(self, codes: Array) -> Array:
        """Whether each code is one of the format's."""
        low, high = code_range(self.scheme)
        return (codes >= low) & (codes <= high)


def _by_group(array: Array, groups: tuple[int, int], what: str) -> Array:
    """`array` as f64[N, G]; one for all, or one a channel, is repeated."""
    wide = array.astype(np.float64)
    if wide.shape == groups:
        return wide
    if wide.size == groups[0] * groups[1]:
        return wide.reshape(groups)
    if wide.size == 1:
        return np.full(groups, wide.reshape(()))
    raise PropertyError(f"{what} has shape {list(array.shape)}, not {list(groups)}")
