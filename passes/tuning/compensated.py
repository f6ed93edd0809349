"""GPTQ: columns are rounded one after the other, and the columns that are still to come make up for
each error.

Source: Frantar, Ashkboos, Hoefler, Alistarh, GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers, arXiv 2210.17323, algorithm 1. With `H = E[x x^T]` the error
of column `i`, `e = (w_i - q_i) / U_ii`, is made up for by `w_j -= e * U_ij` for `j > i`, where `U`
is the upper Cholesky factor of `H^-1` (`U^T U = H^-1`).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from threadpoolctl import ThreadpoolController
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.passes.tuning import loops
from tilewright.passes.tuning.data import Array
from tilewright.passes.tuning.rounding import Rounded, round_to_nearest

BLOCK = 128
"""Columns whose errors are handed on to the rest of the matrix in one product."""
ROWS = 128
"""Output channels at a time: few enough that they stay in the cache."""
MOST_THREADS = 8
_TRIANGLE = 64
"""Triangles up to this size are inverted at once."""
_LIMITS = {CodeFormat.I4: (-8, 7), CodeFormat.U4: (0, 15)}


@dataclass(frozen=True)
class Compensation:
    """How to go about it.

    `damping` times the mean of H's diagonal is added to it. With `act_order` columns with the
    largest inputs come first, and later ones make up for them; the groups of the stored layout stay
    neighbours, so their scales are found beforehand, as with `static_groups`. Else the scale of a
    group is found when it is reached, from the weights as they have become.
    """

    damping: float = 0.01
    act_order: bool = True
    static_groups: bool = False


DEFAULT = Compensation()


def round_with_compensation(
    weight: Array,
    hessian: Array,
    scheme: Scheme,
    element: ElementType,
    how: Compensation = DEFAULT,
) -> Rounded:
    """`weight` f32 `[N, K]` on the grid of an integer `scheme`, its scales as `round_to_nearest`.

    `hessian` is f64 `[K, K]`, symmetric. Inputs that are always 0 (a 0 on its diagonal) are rounded
    to nearest. Raises `OptionError` where the damped Hessian is not positive definite.
    """
    depth = weight.shape[1]
    damped = _damped(hessian, how.damping)
    order = np.arange(depth)
    if how.act_order:
        order = np.argsort(-np.diag(damped), kind="stable")
        damped = damped[np.ix_(order, order)]
    upper = inverse_factor(damped).astype(np.float32)
    try:
        return _Rounding(scheme, element, how, order, upper).run(weight)
    except _ScaleNeedsF32Error:
        return _Rounding(scheme, F32, how, order, upper).run(weight)


def code_limits(scheme: Scheme) -> tuple[int, int]:
    """The least and the greatest code of an integer scheme."""
    if scheme.format == CodeFormat.I8:
        return (-128 if scheme.zero_point else -127, 127)
    return _LIMITS[scheme.format]


class _ScaleNeedsF32Error(Exception):
    """A group's scale cannot be stored as f16: the whole tensor takes f32 scales."""


