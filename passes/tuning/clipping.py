"""Limits on weights: a few large ones give way, so that all others get finer steps.

Source: Lin et al., AWQ, arXiv 2306.00978, section 3 (weight clipping), as in the authors' code
(`auto_clip.py`): per group, the limit is searched that makes the group's own output error least.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilewright.dialects.element_types import ElementType
from tilewright.dialects.quantization import Scheme
from tilewright.passes.tuning.data import Array, Statistics
from tilewright.passes.tuning.rounding import round_to_nearest

STEPS = 10
LEAST_PART = 0.5
"""Limits go down to this part of a group's absolute maximum, in `STEPS` steps."""


def clip_to_least_error(
    weight: Array, scheme: Scheme, element: ElementType, statistics: Statistics
) -> Array:
    """`weight[N, K]` with each group of each channel limited to the part of its absolute maximum at
    which `d H_g d^T` is least: `d` the error of the group after rounding to nearest, `H_g` the
    Hessian's block of its inputs (its diagonal without a Hessian)."""
    depth = weight.shape[1]
    group = scheme.group or depth
    clipped = np.array(weight, np.float32)
    for start in range(0, depth, group):
        columns = slice(start, start + group)
        block = np.ascontiguousarray(clipped[:, columns])
        clipped[:, columns] = _clip_group(block, scheme, element, _moments(statistics, columns))
    return clipped


def _moments(statistics: Statistics, columns: slice) -> Array:
    hessian = statistics.hessian
    if hessian is None:
        return np.diag(statistics.mean_abs[columns].astype(np.float32) ** 2)
    return hessian[columns, columns].astype(np.float32)


def _clip_group(block: Array, scheme: Scheme, element: ElementType, moments: Array) -> Array:
    one_group = replace(scheme, group=0)
    absmax = np.max(np.abs(block), axis=1, keepdims=True)
    best, least = block, np.full(len(block), np.inf)
    for step in range(STEPS + 1):
        part = np.float32(1 - (1 - LEAST_PART) * step / STEPS)
        limited = np.clip(block, -absmax * part, absmax * part)
        difference = block - round_to_nearest(limited, one_group, element).values()
        error = np.sum((difference @ moments) * difference, axis=1, dtype=np.float64)
        best = np.where((error < least)[:, None], limited, best)
        least = np.minimum(error, least)
    return best
