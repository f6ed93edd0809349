"""Makes the weights that the tpu module asks for and writes them as a safetensors file, in one pass
over the checkpoint.

Each weight goes through small buffers, chunk by chunk, straight to its final place; several weights
are under way at once (reading, quantizing, hashing and writing all release the GIL). Only the
scales wait in memory: their type, f16 or f32, is known when the last row of a weight is, so they
come last in the file, and the header is written at the end into the space kept for it.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.checksum import combine_crc32
from tilewright.compiler.output import OutputFile
from tilewright.compiler.weights.container import WeightContainer
from tilewright.compiler.weights.convert import (
    NotConvertibleError,
    convert,
    rejection,
    too_large,
)
from tilewright.compiler.weights.layout import (
    Form,
    Layout,
    Place,
    StoredTensor,
    WeightRequest,
    check_source,
    header_entries,
    plan_layout,
    scale_places,
    table_bytes,
)
from tilewright.compiler.weights.quantize import (
    CodesRule,
    RowQuantizer,
    ScaleOutOfRangeError,
    check_rule,
    store_scales,
)
from tilewright.compiler.weights.safetensors_header import format_header
from tilewright.dialects.element_types import F16, F32, I8, ElementType
from tilewright.dialects.errors import InternalError, ModelReadError
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]

_CHUNK_BYTES = 4 << 20
"""Of the source, at a time: small enough that every step finds it in the cache."""
_PANEL_BYTES = 32 << 20
"""Of a transposed source: its rows are read in pieces, which must not be too short."""
_MOST_THREADS = 4
"""One more than there are cores, up to this: some wait for the disk."""
_F16_OVERFLOW = 65520.0
"""From here on values round to infinity in f16."""


@dataclass(frozen=True)
class WeightProgress:
    """A weight that has been written: `index` of `total`, from 1. `name` is that of the source.

    Codes and their scales are one weight, of form `codes`; `size_bytes` is that of both.
    """

    index: int
    total: int
    name: str
    source_dtype: str
    shape: tuple[int, ...]
    form: Form
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


@dataclass
class _Sums:
    """Digest and checksum of data that passes in order."""

    sha256: Any = field(default_factory=hashlib.sha256)
    crc32: int = 0

    def update(self, data: memoryview) -> None:
        self.sha256.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)


@dataclass(frozen=True)
class _Done:
    sums: _Sums
    scale: Array | None
    scale_element: ElementType | None
    seconds: float


class _CancelledError(Exception):
    pass


def write_weights(
    output: OutputFile,
    base: int,
    container: WeightContainer,
    requests: Sequence[WeightRequest],
    *,
    codes: CodesRule = "stored-scale",
    progress: ProgressCallback | None = None,
    threads: int | None = None,
) -> StoredWeights:
    """Writes the requested weights as a safetensors file at byte `base` of `output`.

    The bytes depend on the checkpoint, the requests and `codes` alone. Raises `ModelReadError` for
    weights that are not finite or too large for the compute type, `UnsupportedError` for stored
    types that are no weights, `StorageError`.
    """
    check_rule(codes)
    layout = plan_layout(requests)
    pairs = _pairs(requests)
    for request in requests:
        if request.source_key is not None:
            info = container.info(request.source_key)
            _ = info.element
            check_source(request, info.shape)
    output.require_space(layout.most_bytes)
    writer = _Writer(output, base + layout.header_bytes, container, layout, codes)
    jobs = [request for request in requests if request.form != "scale"]
    count = min(_MOST_THREADS, (os.cpu_count() or 1) + 1) if threads is None else threads
    done: dict[str, _Done] = {}
    pool = ThreadPoolExecutor(count, thread_name_prefix="weights")
    try:
        futures: list[Future[_Done]] = [
            pool.submit(writer.run, request, pairs.get(request.name)) for request in jobs
        ]
        for index, (request, future) in enumerate(zip(jobs, futures, strict=True), 1):
            done[request.name] = future.result()
            if progress is not None:
                progress(_progress(index, len(jobs), request, container, layout, done))
    finally:
        writer.stop.set()
        pool.shutdown(cancel_futures=True)
    return _finish(output, base, layout, pairs, done)


def _progress(
    index: int,
    total: int,
    request: WeightRequest,
    container: WeightContainer,
    layout: Layout,
    done: dict[str, _Done],
) -> WeightProgress:
    result = done[request.name]
    size = layout.places[request.name].size_bytes
    return WeightProgress(
        index=index,
        total=total,
        name=request.source_key or request.name,
        source_dtype="table"
        if request.source_key is None
        else container.info(request.source_key).dtype,
        shape=request.shape,
        form=request.form,
        element=request.element,
        size_bytes=size + (0 if result.scale is None else result.scale.nbytes),
        seconds=result.seconds,
    )


def _pairs(requests: Sequence[WeightRequest]) -> dict[str, WeightRequest]:
    """The scale request of each codes request, by the latter's name."""
    codes = {request.source: request for request in requests if request.form == "codes"}
    scales = {request.source: request for request in requests if request.form == "scale"}
    quantized = sum(request.form != "dense" for request in requests)
    if set(codes) != set(scales) or quantized != 2 * len(codes):
        raise InternalError("codes and scales of a weight are not asked for together, once")
    if any(request.element != I8 for request in codes.values()):
        raise InternalError("codes are i8")
    return {request.name: scales[source] for source, request in codes.items()}