@dataclass
class _Rounding:
    scheme: Scheme
    element: ElementType
    how: Compensation
    order: Array
    """The columns in the order in which they are rounded."""
    upper: Array

    def run(self, weight: Array) -> Rounded:
        chunks = [weight[n : n + ROWS] for n in range(0, len(weight), ROWS)]
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        # Products of a chunk are small: a thread for each chunk, rather than all for each product.
        with (
            ThreadpoolController().limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(threads) as pool,
        ):
            parts = list(pool.map(self._rows, chunks))
        zero = None
        if self.scheme.zero_point:
            zero = np.concatenate([part.zero for part in parts if part.zero is not None])
        return Rounded(
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.scale for part in parts]),
            zero,
            self.scheme.format,
        )

    def _rows(self, rows: Array) -> Rounded:
        """Rounds output channels, which do not depend on each other."""
        depth = rows.shape[1]
        group = self.scheme.group or depth
        grid = _Grid(self.scheme, self.element, len(rows), depth // group)
        is_static = self.how.static_groups or self.how.act_order or group == depth
        if is_static:
            grid.find(rows, 0, group)
        work = rows[:, self.order].astype(np.float32)
        codes = np.empty(rows.shape, np.int8)
        for start, stop in _blocks(depth, group):
            block = np.ascontiguousarray(work[:, start:stop])
            block_codes = np.empty(block.shape, np.int8)
            errors = np.empty_like(block)
            triangle = np.ascontiguousarray(self.upper[start:stop, start:stop])
            step = stop - start if is_static else group
            for column in range(0, stop - start, step):
                if not is_static:
                    grid.find(block[:, column : column + step], (start + column) // group, group)
                loops.round_columns(
                    block,
                    (column, min(column + step, stop - start)),
                    self.order[start:stop] // group,
                    grid.steps,
                    grid.shifts,
                    triangle,
                    code_limits(self.scheme),
                    block_codes,
                    errors,
                )
            codes[:, self.order[start:stop]] = block_codes
            if stop < depth:
                work[:, stop:] -= errors @ self.upper[start:stop, stop:]
        zero = grid.zero if self.scheme.zero_point else None
        return Rounded(codes, grid.scale, zero, self.scheme.format)


class _Grid:
    """Scales and zero points of some channels, found group by group."""

    def __init__(self, scheme: Scheme, element: ElementType, channels: int, groups: int) -> None:
        self.scheme, self.element = scheme, element
        self.scale = np.empty((channels, groups), element.dtype)
        self.zero = np.zeros((channels, groups), np.int8)
        self.steps = np.empty((channels, groups), np.float32)
        self.shifts = np.zeros((channels, groups), np.float32)

    def find(self, columns: Array, first: int, group: int) -> None:
        """Find the groups of `columns`, the first of which is group `first`."""
        count = columns.shape[1] // group
        scheme = replace(self.scheme, group=group if count > 1 else 0)
        found = round_to_nearest(np.ascontiguousarray(columns), scheme, self.element)
        if found.scale.dtype != self.element.dtype:
            raise _ScaleNeedsF32Error
        groups = slice(first, first + count)
        self.scale[:, groups] = found.scale
        self.steps[:, groups] = found.scale.astype(np.float32)
        if found.zero is not None:
            self.zero[:, groups] = found.zero
            self.shifts[:, groups] = found.zero


def _blocks(depth: int, group: int) -> list[tuple[int, int]]:
    """Ranges of about `BLOCK` columns that hold whole groups (a channel is no group)."""
    width = BLOCK if group == depth else max(1, BLOCK // group) * group
    return [(start, min(start + width, depth)) for start in range(0, depth, width)]


def _damped(hessian: Array, damping: float) -> Array:
    """H with something added to its diagonal; inputs that are always 0 are independent."""
    damped = hessian.astype(np.float64)
    diagonal = np.diag(damped).copy()
    mean = float(diagonal.mean())
    diagonal[diagonal == 0] = mean if mean > 0 else 1.0
    np.fill_diagonal(damped, diagonal + damping * mean)
    return damped


def inverse_factor(matrix: Array) -> Array:
    """The upper triangular `U` with `U^T U = matrix^-1`, f64.

    With rows and columns in reverse order `matrix = R R^T`, R upper triangular; `U = R^-1`. Raises
    `OptionError` where the matrix is not positive definite.
    """
    try:
        factor = np.linalg.cholesky(matrix[::-1, ::-1])[::-1, ::-1]
    except np.linalg.LinAlgError:
        raise OptionError(
            "the Hessian is not positive definite",
            why="rounding errors of its sum are larger than what is added to its diagonal",
            hint="more calibration data, or a larger percdamp",
        ) from None
    return _inverse_of_upper(np.ascontiguousarray(factor))


def _inverse_of_upper(upper: Array) -> Array:
    """The inverse of an upper triangular matrix, by halves: all but small ones are products."""
    size = len(upper)
    if size <= _TRIANGLE:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    inverse = np.zeros_like(upper)
    inverse[:half, :half] = _inverse_of_upper(upper[:half, :half])
    inverse[half:, half:] = _inverse_of_upper(upper[half:, half:])
    inverse[:half, half:] = -(inverse[:half, :half] @ upper[:half, half:] @ inverse[half:, half:])
    return inverse
