"""Makes one weight after another and writes each to its place, chunk by chunk.

Several threads work at once, each with buffers of its own: reading, quantizing, hashing and writing
all release the GIL.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.output import OutputFile
from tilewright.compiler.weights.convert import (
    NotConvertibleError,
    convert,
    rejection,
    too_large,
)
from tilewright.compiler.weights.layout import (
    Layout,
    QuantizedRequest,
    WeightRequest,
    table_bytes,
)
from tilewright.compiler.weights.parts import (
    Ranges,
    empty_channels,
    fitting_scale,
    largest_magnitude,
    small_parts,
)
from tilewright.compiler.weights.quantize import (
    CodesRule,
    RowQuantizer,
    ScaleOutOfRangeError,
    store_scales,
)
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.element_types import F16, F32, ElementType
from tilewright.dialects.errors import InternalError, ModelReadError

Array = npt.NDArray[Any]

CHUNK_BYTES = 4 << 20
"""Of the source, at a time: small enough that every step finds it in the cache."""
PANEL_BYTES = 32 << 20
"""Of a transposed source: its rows are read in pieces, which must not be too short."""
_F16_OVERFLOW = 65520.0
"""From here on values round to infinity in f16."""


@dataclass
class Sums:
    """Digest and checksum of data that passes in order."""

    sha256: Any = field(default_factory=hashlib.sha256)
    crc32: int = 0

    def update(self, data: memoryview) -> None:
        """Takes in the next bytes."""
        self.sha256.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)


@dataclass(frozen=True)
class Done:
    """A weight that has been written, but for its scales: their type decides their place."""

    sums: dict[str, Sums]
    """Of the tensors that have been written, by name."""
    scale: Array | None
    scale_element: ElementType | None
    seconds: float


@dataclass(frozen=True)
class _Rounded:
    """A quantized weight whose codes have been written; scales as they are stored."""

    scale: Array
    scale_element: ElementType
    zero: Array | None
    empty: Array
    """Whether all codes of a channel are 0, `[N]`."""


class CancelledError(Exception):
    """Another weight has failed."""


class WeightWriter:
    """Makes weights and writes them; one call a weight, from several threads."""

    def __init__(
        self,
        output: OutputFile,
        data: int,
        source: WeightSource,
        layout: Layout,
        rule: CodesRule,
        ranges: Ranges,
    ) -> None:
        self.output, self.data, self.source = output, data, source
        self.layout, self.ranges = layout, ranges
        self.rule: CodesRule = rule
        self.stop = threading.Event()
        self._local = threading.local()

    def run(
        self, request: WeightRequest, group: QuantizedRequest | None, *, wide: bool = False
    ) -> Done:
        """Make and write a dense weight, or all parts of a quantized one; `wide`: with f32 scales.

        Errors name the file of the source.
        """
        try:
            return self._run(request, group, wide)
        except ModelReadError as error:
            if error.where is not None or request.source_key is None:
                raise
            file = str(self.source.info(request.source_key).file)
            raise ModelReadError(error.what, where=file, why=error.why, hint=error.hint) from error

    def _run(self, request: WeightRequest, group: QuantizedRequest | None, wide: bool) -> Done:
        start = time.perf_counter()
        if group is not None:
            sums, made = self._quantize(group, wide)
            stored = "scale" in group.parts
            seconds = time.perf_counter() - start
            return Done(sums, made.scale if stored else None, made.scale_element, seconds)
        sums = Sums()
        if request.source_key is None:
            self._write(request, 0, table_bytes(request), sums)
        else:
            self._convert(request, request.source_key, sums)
        return Done({request.name: sums}, None, None, time.perf_counter() - start)

    # Quantized weights.

    def _quantize(self, group: QuantizedRequest, wide: bool) -> tuple[dict[str, Sums], _Rounded]:
        sums = {request.name: Sums() for request in (group.codes, *group.small)}
        finished = self.source.quantized(str(group.codes.source_key))
        if finished is not None:
            made = self._copy(group, finished, wide, sums)
        else:
            try:
                made = self._round(group, F32 if wide else group.scale_element, sums)
            except ScaleOutOfRangeError:
                sums[group.codes.name] = Sums()
                made = self._round(group, F32, sums)
        if group.scale_element == F16 and "scale" in group.parts:
            self._check_overflow(group, made)
        bias = self._bias(group)
        parts = small_parts(group, made.scale, made.zero, made.empty, bias, self.ranges)
        for request in group.small:
            self._write(request, 0, parts[request.form], sums[request.name])
        return sums, made

    def _round(
        self, group: QuantizedRequest, stored: ElementType, sums: dict[str, Sums]
    ) -> _Rounded:
        """Quantize a dense source and write its codes."""
        request, scheme = group.codes, group.scheme
        name = str(request.source_key)
        quantizer = RowQuantizer(scheme, stored, name, self.rule, request.transposed)
        count, width = request.shape
        first, depth = request.rows[0] if request.rows else 0, self._depth(request)
        groups = scheme.groups(depth)
        scales = np.empty((count, groups), np.float32)
        zeros = np.zeros((count, groups if scheme.zero_point else 1), np.int8)
        empty = np.zeros(count, np.bool_)
        for start, rows in self._chunks(request):
            part = slice(start, start + len(rows))
            codes = self._buffer("codes", len(rows) * width).view(np.int8).reshape(-1, width)
            quantizer.quantize(rows, codes, scales[part], zeros[part], first + start)
            if scheme.int8_activations:
                empty[part] = empty_channels(codes)
            self._write(request, start * width, codes, sums[request.name])
        zero = zeros if scheme.zero_point else None
        return _Rounded(store_scales(scales, stored), stored, zero, empty)

    def _copy(
        self,
        group: QuantizedRequest,
        finished: QuantizedWeight,
        wide: bool,
        sums: dict[str, Sums],
    ) -> _Rounded:
        """Write the codes of a weight that was quantized before, as they are."""
        request = group.codes
        rows = slice(*request.rows) if request.rows else slice(None)
        codes = finished.codes[rows]
        if finished.scheme != group.scheme or codes.shape != request.shape:
            raise InternalError(
                f"weight {request.source_key!r} is {finished.scheme.name} {list(finished.shape)}; "
                f"it is asked for as {group.scheme.name}, codes {list(request.shape)}"
            )
        self._write(request, 0, np.ascontiguousarray(codes), sums[request.name])
        wanted = F32 if wide else group.scale_element
        scale, element = fitting_scale(finished.scale[rows], finished.scale_element, wanted)
        zero = None if finished.zero is None else finished.zero[rows]
        return _Rounded(scale, element, zero, empty_channels(codes))

    def _check_overflow(self, group: QuantizedRequest, made: _Rounded) -> None:
        largest, channel = largest_magnitude(group.scheme, made.scale, made.zero)
        if largest >= _F16_OVERFLOW:
            channel += group.codes.rows[0] if group.codes.rows else 0
            holds = f"holds about {largest:g} in output channel {channel}"
            raise too_large(str(group.codes.source_key), holds, F16)

    def _bias(self, group: QuantizedRequest) -> Array | None:
        """The bias of an int8 layer, of the channels that are asked for."""
        request = group.parts.get("requant")
        if request is None or request.bias is None:
            return None
        start, stop = request.rows or (0, request.shape[0])
        return self.source.read_rows(request.bias, start, stop).astype(np.float32).reshape(-1)

    def _depth(self, request: WeightRequest) -> int:
        """Inputs of a channel of the source."""
        return self.source.info(str(request.source_key)).shape[0 if request.transposed else 1]

    # Dense weights.

    def _convert(self, request: WeightRequest, key: str, sums: Sums) -> None:
        source = self.source.info(key).element
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

    # Reading and writing.

    def _write(self, request: WeightRequest, offset: int, values: Array, sums: Sums) -> None:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        place = self.layout.places[request.name]
        self.output.write_at(self.data + place.offset + offset, data)
        sums.update(data)

    def _chunks(self, request: WeightRequest) -> Iterator[tuple[int, Array]]:
        """The requested rows of the source in pieces, `(first, rows)`, as contiguous arrays."""
        info = self.source.info(str(request.source_key))
        shape = (info.shape or (1,))[::-1] if request.transposed else (info.shape or (1,))
        begin, end = request.rows or (0, shape[0])
        row_bytes = math.prod(shape[1:]) * info.element.size_bytes
        chunk = PANEL_BYTES if request.transposed else CHUNK_BYTES
        step = max(1, chunk // max(1, row_bytes))
        for start in range(begin, end, step):
            if self.stop.is_set():
                raise CancelledError
            stop = min(end, start + step)
            buffer = self._buffer("source", (stop - start) * row_bytes)
            if request.transposed:
                panel = self.source.read_columns(info.key, start, stop, buffer)
                rows = self._buffer("turned", panel.nbytes).view(panel.dtype)
                rows = rows.reshape(panel.shape[::-1])
                np.copyto(rows, panel.T)
            else:
                rows = self.source.read_rows(info.key, start, stop, buffer)
            yield start - begin, rows

    def _buffer(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """A buffer of this thread's: fresh memory for each chunk would cost more than the work on
        it."""
        held: npt.NDArray[np.uint8] | None = getattr(self._local, name, None)
        if held is None or held.size < size:
            held = np.empty(size, np.uint8)
            setattr(self._local, name, held)
        return held[:size]
