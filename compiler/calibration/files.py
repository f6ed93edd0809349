"""Calibrations on disk: `NAME.calib.json` for people and programs, and beside it, if statistics
are kept, `NAME.calib.safetensors`.

The JSON file carries the digest of what it says. Ranges may be changed by hand: who does so sets
`"edited"` to true, and artifacts tell of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration.calibration import (
    Calibration,
    DataRecord,
    LayerRange,
    range_problem,
)
from tilewright.compiler.calibration.methods import Method, MethodName
from tilewright.compiler.calibration.statistics import InputStatistics
from tilewright.compiler.output import atomic_output, write_atomically
from tilewright.compiler.weights.safetensors_header import HeaderEntry, format_header, parse_header
from tilewright.dialects.errors import ModelReadError, OptionError

Array = npt.NDArray[Any]

FORMAT = "tilewright calibration"
VERSION = 1
_DTYPES = {"F32": np.dtype(np.float32), "F64": np.dtype(np.float64)}
_PARTS = ("absmax", "mean_abs", "hessian")
_AGAIN = "run tw calibrate again"


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of what stands in the file: nothing unknown."""


class _MethodRecord(_Record, frozen=True):
    name: MethodName
    percentile: float | None


class _ModelRecord(_Record, frozen=True):
    name: str
    fingerprint: str


class _DataRecord(_Record, frozen=True):
    name: str
    sha256: str


class _StatisticsRecord(_Record, frozen=True):
    file: str
    sha256: str
    shared: dict[str, str]
    """By layer that reads the same tensor as one before it: that one, under whose name the
    statistics are."""


class _LayerRecord(_Record, frozen=True):
    input_absmax: float
    output_absmax: float
    count: int
    input_largest: float | None = None
    output_largest: float | None = None


class _FileRecord(_Record, frozen=True):
    format: str
    version: int
    digest: str
    edited: bool
    method: _MethodRecord
    samples: int
    tokens: int
    model: _ModelRecord
    data: _DataRecord
    statistics: _StatisticsRecord | None
    layers: dict[str, _LayerRecord]


def statistics_path(path: Path) -> Path:
    """Where the statistics of the calibration `path` are."""
    return path.with_suffix(".safetensors")


def save_calibration(calibration: Calibration, path: Path, *, statistics: bool = False) -> None:
    """Write a calibration; with `statistics` those of the inputs as well, beside it.

    Each file appears whole or not at all, the statistics first. Raises `OptionError` for a name
    that does not end in .json, `StorageError` where a file cannot be written.
    """
    if path.suffix != ".json":
        raise OptionError(
            f"a calibration is written to a .json file, not to {path.name!r}",
            hint=f"{path.stem}.calib.json",
        )
    content = calibration.content()
    layers = content.pop("layers")
    head: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "digest": calibration.digest,
        **content,
        "statistics": None,
    }
    if statistics and calibration.input_statistics:
        head["statistics"] = _write_statistics(calibration.input_statistics, statistics_path(path))
    lines = [f"    {json.dumps(key)}: {json.dumps(layer)}" for key, layer in layers.items()]
    text = json.dumps(head, indent=2).removesuffix("\n}")
    write_atomically(path, f'{text},\n  "layers": {{\n' + ",\n".join(lines) + "\n  }\n}\n")


def load_calibration(path: Path) -> Calibration:
    """The calibration in the file `path`. Statistics are read when they are asked for.

    Whether it is one of the model at hand is for `check_model` to say. Raises `ModelReadError` for
    a file that cannot be read, is damaged, of another version, changed without saying so, or holds
    ranges that are none.
    """
    record = _read_record(path)
    if record.format != FORMAT or record.version != VERSION:
        raise ModelReadError(
            "the calibration is of another format or version",
            where=str(path),
            why=f"it says {record.format!r}, version {record.version}; this is {FORMAT!r}, "
            f"version {VERSION}",
            hint=_AGAIN,
        )
    stored: Mapping[str, InputStatistics] = {}
    if record.statistics is not None:
        stored = _StoredStatistics(path, record.statistics, tuple(record.layers))
    calibration = Calibration(
        method=_method(record.method, path),
        samples=record.samples,
        tokens=record.tokens,
        model=record.model.name,
        fingerprint=record.model.fingerprint,
        data=DataRecord(record.data.name, record.data.sha256),
        ranges={
            key: LayerRange(**msgspec.structs.asdict(layer)) for key, layer in record.layers.items()
        },
        input_statistics=stored,
        edited=record.edited,
    )
    _check(calibration, path)
    if not record.edited and calibration.digest != record.digest:
        raise ModelReadError(
            "the calibration has been changed since it was written",
            where=str(path),
            why=f"its digest is {calibration.digest}, and it says {record.digest}",
            hint='set "edited" to true in it to accept the changes, or run tw calibrate again',
        )
    return calibration