class _Writer:
    """Makes weights and writes them; one call a weight, from several threads."""

    def __init__(
        self,
        output: OutputFile,
        data: int,
        container: WeightContainer,
        layout: Layout,
        rule: CodesRule,
    ) -> None:
        self.output, self.data, self.container = output, data, container
        self.layout = layout
        self.rule: CodesRule = rule
        self.stop = threading.Event()
        self._local = threading.local()

    def run(self, request: WeightRequest, scale: WeightRequest | None) -> _Done:
        """Make and write a weight, and its scales; errors name the file of the source."""
        try:
            return self._run(request, scale)
        except ModelReadError as error:
            if error.where is not None or request.source_key is None:
                raise
            file = str(self.container.info(request.source_key).file)
            raise ModelReadError(error.what, where=file, why=error.why, hint=error.hint) from error

    def _run(self, request: WeightRequest, scale: WeightRequest | None) -> _Done:
        start = time.perf_counter()
        if scale is not None:
            sums, values, element = self._quantize(request, scale)
            return _Done(sums, values, element, time.perf_counter() - start)
        sums = _Sums()
        if request.source_key is None:
            self._write(request, 0, table_bytes(request), sums)
        else:
            self._convert(request, request.source_key, sums)
        return _Done(sums, None, None, time.perf_counter() - start)

    def _quantize(
        self, request: WeightRequest, scale: WeightRequest
    ) -> tuple[_Sums, Array, ElementType]:
        try:
            sums, scales = self._quantize_as(request, scale.element)
            stored = scale.element
        except ScaleOutOfRangeError:
            sums, scales = self._quantize_as(request, F32)
            stored = F32
        if scale.element == F16 and scales.size and 127 * float(scales.max()) >= _F16_OVERFLOW:
            channel = int(np.argmax(scales)) + (request.rows[0] if request.rows else 0)
            holds = f"holds about {127 * float(scales.max()):g} in output channel {channel}"
            raise too_large(str(request.source_key), holds, F16)
        return sums, store_scales(scales, stored), stored

    def _quantize_as(self, request: WeightRequest, stored: ElementType) -> tuple[_Sums, Array]:
        quantizer = RowQuantizer(
            parse_scheme("w8a16"), stored, str(request.source_key), self.rule, request.transposed
        )
        count, depth = request.shape
        scales, zeros = np.empty((count, 1), np.float32), np.empty((count, 1), np.int8)
        sums = _Sums()
        first = request.rows[0] if request.rows else 0
        for start, rows in self._chunks(request):
            stop = start + len(rows)
            codes = self._buffer("codes", rows.size).view(np.int8).reshape(len(rows), depth)
            quantizer.quantize(rows, codes, scales[start:stop], zeros[start:stop], first + start)
            self._write(request, start * depth, codes, sums)
        return sums, scales

    def _convert(self, request: WeightRequest, key: str, sums: _Sums) -> None:
        source = self.container.info(key).element
        written = 0
        for start, rows in self._chunks(request):
            try:
                values = convert(rows, source, request.element)
            except NotConvertibleError as error:
                row, *rest = map(int, np.unravel_index(error.flat_index, rows.shape))
                value = float(rows.reshape(-1)[error.flat_index])
                first = request.rows[0] if request.rows else 0
                index = (first + start + row, *rest)
                index = index[::-1] if request.transposed else index
                raise rejection(key, value, index, request.element) from None
            self._write(request, written, values, sums)
            written += values.nbytes

    def _write(self, request: WeightRequest, offset: int, values: Array, sums: _Sums) -> None:
        data = values.reshape(-1).view(np.uint8).data
        place = self.layout.places[request.name]
        self.output.write_at(self.data + place.offset + offset, data)
        sums.update(data)

    def _chunks(self, request: WeightRequest) -> Iterator[tuple[int, Array]]:
        """The requested rows of the source in pieces, `(first, rows)`, as contiguous arrays."""
        info = self.container.info(str(request.source_key))
        shape = (info.shape or (1,))[::-1] if request.transposed else (info.shape or (1,))
        begin, end = request.rows or (0, shape[0])
        row_bytes = math.prod(shape[1:]) * info.element.size_bytes
        chunk = _PANEL_BYTES if request.transposed else _CHUNK_BYTES
        step = max(1, chunk // max(1, row_bytes))
        for start in range(begin, end, step):
            if self.stop.is_set():
                raise _CancelledError
            stop = min(end, start + step)
            buffer = self._buffer("source", (stop - start) * row_bytes)
            if request.transposed:
                panel = self.container.read_columns(info.key, start, stop, buffer)
                rows = self._buffer("turned", panel.nbytes).view(panel.dtype)
                rows = rows.reshape(panel.shape[::-1])
                np.copyto(rows, panel.T)
            else:
                rows = self.container.read_rows(info.key, start, stop, buffer)
            yield start - begin, rows

    def _buffer(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """A buffer of this thread's: fresh memory for each chunk would cost more than the work on
        it."""
        held: npt.NDArray[np.uint8] | None = getattr(self._local, name, None)
        if held is None or held.size < size:
            held = np.empty(size, np.uint8)
            setattr(self._local, name, held)
        return held[:size]


def _finish(
    output: OutputFile,
    base: int,
    layout: Layout,
    pairs: dict[str, WeightRequest],
    done: dict[str, _Done],
) -> StoredWeights:
    """Writes padding, scales and header; puts the sums together in the order of the file."""
    sums = {name: result.sums for name, result in done.items()}
    elements: dict[str, ElementType] = {}
    scales: dict[str, Array] = {}
    for name, scale in pairs.items():
        result = done[name]
        if result.scale is None or result.scale_element is None:
            raise InternalError(f"weight {name!r} has codes but no scales")
        elements[scale.name], scales[scale.name] = result.scale_element, result.scale
    places = {**layout.places, **scale_places(layout, elements)}
    data = base + layout.header_bytes
    entries = header_entries(layout, elements)
    header = format_header(entries, total_bytes=layout.header_bytes)
    crc32, size = zlib.crc32(header), len(header)
    for entry in entries:
        if entry.key not in sums:
            values = scales.get(entry.key, np.zeros(entry.size_bytes, np.uint8))
            sums[entry.key] = _Sums()
            part = values.reshape(-1).view(np.uint8).data
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
    sums: _Sums,
) -> StoredTensor:
    return StoredTensor(
        name=request.name,
        form=request.form,
        element=elements.get(request.name, request.element),
        shape=request.shape,
        offset=header_bytes + place.offset,
        size_bytes=place.size_bytes,
        sha256=sums.sha256.hexdigest(),
    )
