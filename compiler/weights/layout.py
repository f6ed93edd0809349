"""What is asked of the weight store, where each tensor goes in the file, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilewright.compiler.weights.safetensors_header import HeaderEntry, format_header
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType
from tilewright.dialects.errors import InternalError
from tilewright.dialects.quantization import DEFAULT_SCHEME, Scheme, parse_scheme

Form = Literal["dense", "codes", "scale", "zero", "requant", "input_scale", "output_scale"]
"""The forms of `tpu.Weight`, which see."""

SAFETENSORS_DTYPES = {F32: "F32", F16: "F16", BF16: "BF16", I8: "I8", I32: "I32"}
DATA_ALIGNMENT = 4096
"""The data of the first tensor begins at a multiple of this in the file."""
PADDING_NAME = "__padding__"
"""A tensor of bytes that aligns those behind it (the format allows no gaps)."""
_WIDEST = 4


@dataclass(frozen=True)
class WeightRequest:
    """A tensor that the tpu module asks for.

    `dense`: the source converted to `element`. The other forms are parts of the source quantized by
    `scheme`; those of one weight are asked for together, and made in one pass.
    """

    name: str
    """The tensor's name in the artifact: no two requests share one."""
    source_key: str | None
    """The tensor of the checkpoint; `None` for a computed table."""
    form: Form
    element: ElementType
    shape: tuple[int, ...]
    """The shape in the artifact."""
    transposed: bool = False
    """The source is stored as the transpose of `shape`."""
    rows: tuple[int, int] | None = None
    """The range of output channels that is asked for: the source's rows, or columns if
    `transposed`."""
    array: npt.NDArray[Any] | None = None
    """The values of a computed table, already of type `element`."""
    scheme: str = DEFAULT_SCHEME
    """Of all forms but `dense`."""
    bias: str | None = None
    """The tensor of the checkpoint that `requant` takes in as the bias."""

    @property
    def source(self) -> tuple[str | None, str, tuple[int, int] | None]:
        """What the parts of one quantized weight have in common."""
        return self.source_key, self.scheme, self.rows


@dataclass(frozen=True)
class QuantizedRequest:
    """The parts of one quantized weight, by form; `codes` are among them."""

    scheme: Scheme
    parts: Mapping[Form, WeightRequest]

    @property
    def codes(self) -> WeightRequest:
        """The request that the others go with."""
        return self.parts["codes"]

    @property
    def scale_element(self) -> ElementType:
        """What scales are stored as; f32 where they are not stored, but only computed with."""
        return self.parts["scale"].element if "scale" in self.parts else F32

    @property
    def small(self) -> tuple[WeightRequest, ...]:
        """The parts of a known size beside the codes."""
        return tuple(r for form, r in self.parts.items() if form not in ("codes", "scale"))


_ACTIVATION_SCALES: tuple[Form, ...] = ("input_scale", "output_scale")
_ELEMENTS: dict[Form, ElementType] = {
    "codes": I8,
    "zero": I8,
    "requant": I32,
    "input_scale": F32,
    "output_scale": F32,
}


def group_requests(requests: Sequence[WeightRequest]) -> dict[str, QuantizedRequest]:
    """The quantized weights among the requests, by the names of their codes.

    Raises `InternalError` where parts are missing, are asked for twice, or do not go together.
    """
    found: dict[tuple[str | None, str, tuple[int, int] | None], dict[Form, WeightRequest]] = {}
    for request in requests:
        if request.form == "dense":
            continue
        parts = found.setdefault(request.source, {})
        if parts.setdefault(request.form, request) is not request:
            raise _not_together(request)
    groups: dict[str, QuantizedRequest] = {}
    for parts in found.values():
        any_part = next(iter(parts.values()))
        scheme = parse_scheme(any_part.scheme)
        wanted = {"codes", "scale", "zero"} if scheme.zero_point else {"codes", "scale"}
        optional: set[Form] = set()
        if scheme.int8_activations:
            wanted, optional = {"codes", "requant"}, set(_ACTIVATION_SCALES)
        if set(parts) - optional != wanted:
            raise _not_together(any_part)
        for form, request in parts.items():
            turned = request.transposed != parts["codes"].transposed
            if request.element != _ELEMENTS.get(form, request.element) or (
                turned and form not in _ACTIVATION_SCALES
            ):
                raise _not_together(request)
        groups[parts["codes"].name] = QuantizedRequest(scheme, parts)
    return groups


