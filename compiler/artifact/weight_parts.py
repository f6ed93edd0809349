"""What must hold of the parts of quantized weights: each fits its codes.

Shapes and types are in the manifest; of the data only the small parts are looked at, which the
machine computes with: zero points, tables of requantization, scales of activations. Codes may be
anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.requant import MAX_SHIFT, MIN_SHIFT, MULTIPLIER, SHIFT
from tilewright.compiler.artifact.manifest import TensorRecord
from tilewright.compiler.weights.quantize import CODE_RANGES
from tilewright.dialects.element_types import element_by_name
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme, parse_scheme

Parts = Mapping[str, TensorRecord]
MOST_STORED_ZERO = 16
"""Of unsigned 4-bit codes: the first GPTQ format stores zero points one too little, up to 15."""
_ACTIVATION_SCALES = ("input_scale", "output_scale")


def part_problems(tensors: Sequence[TensorRecord], data: memoryview) -> Iterator[str]:
    """Everything wrong with the quantized weights of an artifact; `data` are those of its weights
    member, in which the tensors lie."""
    found: dict[tuple[str, str], dict[str, TensorRecord]] = {}
    for tensor in tensors:
        if tensor.form == "dense":
            if tensor.scheme:
                yield f"tensor {tensor.name!r} is dense and has the scheme {tensor.scheme!r}"
            continue
        base = tensor.name.removesuffix(f".{tensor.form}")
        if base == tensor.name:
            yield f"tensor {tensor.name!r} is not called after its form, {tensor.form}"
        found.setdefault((base, tensor.scheme), {})[tensor.form] = tensor
    for (base, name), parts in found.items():
        try:
            scheme = parse_scheme(name)
        except OptionError:
            yield f"weight {base!r} has the unknown scheme {name!r}"
            continue
        for why in _weight_problems(scheme, parts, data):
            yield f"weight {base!r} ({name}): {why}"


def _weight_problems(scheme: Scheme, parts: Parts, data: memoryview) -> Iterator[str]:
    wanted = {"codes", "scale", "zero"} if scheme.zero_point else {"codes", "scale"}
    if scheme.int8_activations:
        wanted = {"codes", "requant", *(form for form in _ACTIVATION_SCALES if form in parts)}
    if set(parts) != wanted:
        yield f"its parts are {', '.join(sorted(parts))}, not {', '.join(sorted(wanted))}"
        return
    codes = parts["codes"].shape
    if len(codes) != 2:
        yield f"codes have shape {list(codes)}"
        return
    for form, part in sorted(parts.items()):
        if not _fits(scheme, codes, form, part, parts):
            yield f"{form} is {part.element} {list(part.shape)}, its codes {list(codes)}"
            return
    for form in _ACTIVATION_SCALES:
        if form in parts:
            value = float(_array(parts[form], data)[0, 0])
            if not (np.isfinite(value) and value > 0):
                yield f"{form} is {value}"
    if "zero" in parts and parts["zero"].size_bytes:
        zero, (least, most) = _array(parts["zero"], data), CODE_RANGES[scheme.format]
        most = max(most, MOST_STORED_ZERO)
        if int(zero.min()) < least or int(zero.max()) > most:
            yield f"zero points are not in {least}..{most}"
    if "requant" in parts and parts["requant"].size_bytes:
        table = _array(parts["requant"], data)
        shifts, multipliers = table[:, SHIFT], table[:, MULTIPLIER]
        if int(shifts.min()) < MIN_SHIFT or int(shifts.max()) > MAX_SHIFT:
            yield f"shifts of requant are not in {MIN_SHIFT}..{MAX_SHIFT}"
        if int(multipliers.min()) < 0:
            yield "a multiplier of requant is negative"


def _fits(
    scheme: Scheme, codes: tuple[int, ...], form: str, part: TensorRecord, parts: Parts
) -> bool:
    """Whether a part has the element type and shape that go with codes of a shape."""
    channels, width = codes
    if form in _ACTIVATION_SCALES:
        return part.element == "f32" and part.shape == (1, 1)
    if form == "requant":
        return part.element == "i32" and part.shape == (channels, 3)
    if form == "codes":
        return part.element == "i8"
    if form == "zero":
        return part.element == "i8" and part.shape == parts["scale"].shape
    if not element_by_name(part.element).is_float or len(part.shape) != 2:
        return False
    rows, groups = part.shape
    if not scheme.group:
        return (rows, groups) == (channels, 1)
    return rows == channels and scheme.format.row_bytes(groups * scheme.group) == width


def _array(tensor: TensorRecord, data: memoryview) -> npt.NDArray[Any]:
    part = data[tensor.offset : tensor.offset + tensor.size_bytes]
    return np.frombuffer(part, element_by_name(tensor.element).dtype).reshape(tensor.shape)
