"""From the memory plan to what is asked of the weight store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from tilewright.compiler.memory_plan import MemoryPlan
from tilewright.compiler.weights.layout import Form, WeightRequest

_FORMS: Mapping[str, Form] = {form: form for form in get_args(Form)}


def weight_requests(
    plan: MemoryPlan, tables: Mapping[str, np.ndarray[Any, Any]]
) -> list[WeightRequest]:
    """What the weight file must hold, in the order of the memory plan; `tables` are the weights
    that are computed, by key."""
    requests: list[WeightRequest] = []
    for slot in plan.weights.values():
        table = tables.get(slot.key)
        requests.append(
            WeightRequest(
                slot.name,
                slot.key if table is None else None,
                _FORMS[slot.form],
                slot.element,
                slot.shape,
                slot.transposed,
                array=None if table is None else table.astype(slot.element.dtype),
                scheme=slot.scheme,
                bias=slot.bias,
            )
        )
    return requests
