"""Inputs that are not in the order of their groups (`desc_act`, "act order").

GPTQ rounds inputs in the order of how much they matter, and groups consecutive ones of that order;
`g_idx` says for each input which group it is in. Sorted by group (stably), the groups are equal
stretches of inputs again: `w[:, order]` has plain groups, and belongs to `x[:, order]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.errors import ModelReadError

Array = npt.NDArray[Any]


def input_order(
    g_idx: Array, groups: int, *, name: str, where: str
) -> npt.NDArray[np.int32] | None:
    """The inputs `i32[K]` in the order of their `groups` groups; none if they are so already.

    `name` stands for the tensor in errors. Raises `ModelReadError` where an input is in no group,
    or groups differ in size.
    """
    depth = len(g_idx)
    wrong = (g_idx < 0) | (g_idx >= groups)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ModelReadError(
            f"tensor {name!r} puts input {first} into group {int(g_idx[first])}",
            where=where,
            why=f"the scales have {groups} groups",
        )
    if bool(np.all(g_idx[1:] >= g_idx[:-1])):
        order = None
    else:
        order = np.argsort(g_idx, kind="stable").astype(np.int32)
    counts = np.bincount(g_idx, minlength=groups)
    if depth % groups or bool(np.any(counts != depth // groups)):
        odd = int(np.argmax(counts != depth // groups))
        raise ModelReadError(
            f"tensor {name!r} puts {int(counts[odd])} inputs into group {odd}",
            where=where,
            why=f"{depth} inputs in {groups} equal groups are {depth / groups:g} each",
        )
    return order