def _not_together(request: WeightRequest) -> InternalError:
    return InternalError(
        f"the parts of weight {request.source_key!r} as {request.scheme} are not asked for "
        f"together, once: {request.name!r}"
    )


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the artifact. `offset` counts from the first byte of the weights file."""

    name: str
    form: Form
    element: ElementType
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    sha256: str
    scheme: str = ""
    """Of all forms but `dense`."""


@dataclass(frozen=True)
class Place:
    """Bytes `offset .. offset + size_bytes` of the data (behind the header)."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Layout:
    """The places of everything but the scales, whose types the data decides: they come last."""

    order: tuple[WeightRequest, ...]
    places: dict[str, Place]
    padding: Place | None
    header_bytes: int
    scales: tuple[WeightRequest, ...]
    scales_offset: int

    @property
    def most_bytes(self) -> int:
        """Size of the file if all scales are f32."""
        count = sum(math.prod(request.shape) for request in self.scales)
        return self.header_bytes + self.scales_offset + count * F32.size_bytes


def plan_layout(requests: Sequence[WeightRequest]) -> Layout:
    """Wide elements first, then narrow ones, then the scales, each in the order of the requests."""
    names = [request.name for request in requests]
    if len(set(names)) != len(names) or PADDING_NAME in names:
        raise InternalError("two weights of the artifact share a name")
    order = sorted(
        (request for request in requests if request.form != "scale"),
        key=lambda request: -request.element.size_bytes,
    )
    places: dict[str, Place] = {}
    end = 0
    for request in order:
        size = math.prod(request.shape) * request.element.size_bytes
        places[request.name] = Place(end, size)
        end += size
    scales = tuple(request for request in requests if request.form == "scale")
    padding = Place(end, -end % _WIDEST) if scales and end % _WIDEST else None
    end += padding.size_bytes if padding else 0
    layout = Layout(tuple(order), places, padding, 0, scales, end)
    longest = len(format_header(header_entries(layout, {request.name: F32 for request in scales})))
    longest += len(scales)  # "BF16" has a letter more than "F32"
    header = -(-longest // DATA_ALIGNMENT) * DATA_ALIGNMENT
    return Layout(layout.order, places, padding, header, scales, end)


def scale_places(layout: Layout, elements: dict[str, ElementType]) -> dict[str, Place]:
    """Where the scales go, their types being known: f32 first, so that all are aligned."""
    places: dict[str, Place] = {}
    end = layout.scales_offset
    for request in sorted(layout.scales, key=lambda r: -elements[r.name].size_bytes):
        size = math.prod(request.shape) * elements[request.name].size_bytes
        places[request.name] = Place(end, size)
        end += size
    return places


def header_entries(layout: Layout, elements: dict[str, ElementType]) -> list[HeaderEntry]:
    """The entries of the file's header, in the order of the data; `elements` are those of the
    scales."""
    places = {**layout.places, **scale_places(layout, elements)}
    entries = [
        HeaderEntry(
            request.name,
            SAFETENSORS_DTYPES[elements.get(request.name, request.element)],
            request.shape,
            places[request.name].offset,
            places[request.name].size_bytes,
        )
        for request in (*layout.order, *layout.scales)
    ]
    if layout.padding is not None:
        size = layout.padding.size_bytes
        entries.append(HeaderEntry(PADDING_NAME, "U8", (size,), layout.padding.offset, size))
    return sorted(entries, key=lambda entry: (entry.begin, entry.size_bytes))


def check_source(request: WeightRequest, shape: tuple[int, ...]) -> None:
    """Raises `InternalError` where a source of `shape` does not give what is requested."""
    oriented = shape[::-1] if request.transposed else shape
    if request.rows is not None and oriented:
        start, stop = request.rows
        inside = 0 <= start <= stop <= oriented[0]
        oriented = (stop - start if inside else -1, *oriented[1:])
    if request.form == "dense" and not request.transposed:
        fits = math.prod(oriented) == math.prod(request.shape) and -1 not in oriented
    else:
        fits = len(shape) == 2 and part_shape(request, oriented) == request.shape
    if not fits:
        raise InternalError(
            f"weight {request.name!r} ({request.form}) is asked for as {list(request.shape)}; its "
            f"source {request.source_key!r} is {list(shape)}, rows {request.rows}"
        )


def part_shape(request: WeightRequest, matrix: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a form of the `matrix` `[N, K]`; none where groups do not divide `K`."""
    if request.form == "dense":
        return matrix
    channels, depth = matrix
    scheme = parse_scheme(request.scheme)
    if not scheme.fits(depth):
        return None
    if request.form == "codes":
        return channels, scheme.format.row_bytes(depth)
    if request.form in ("scale", "zero"):
        return channels, scheme.groups(depth)
    return (channels, 3) if request.form == "requant" else (1, 1)


def table_bytes(request: WeightRequest) -> npt.NDArray[np.uint8]:
    """The bytes of a computed table; raises `InternalError` where it is not what the request
    says."""
    array = request.array
    if array is None or array.dtype != request.element.dtype or array.shape != request.shape:
        raise InternalError(
            f"the table {request.name!r} is not {request.element.name} {list(request.shape)}"
        )
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