def _read_record(path: Path) -> _FileRecord:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_FileRecord)
    except OSError as error:
        raise ModelReadError(
            "the calibration cannot be read",
            where=str(path),
            why=error.strerror,
            hint="tw calibrate MODEL --data FILE -o NAME.calib.json writes one",
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelReadError(
            "the file is not a calibration", where=str(path), why=str(error), hint=_AGAIN
        ) from error


def _method(record: _MethodRecord, path: Path) -> Method:
    try:
        return Method(record.name, record.percentile)
    except OptionError as error:
        raise ModelReadError(
            "the calibration has a method that is none",
            where=str(path),
            why=error.what,
            hint=_AGAIN,
        ) from error


def _check(calibration: Calibration, path: Path) -> None:
    """Raise `ModelReadError` for numbers that no calibration has."""
    if calibration.samples < 1 or calibration.tokens < 1 or not calibration.ranges:
        raise ModelReadError(
            "the calibration is empty",
            where=str(path),
            why=f"{calibration.samples} samples, {calibration.tokens} tokens, "
            f"{len(calibration.ranges)} layers",
            hint=_AGAIN,
        )
    for key, layer in calibration.ranges.items():
        problem = range_problem(layer)
        if problem:
            raise ModelReadError(
                "the calibration holds a range that is none",
                where=f"layer {key!r} in {path}",
                why=problem,
                hint=_AGAIN,
            )


# Statistics.


def _write_statistics(statistics: Mapping[str, InputStatistics], path: Path) -> dict[str, Any]:
    """Write the statistics of each tensor once; returns what the JSON file says of them."""
    first: dict[int, str] = {}
    tensor = {key: first.setdefault(id(value), key) for key, value in statistics.items()}
    shared = {key: other for key, other in tensor.items() if key != other}
    arrays = {
        f"{key}.{part}": array
        for key in first.values()
        for part, array in vars(statistics[key]).items()
        if array is not None
    }
    names = {dtype: name for name, dtype in _DTYPES.items()}
    entries: list[HeaderEntry] = []
    begin = 0
    for name, array in arrays.items():
        entries.append(HeaderEntry(name, names[array.dtype], array.shape, begin, array.nbytes))
        begin += array.nbytes
    digest = hashlib.sha256()
    with atomic_output(path) as output:
        output.require_space(begin)
        offset = 0
        for part in (format_header(entries), *arrays.values()):
            data = part if isinstance(part, bytes) else np.ascontiguousarray(part).data.cast("B")
            output.write_at(offset, data)
            digest.update(data)
            offset += len(data)
    return {"file": path.name, "sha256": digest.hexdigest(), "shared": shared}


class _StoredStatistics(Mapping[str, InputStatistics]):
    """Statistics in a file: opened and checked when the first are asked for, read one at a time."""

    def __init__(self, calibration: Path, record: _StatisticsRecord, keys: Sequence[str]) -> None:
        self._path = calibration.with_name(record.file)
        self._record = record
        self._keys = keys
        self._entries: dict[str, HeaderEntry] = {}
        self._data = 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, key: str) -> InputStatistics:
        if key not in self._keys:
            raise KeyError(key)
        tensor = self._record.shared.get(key, key)
        if not self._entries:
            self._open()
        absmax, mean_abs, hessian = (self._read(f"{tensor}.{part}") for part in _PARTS)
        if absmax is None or mean_abs is None:
            raise self._damaged(f"it lacks those of layer {tensor!r}")
        return InputStatistics(absmax, mean_abs, hessian)

    def _open(self) -> None:
        try:
            with open(self._path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self._record.sha256:
                    raise self._damaged("its SHA-256 is not the one that the calibration names")
                size = os.fstat(file.fileno()).st_size
                self._data, entries = parse_header(file.fileno(), size, str(self._path))
        except OSError as error:
            raise ModelReadError(
                "the statistics of the calibration cannot be read",
                where=str(self._path),
                why=error.strerror,
                hint="keep the .safetensors file beside the .json file, or run tw calibrate again",
            ) from error
        self._entries = {entry.key: entry for entry in entries}

    def _read(self, name: str) -> Array | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        count = entry.size_bytes // _DTYPES[entry.dtype].itemsize
        array = np.fromfile(
            self._path, _DTYPES[entry.dtype], count, offset=self._data + entry.begin
        )
        return array.reshape(entry.shape)

    def _damaged(self, why: str) -> ModelReadError:
        return ModelReadError(
            "the statistics are not those of the calibration",
            where=str(self._path),
            why=why,
            hint=_AGAIN,
        )
