"""Makes the weights that the tpu module asks for and writes them as a safetensors file, in one pass
over the checkpoint.

Each weight goes through small buffers, chunk by chunk, straight to its final place; several weights
are under way at once (reading, quantizing, hashing and writing all release the GIL). Only the
scales wait in memory: their type, f16 or f32, is known when the last row of a weight is, so they
come last in the file, and the header is written at the end into the space kept for it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.checksum import combine_crc32
from tilewright.compiler.output import OutputFile
from tilewright.compiler.weights.layout import (
    Form,
    Layout,
    Place,
    QuantizedRequest,
    StoredTensor,
    WeightRequest,
    check_source,
    group_requests,
    header_entries,
    plan_layout,
    scale_places,
)
from tilewright.compiler.weights.parts import Ranges, check_ranges
from tilewright.compiler.weights.quantize import CodesRule, check_rule
from tilewright.compiler.weights.safetensors_header import format_header
from tilewright.compiler.weights.source import WeightSource
from tilewright.compiler.weights.weight_writer import Done, Sums, WeightWriter
from tilewright.dialects.element_types import F32, ElementType

Array = npt.NDArray[Any]

_MOST_THREADS = 4
"""One more than there are cores, up to this: some wait for the disk."""


@dataclass(frozen=True)
class WeightProgress:
    """A weight that has been written: `index` of `total`, from 1. `name` is that of the source.

    Codes and what goes with them are one weight, of form `codes`; `size_bytes` is that of all.
    """

    index: int
    total: int
    name: str
    source_dtype: str
    shape: tuple[int, ...]
    """`(N, K)` of a quantized weight, however its codes are packed."""
    form: Form
    scheme: str
    """Of a quantized weight."""
    element: ElementType
    size_bytes: int
    seconds: float


ProgressCallback = Callable[[WeightProgress], None]


@dataclass(frozen=True)
class StoredWeights:
    """What was written: the tensors in the order of the file, and checks of the whole."""

    tensors: tuple[StoredTensor, ...]
    size_bytes: int
    crc32: int
    header_bytes: int
    """Header and length: everything before the first tensor."""
    header_sha256: str

    @property
    def scale_elements(self) -> dict[str, ElementType]:
        """The types that the scales were stored in: f32 where f16 would have been subnormal."""
        return {tensor.name: tensor.element for tensor in self.tensors if tensor.form == "scale"}


def write_weights(
    output: OutputFile,
    base: int,
    source: WeightSource,
    requests: Sequence[WeightRequest],
    *,
    codes: CodesRule = "stored-scale",
    ranges: Ranges | None = None,
    progress: ProgressCallback | None = None,
    threads: int | None = None,
) -> StoredWeights:
    """Writes the requested weights as a safetensors file at byte `base` of `output`.

    A weight that `source` holds quantized is written as it is, others are rounded by the rule
    `codes`; `ranges` are those of int8 layers. The bytes depend on these and the requests alone.
    Raises `ModelReadError` for weights that are not finite or too large for the compute type,
    `UnsupportedError` for stored types that are no weights, `OptionError` where `ranges` lack a
    layer, `StorageError`.
    """
    check_rule(codes)
    layout = plan_layout(requests)
    groups = group_requests(requests)
    for request in requests:
        if request.source_key is not None:
            info = source.info(request.source_key)
            _ = info.element
            check_source(request, info.shape)
    for group in groups.values():
        check_rule(codes, group.scheme)
    int8 = [group for group in groups.values() if group.scheme.int8_activations]
    check_ranges([str(group.codes.source_key) for group in int8], ranges or {})
    output.require_space(layout.most_bytes)
    data = base + layout.header_bytes
    writer = WeightWriter(output, data, source, layout, codes, ranges or {})
    jobs = [request for request in requests if request.form in ("dense", "codes")]
    count = min(_MOST_THREADS, (os.cpu_count() or 1) + 1) if threads is None else threads
    done: dict[str, Done] = {}
    pool = ThreadPoolExecutor(count, thread_name_prefix="weights")
    try:
        futures: list[Future[Done]] = [
            pool.submit(writer.run, request, groups.get(request.name)) for request in jobs
        ]
        for index, (request, future) in enumerate(zip(jobs, futures, strict=True), 1):
            done[request.name] = future.result()
            if progress is not None:
                progress(_progress(index, len(jobs), request, source, layout, groups, done))
        for name in _narrow_beside_wide(groups, done):
            done[name] = writer.run(groups[name].codes, groups[name], wide=True)
    finally:
        writer.stop.set()
        pool.shutdown(cancel_futures=True)
    return _finish(output, base, layout, groups, done)


def _narrow_beside_wide(
    groups: Mapping[str, QuantizedRequest], done: Mapping[str, Done]
) -> list[str]:
    """The codes of weights with 16-bit scales whose source has f32 scales by another scheme: the
    module knows of f32 scales by source, so all of a source have them."""
    wide = {
        groups[name].codes.source_key
        for name in groups
        if done[name].scale is not None and done[name].scale_element == F32
    }
    return [
        name
        for name, group in groups.items()
        if group.codes.source_key in wide
        and done[name].scale is not None
        and done[name].scale_element != F32
    ]


def _progress(
    index: int,
    total: int,
    request: WeightRequest,
    source: WeightSource,
    layout: Layout,
    groups: Mapping[str, QuantizedRequest],
    done: Mapping[str, Done],
) -> WeightProgress:
    result = done[request.name]
    size = sum(layout.places[name].size_bytes for name in result.sums)
    quantized, shape = request.name in groups, request.shape
    if quantized:
        whole = source.info(str(request.source_key)).shape
        shape = (shape[0], whole[0 if request.transposed else 1])
    return WeightProgress(
        index=index,
        total=total,
        name=request.source_key or request.name,
        source_dtype="table"
        if request.source_key is None
        else source.info(request.source_key).dtype,
        shape=shape,
        form=request.form,
        scheme=request.scheme if quantized else "",
        element=request.element,
        size_bytes=size + (0 if result.scale is None else result.scale.nbytes),
        seconds=result.seconds,
    )


def _finish(
    output: OutputFile,
    base: int,
    layout: Layout,
    groups: Mapping[str, QuantizedRequest],
    done: Mapping[str, Done],
) -> StoredWeights:
    """Writes padding, scales and header; puts the sums together in the order of the file."""
    sums = {name: held for result in done.values() for name, held in result.sums.items()}
    elements: dict[str, ElementType] = {}
    scales: dict[str, Array] = {}
    for name, group in groups.items():
        result, scale = done[name], group.parts.get("scale")
        if scale is not None and result.scale is not None and result.scale_element is not None:
            elements[scale.name], scales[scale.name] = result.scale_element, result.scale
    places = {**layout.places, **scale_places(layout, elements)}
    data = base + layout.header_bytes
    entries = header_entries(layout, elements)
    header = format_header(entries, total_bytes=layout.header_bytes)
    crc32, size = zlib.crc32(header), len(header)
    for entry in entries:
        if entry.key not in sums:
            values = scales.get(entry.key, np.zeros(entry.size_bytes, np.uint8))
            sums[entry.key] = Sums()
            part = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
            output.write_at(data + entry.begin, part)
            sums[entry.key].update(part)
        crc32 = combine_crc32(crc32, sums[entry.key].crc32, entry.size_bytes)
        size += entry.size_bytes
    output.write_at(base, header)
    requests = (*layout.order, *layout.scales)
    tensors = [
        _stored(request, elements, places[request.name], layout.header_bytes, sums[request.name])
        for request in requests
    ]
    return StoredWeights(
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.offset)),
        size_bytes=size,
        crc32=crc32,
        header_bytes=layout.header_bytes,
        header_sha256=hashlib.sha256(header).hexdigest(),
    )


def _stored(
    request: WeightRequest,
    elements: dict[str, ElementType],
    place: Place,
    header_bytes: int,
    sums: Sums,
) -> StoredTensor:
    return StoredTensor(
        name=request.name,
        form=request.form,
        element=elements.get(request.name, request.element),
        shape=request.shape,
        offset=header_bytes + place.offset,
        size_bytes=place.size_bytes,
        sha256=sums.sha256.hexdigest(),
        scheme="" if request.form == "dense" else request.scheme,
    )
