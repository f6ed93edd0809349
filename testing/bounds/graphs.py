"""Bounds of errors composed through a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.quantization import Scheme
from tilewright.testing.bounds.weights import quantization_error_bound
from tilewright.testing.formats import FLOAT16, code_range, code_steps, spacing, unit_roundoff

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.ir import Operation

    from tilewright.backends.reference.balls import Ball

Array = npt.NDArray[Any]

_FUNCTION_ULPS = 4
_STORED_SCALE = 2.0**-7
"""Scales that are rounded up to bf16 are larger by at most this share."""


def graph_error_bound(
    module: ModuleOp,
    inputs: Sequence[Array],
    weights: Mapping[str, Array],
    *,
    weight_errors: Mapping[str, Array | float] | None = None,
    activations: npt.DTypeLike | None = None,
    function: str = "main",
) -> list[tuple[Array, Array]]:
    """The results of a function of a `top` module, each with the largest error that wrong weights
    and rounding lead to: pairs of f64 arrays `(value, bound)`.

    `weights` are by resolved key, `weight_errors` the largest error of each element (0 if left
    out); `activations` is the type that every operation is rounded to, none for exact arithmetic.

    Derivation. Each value is a ball: what was computed, and a radius within which the exact value
    lies. An op maps balls to a ball that holds every result on what they hold
    (`backends/reference/primitives` has each rule: for a product `|a| rb + |b| ra + ra rb`, for a
    function its largest slope over the ball times the radius). Rounding to `activations` adds `u`
    of each result: more than machines do that compute an op in f32 and round once. Radii add up as
    if all errors conspired, so this is a proof and no estimate: for deep models it says nothing.

    Raises what `run_with_bounds` raises for inputs and weights that do not fit.
    """
    from tilewright.backends.reference.balls import FLOAT64, Arithmetic, Ball
    from tilewright.backends.reference.executor import run_with_bounds

    errors = weight_errors or {}
    arithmetic, unit = FLOAT64, 0.0
    if activations is not None:
        dtype = np.dtype(activations)
        # One rounding to the type, and operations in f32 before it.
        unit = unit_roundoff(dtype) * (1 + 2.0**-4)
        tiny = float(spacing(np.zeros(1), dtype)[0])
        function_error = unit * _FUNCTION_ULPS
        arithmetic = Arithmetic(
            f"float64 with errors of {dtype.name}",
            np.dtype(np.float64),
            unit,
            function_error,
            tiny,
            False,
        )

    def ball(array: Array, error: Array | float) -> Ball:
        value = np.asarray(array, np.float64)
        return Ball(value, np.asarray(error + np.abs(value) * unit, np.float64))

    def weight(key: str, op: Operation) -> Ball:
        del op
        return ball(weights[key], errors.get(key, 0.0))

    results = run_with_bounds(
        module,
        function,
        [ball(x, 0.0) for x in inputs],
        weights=weight,
        states={},
        arithmetic=arithmetic,
    )
    return [(made.value.astype(np.float64), np.array(made.radii)) for made in results]


def largest_weight_error(weight: Array, scheme: Scheme) -> Array:
    """The largest error of each element of a weight `[N, K]` under any quantizer that rounds to
    nearest with a scale that fits the range, f64[N, K].

    Half a step of the ideal scale (`range / steps`), with what storing it in bf16 may add, and the
    rounding of the dequantized weight to f16.
    """
    wide = np.asarray(weight, np.float64)
    groups = wide.reshape(len(wide), scheme.groups(wide.shape[1]), -1)
    low = np.minimum(groups.min(axis=-1), 0)
    high = np.maximum(groups.max(axis=-1), 0)
    reach = high - low if scheme.zero_point else np.maximum(high, -low)
    scale = reach / code_steps(scheme) * (1 + _STORED_SCALE)
    safe = np.repeat(np.where(scale == 0, 1.0, scale), groups.shape[-1], axis=1)
    # The code next to w / s, whose binade may be the next one.
    top = code_range(scheme)[1]
    codes = np.minimum(np.abs(wide / safe) * (1 + 2.0**-3), top)
    bound = quantization_error_bound(scale, codes, scheme)
    return bound + np.abs(wide) * 2 * unit_roundoff(FLOAT16.dtype)
