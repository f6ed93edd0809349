"""Checkpoints on disk: one safetensors file, or shards with an index.

Nothing is mapped and nothing is read before it is asked for: rows are read into a buffer of the
caller's, so that a checkpoint of any size costs no more memory than that buffer.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.weights.safetensors_header import parse_header
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, UnsupportedError

Array = npt.NDArray[Any]

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
ROTARY_TABLES = ("*.rotary_pos_emb.inv_freq", "*.rotary_emb.inv_freq")
"""Tables that checkpoints carry and that are computed anew."""

WEIGHT_ELEMENTS = {"F32": F32, "F16": F16, "BF16": BF16}
INTEGER_DTYPES = {"I32": np.dtype(np.int32), "U32": np.dtype(np.uint32), "I64": np.dtype(np.int64)}
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
_LISTED = 12
"""Tensors that an error names before it says how many more there are."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is stored, and as what. `dtype` is the format's name, e.g. `BF16`."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int
    size_bytes: int

    @property
    def element(self) -> ElementType:
        """The element type as a weight; raises `UnsupportedError` for types that weights do not
        have."""
        if self.dtype not in WEIGHT_ELEMENTS:
            raise UnsupportedError(
                f"a weight stored as {self.dtype} is not supported",
                where=f"tensor {self.key!r} in {self.file}",
                hint=f"convert it to one of {', '.join(WEIGHT_ELEMENTS)}",
            )
        return WEIGHT_ELEMENTS[self.dtype]


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise ModelReadError(
                "the checkpoint cannot be opened", where=str(path), why=error.strerror
            ) from error
        try:
            size = os.fstat(self.descriptor).st_size
            data, entries = parse_header(self.descriptor, size, str(path))
            head = os.pread(self.descriptor, data, 0)
        except OSError as error:
            self.close()
            raise ModelReadError(
                "the checkpoint cannot be read", where=str(path), why=error.strerror
            ) from error
        except BaseException:
            self.close()
            raise
        self.fingerprint = hashlib.sha256(head + size.to_bytes(8, "little")).hexdigest()
        self.tensors = {
            entry.key: TensorInfo(
                entry.key, entry.shape, entry.dtype, path, data + entry.begin, entry.size_bytes
            )
            for entry in entries
        }

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class WeightContainer:
    """The tensors of a checkpoint. Reading is safe from several threads; use it as a context
    manager to close it."""

    def __init__(self, path: Path, files: Sequence[_File], tensors: Mapping[str, TensorInfo]):
        self.path = path
        self._files = {file.path: file for file in files}
        self._tensors = dict(tensors)

    def __enter__(self) -> WeightContainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; reading is over."""
        for file in self._files.values():
            file.close()

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._tensors)

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def info(self, key: str) -> TensorInfo:
        """Shape, type and place of a tensor; raises `ModelReadError` where there is none of that
        name."""
        if key not in self._tensors:
            raise ModelReadError(
                f"the checkpoint has no tensor {key!r}",
                where=str(self.path),
                hint=_did_you_mean(key, self._tensors),
            )
        return self._tensors[key]

    def quantized(self, key: str) -> QuantizedWeight | None:
        """None: the tensors of a checkpoint are dense, unless an importer knows better."""
        self.info(key)
        return None

    def fingerprints(self) -> dict[str, str]:
        """File name -> SHA-256 of the file's header and size: names, shapes and types, not the
        data."""
        return {path.name: file.fingerprint for path, file in sorted(self._files.items())}

    def check(
        self, expected: Mapping[str, Sequence[int]], *, ignorable: Iterable[str] = ROTARY_TABLES
    ) -> None:
        """Raises one `ModelReadError` that lists every missing, extra and wrong-shaped tensor.

        Extra tensors that match one of the `ignorable` patterns (as file names do) are passed over.
        """
        patterns = tuple(ignorable)
        missing = [key for key in expected if key not in self._tensors]
        extra = [
            key
            for key in self.keys()
            if key not in expected and not any(fnmatch.fnmatchcase(key, p) for p in patterns)
        ]
        wrong = [
            f"{key}: {list(self._tensors[key].shape)} instead of {list(shape)}"
            for key, shape in expected.items()
            if key in self._tensors and self._tensors[key].shape != tuple(shape)
        ]
        problems = [
            f"{len(names)} {kind}: {_listing(names)}"
            for kind, names in (("missing", missing), ("extra", extra), ("of another shape", wrong))
            if names
        ]
        if problems:
            raise ModelReadError(
                "the checkpoint does not have the tensors of the model",
                where=str(self.path),
                why="; ".join(problems),
                hint="the configuration and the weights must be of one model and version",
            )

    def read(self, key: str) -> Array:
        """The whole tensor, in its stored type."""
        info = self.info(key)
        if not info.shape:
            return self.read_rows(key, 0, 1).reshape(())
        return self.read_rows(key, 0, info.shape[0])

    def read_integers(self, key: str) -> Array:
        """The whole of a tensor of integers, which is no weight by itself (the words of a packed
        checkpoint); raises `UnsupportedError` for other types."""
        info = self.info(key)
        if info.dtype not in INTEGER_DTYPES:
            raise UnsupportedError(
                f"integers stored as {info.dtype} are not supported",
                where=f"tensor {key!r} in {info.file}",
                hint=f"one of {', '.join(INTEGER_DTYPES)}",
            )
        buffer = _buffer(None, info.size_bytes)
        self._read(info, 0, buffer)
        return buffer.view(INTEGER_DTYPES[info.dtype]).reshape(info.shape)

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows `start..stop` of the first axis, in the stored type (a scalar is one row of shape
        `[1]`).

        `out` is a contiguous `uint8` buffer, large enough, that the rows are read into: the result
        is a view of it.
        """
        info = self.info(key)
        dtype = info.element.dtype
        shape = info.shape or (1,)
        if not 0 <= start <= stop <= shape[0]:
            raise IndexError(f"rows {start}..{stop} of {key!r}, which has {shape[0]}")
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size = (stop - start) * row_bytes
        buffer = _buffer(out, size)
        self._read(info, start * row_bytes, buffer)
        return buffer.view(dtype).reshape((stop - start, *shape[1:]))

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Columns `start..stop` of a matrix, `[rows, stop - start]`; `out` as in `read_rows`."""
        info = self.info(key)
        dtype = info.element.dtype
        if len(info.shape) != 2 or not 0 <= start <= stop <= info.shape[1]:
            raise IndexError(f"columns {start}..{stop} of {key!r} of shape {list(info.shape)}")
        rows, cols = info.shape
        pitch, size = cols * dtype.itemsize, (stop - start) * dtype.itemsize
        buffer = _buffer(out, rows * size)
        if size == pitch:
            self._read(info, 0, buffer)
        else:
            for row in range(rows):
                part = buffer[row * size : (row + 1) * size]
                self._read(info, row * pitch + start * dtype.itemsize, part)
        return buffer.view(dtype).reshape(rows, stop - start)

    def _read(self, info: TensorInfo, offset: int, buffer: npt.NDArray[np.uint8]) -> None:
        view = buffer.data
        descriptor = self._files[info.file].descriptor
        position = info.offset + offset
        while view:
            try:
                count = os.preadv(descriptor, [view], position)
            except OSError as error:
                raise ModelReadError(
                    "the checkpoint cannot be read",
                    where=f"tensor {info.key!r} in {info.file}",
                    why=error.strerror,
                ) from error
            if count == 0:
                raise ModelReadError(
                    "the checkpoint has become shorter",
                    where=f"tensor {info.key!r} in {info.file}",
                    why=f"{len(view):,} bytes are missing from byte {position:,}",
                    hint="do not change the checkpoint while it is being compiled",
                )
            view, position = view[count:], position + count


def _buffer(out: Array | None, size: int) -> npt.NDArray[np.uint8]:
    if out is None:
        return np.empty(size, np.uint8)
    if out.dtype != np.uint8 or out.ndim != 1 or out.size < size or not out.flags.c_contiguous:
        raise ValueError(f"a contiguous uint8 buffer of {size} bytes or more is needed")
    return out[:size]


def empty_container() -> WeightContainer:
    """A container without tensors, for models whose weights are all computed."""
    return WeightContainer(Path(), [], {})


def open_checkpoint(path: str | os.PathLike[str]) -> WeightContainer:
    """The checkpoint in a folder (or the one safetensors file named).

    Looks for `model.safetensors`, then for `model.safetensors.index.json` and its shards, then for
    any other `*.safetensors`. Raises `ModelReadError` where there is none (with the way to convert
    a pickled one), or where one is damaged.
    """
    folder = Path(path)
    if not folder.exists():
        raise ModelReadError("no such checkpoint", where=str(folder))
    if not folder.is_dir():
        return open_file(folder)
    if (folder / SINGLE_NAME).is_file():
        return open_file(folder / SINGLE_NAME)
    if (folder / INDEX_NAME).is_file():
        return _open_sharded(folder)
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return _join(folder, found, None)
    pickles = sorted(p for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise _pickled(folder, _listing([p.name for p in pickles]))
    raise ModelReadError(
        "no weights in the folder",
        where=str(folder),
        why=f"there is neither {SINGLE_NAME} nor {INDEX_NAME} nor any other .safetensors file",
    )


def open_file(path: str | os.PathLike[str]) -> WeightContainer:
    """One safetensors file; raises `ModelReadError`."""
    file = Path(path)
    if file.suffix in _PICKLE_SUFFIXES:
        raise _pickled(file.parent, file.name)
    return _join(file, [file], None)


def _open_sharded(folder: Path) -> WeightContainer:
    index = folder / INDEX_NAME
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelReadError(
            "the index of the checkpoint is not JSON", where=str(index), why=str(error)
        ) from error
    table: Any = cast(dict[str, Any], content).get("weight_map") if isinstance(content, dict) else 0
    weight_map = cast(dict[str, Any], table) if isinstance(table, dict) else {}
    if not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelReadError(
            "the index of the checkpoint has no weight_map of tensor to file", where=str(index)
        )
    names = sorted(set(weight_map.values()))
    for name in names:
        held = [key for key, file in weight_map.items() if file == name]
        if Path(name).name != name:
            raise ModelReadError(
                f"the index names a file outside of its folder: {name!r}", where=str(index)
            )
        if not (folder / name).is_file():
            raise ModelReadError(
                f"the checkpoint's file {name} is missing",
                where=str(folder),
                why=f"{INDEX_NAME} says that it holds {len(held)} tensors: {_listing(held)}",
                hint="download the missing file",
            )
    return _join(folder, [folder / name for name in names], weight_map)


def _join(
    path: Path, paths: Sequence[Path], weight_map: Mapping[str, str] | None
) -> WeightContainer:
    files: list[_File] = []
    tensors: dict[str, TensorInfo] = {}
    try:
        for file_path in paths:
            files.append(_File(file_path))
            for key, info in files[-1].tensors.items():
                if weight_map is not None and weight_map.get(key) != file_path.name:
                    continue
                if key in tensors:
                    raise ModelReadError(
                        f"tensor {key!r} is in two files",
                        where=f"{tensors[key].file.name} and {file_path.name} in {path}",
                    )
                tensors[key] = info
        lost = [key for key in weight_map or () if key not in tensors]
        if lost and weight_map is not None:
            raise ModelReadError(
                f"the checkpoint's files lack tensors that {INDEX_NAME} names",
                where=str(path),
                why=_listing([f"{key} (not in {weight_map[key]})" for key in lost]),
                hint="download the files again",
            )
    except BaseException:
        for file in files:
            file.close()
        raise
    return WeightContainer(path, files, tensors)


def _pickled(folder: Path, names: str) -> ModelReadError:
    return ModelReadError(
        "the checkpoint is pickled",
        where=f"{folder}: {names}",
        why="a pickle runs code when it is opened, so only safetensors are read",
        hint="convert it once: `from transformers import AutoModel; AutoModel"
        f".from_pretrained({str(folder)!r}).save_pretrained(OUT, safe_serialization=True)`",
    )


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _did_you_mean(key: str, keys: Iterable[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(key, list(keys), n=1, cutoff=0.8)
    return f"did you mean {close[0]!r}?" if close else None
