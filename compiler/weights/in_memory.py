"""The weights that a tpu module asks for, made of arrays: what the weight store would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.weights.container import WEIGHT_ELEMENTS
from tilewright.compiler.weights.convert import NotConvertibleError, convert, rejection
from tilewright.compiler.weights.layout import (
    QuantizedRequest,
    WeightRequest,
    group_requests,
    part_shape,
)
from tilewright.compiler.weights.parts import (
    Ranges,
    check_ranges,
    empty_channels,
    small_parts,
)
from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.errors import ModelReadError

Array = npt.NDArray[Any]


def weight_arrays(
    requests: Sequence[WeightRequest], weights: Mapping[str, Array], ranges: Ranges
) -> dict[str, Array]:
    """The requested tensors by name, of `weights` by key (f32, f16 or bf16).

    Scales are f32 where those of a 16-bit type will not do. Raises `ModelReadError` for missing,
    misshapen or non-finite weights, `OptionError` where `ranges` lack an int8 layer.
    """
    groups = list(group_requests(requests).values())
    int8 = [group for group in groups if group.scheme.int8_activations]
    check_ranges([str(group.codes.source_key) for group in int8], ranges)
    arrays = {
        request.name: _dense(request, _source(request, weights))
        for request in requests
        if request.form == "dense"
    }
    wide: set[str | None] = set()
    for group in groups:
        arrays |= _parts(group, weights, ranges, group.scale_element)
        if "scale" in group.parts and arrays[group.parts["scale"].name].dtype == np.float32:
            wide.add(group.codes.source_key)
    for group in groups:
        if group.codes.source_key in wide and group.scale_element != F32:
            arrays |= _parts(group, weights, ranges, F32)
    return arrays


def _parts(
    group: QuantizedRequest, weights: Mapping[str, Array], ranges: Ranges, element: ElementType
) -> dict[str, Array]:
    """All parts of a quantized weight, by name."""
    request, bias = group.codes, None
    made = quantize_weight(
        _source(request, weights), group.scheme, element, name=str(request.source_key)
    )
    key = group.parts["requant"].bias if "requant" in group.parts else None
    if key is not None:
        if key not in weights:
            raise _missing(key, weights)
        bias = weights[key].astype(np.float32)
    empty = empty_channels(made.codes)
    parts = small_parts(group, made.scale, made.zero, empty, bias, ranges)
    parts["codes"] = made.codes
    if "scale" in group.parts:
        parts["scale"] = made.scale
    return {part.name: parts[form] for form, part in group.parts.items()}


def _source(request: WeightRequest, weights: Mapping[str, Array]) -> Array:
    """The array of a request, turned so that its rows are output channels."""
    key = str(request.source_key)
    if key not in weights:
        raise _missing(key, weights)
    array = weights[key]
    oriented = array.shape[::-1] if request.transposed else array.shape
    fits = request.form == "dense" or len(oriented) == 2
    if not fits or part_shape(request, oriented) != request.shape:
        wanted = request.shape[::-1] if request.transposed else request.shape
        raise ModelReadError(
            f"weight {key!r} has shape {list(array.shape)}, not {list(wanted)}",
            why=None if request.form == "dense" else f"its codes are {request.scheme}",
        )
    if array.dtype not in [element.dtype for element in WEIGHT_ELEMENTS.values()]:
        raise ModelReadError(f"weight {key!r} is {array.dtype}, not f32, f16 or bf16")
    return np.ascontiguousarray(array.T if request.transposed else array)


def _missing(key: str, weights: Mapping[str, Array]) -> ModelReadError:
    return ModelReadError(
        f"weight {key!r} is missing", hint=f"given: {', '.join(sorted(weights)) or 'none'}"
    )


def _dense(request: WeightRequest, source: Array) -> Array:
    stored = next(e for e in WEIGHT_ELEMENTS.values() if e.dtype == source.dtype)
    try:
        return convert(source, stored, request.element)
    except NotConvertibleError as error:
        index = np.unravel_index(error.flat_index, source.shape)
        value, place = float(source[index]), tuple(int(i) for i in index)
        raise rejection(str(request.source_key), value, place, request.element) from error
