"""Calibration data from files: token ids for language models, inputs of a function for any module.

| file | holds |
| --- | --- |
| `.txt` | token ids between blanks or commas, a sample a line; one id a line: all one sample |
| `.json` | a list of lists of ids, or one list |
| `.jsonl` | a list of ids a line, or an object with one under `input_ids`, `tokens` or `ids` |
| `.npy` | integers `[samples, tokens]` or `[tokens]` |
| `.npz` | an array for each input of the function, or one with a leading axis of samples for each |

A sample of token ids that is longer than the model has positions is cut into several.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration.calibration import DataRecord
from tilewright.compiler.npz import read_arrays
from tilewright.dialects.errors import ModelReadError

Array = npt.NDArray[Any]
Tokens = npt.NDArray[np.int64]
Ports = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and type of each input of a function, by name."""

_FIELDS = ("input_ids", "tokens", "ids")
_TOKEN_HINT = "a line of a .txt or .jsonl file holds the token ids of a sample: [64790, 64792, 790]"


@dataclass(frozen=True)
class TokenSample:
    """Token ids, and where they stand in the file."""

    ids: Tokens
    where: str


def data_record(path: Path) -> DataRecord:
    """Name and SHA-256 of a data file; raises `ModelReadError` where it cannot be read."""
    return DataRecord(path.name, hashlib.sha256(_bytes_of(path)).hexdigest())


def read_tokens(path: Path) -> list[TokenSample]:
    """The samples of a file of token ids, in order, as they stand there.

    Raises `ModelReadError` for a file that cannot be read, holds nothing, or holds anything but
    whole numbers.
    """
    readers = {".txt": _from_text, ".json": _from_json, ".jsonl": _from_lines, ".npy": _from_npy}
    if path.suffix not in readers:
        raise ModelReadError(
            f"data in a {path.suffix or 'nameless kind of'} file cannot be read",
            where=str(path),
            hint=f"token ids in {', '.join(readers)}, or inputs of a function in .npz",
        )
    samples = list(readers[path.suffix](path))
    if not samples:
        raise ModelReadError("the data is empty", where=str(path), hint=_TOKEN_HINT)
    for sample in samples:
        if not sample.ids.size:
            raise ModelReadError("a sample has no tokens", where=sample.where, hint=_TOKEN_HINT)
    return samples


def cut(samples: Sequence[TokenSample], seq: int) -> list[TokenSample]:
    """Samples of at most `seq` tokens: longer ones in pieces, without a token lost."""
    pieces: list[TokenSample] = []
    for sample in samples:
        for start in range(0, len(sample.ids), seq):
            where = f"{sample.where}, from token {start}" if start else sample.where
            pieces.append(TokenSample(sample.ids[start : start + seq], where))
    return pieces


def check_vocabulary(samples: Sequence[TokenSample], vocabulary: int) -> None:
    """Raise `ModelReadError` for the first id that the vocabulary does not have."""
    for sample in samples:
        wrong = np.flatnonzero((sample.ids < 0) | (sample.ids >= vocabulary))
        if len(wrong):
            raise ModelReadError(
                f"token id {int(sample.ids[wrong[0]])} is out of range",
                where=f"{sample.where}, index {int(wrong[0])}",
                why=f"the vocabulary has {vocabulary} tokens: 0 to {vocabulary - 1}",
                hint="use the ids of the model's own tokenizer",
            )


def read_inputs(path: Path, ports: Ports) -> list[tuple[dict[str, Array], str]]:
    """Inputs of a function by name, with where each sample stands, from an `.npz` file.

    `ports` are the function's inputs: shape and type by name. Arrays have these shapes, or all of
    them one more axis in front, of samples. Raises `ModelReadError` for names that are missing or
    unknown, wrong shapes and types, NaN and infinity, integers out of range, and no samples.
    """
    arrays = read_arrays(path)
    _check_names(path, arrays, ports)
    count = _sample_count(path, arrays, ports)
    samples: list[tuple[dict[str, Array], str]] = []
    for index in range(1 if count is None else count):
        where = f"sample {index} of {path}"
        values = {n: arrays[n] if count is None else arrays[n][index] for n in ports}
        samples.append(({n: _stored(n, v, ports[n][1], where) for n, v in values.items()}, where))
    return samples


def _sample_count(path: Path, arrays: Mapping[str, Array], ports: Ports) -> int | None:
    """The length of the leading axis of samples; none where the arrays lack it."""
    counts: dict[str, int | None] = {}
    for name, (shape, _) in ports.items():
        given = arrays[name].shape
        if given != shape and given[1:] != shape:
            wanted = ", ".join(map(str, shape))
            raise ModelReadError(
                f"input {name!r} has the wrong shape",
                where=str(path),
                why=f"it is {list(given)}, not [{wanted}] or [samples, {wanted}]",
            )
        counts[name] = None if given == shape else given[0]
    if len(set(counts.values())) > 1:
        raise ModelReadError(
            "the inputs do not have one number of samples",
            where=str(path),
            why=", ".join(f"{n}: {'no axis' if c is None else c}" for n, c in counts.items()),
            hint="give every input a leading axis of samples, or none of them",
        )
    if 0 in counts.values():
        raise ModelReadError("the data is empty", where=str(path))
    return next(iter(counts.values()), None)


def _check_names(path: Path, arrays: Mapping[str, Array], ports: Mapping[str, object]) -> None:
    missing = [name for name in ports if name not in arrays]
    unknown = [name for name in arrays if name not in ports]
    if missing or unknown:
        raise ModelReadError(
            "the inputs are not those of the function",
            where=str(path),
            why="; ".join(
                f"{kind}: {', '.join(names)}"
                for kind, names in (("missing", missing), ("unknown", unknown))
                if names
            ),
            hint=f"the function takes {', '.join(ports) or 'none'}",
        )


def _stored(name: str, value: Array, dtype: np.dtype[Any], where: str) -> Array:
    """`value` in the type of the function's input."""
    where = f"input {name!r}, {where}"
    kinds = "iub" if dtype.kind in "iu" else "iubf"
    if value.dtype.kind not in kinds:
        needed = "numbers" if "f" in kinds else "whole numbers"
        raise ModelReadError(f"{needed} are needed, not {value.dtype}", where=where)
    with np.errstate(over="ignore"):
        stored = value.astype(dtype)
    wrong = np.flatnonzero(~np.isfinite(stored) if "f" in kinds else stored != value)
    if len(wrong):
        bad = int(wrong[0])
        index = [int(i) for i in np.unravel_index(bad, value.shape)]
        raise ModelReadError(
            f"{value.flat[bad]} cannot be an input",
            where=f"{where}, index {index}",
            why=f"inputs are finite numbers in the range of {dtype}",
        )
    return stored


# Token files.


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelReadError(
            "the data cannot be read", where=str(path), why=error.strerror
        ) from error


def _text_of(path: Path) -> str:
    try:
        return _bytes_of(path).decode()
    except UnicodeDecodeError as error:
        raise ModelReadError(
            "the data is not text", where=str(path), why=str(error), hint=_TOKEN_HINT
        ) from error


def _from_text(path: Path) -> Iterator[TokenSample]:
    lines: list[TokenSample] = []
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        where = f"line {number} of {path}"
        words = line.replace(",", " ").split()
        ids: list[int] = []
        for index, word in enumerate(words):
            try:
                ids.append(int(word))
            except ValueError:
                raise _no_id(word, f"{where}, index {index}") from None
        if ids:
            lines.append(_sample(ids, where))
    if len(lines) > 1 and all(len(line.ids) == 1 for line in lines):
        lines = [TokenSample(np.concatenate([line.ids for line in lines]), str(path))]
    return iter(lines)


def _from_json(path: Path) -> Iterator[TokenSample]:
    content = _parse(_text_of(path), str(path))
    if not isinstance(content, list):
        raise ModelReadError("a list of samples is needed", where=str(path), hint=_TOKEN_HINT)
    items = cast(list[Any], content)
    if items and not isinstance(items[0], list | dict):
        yield _from_value(items, f"sample 0 of {path}")
        return
    for index, item in enumerate(items):
        yield _from_value(item, f"sample {index} of {path}")


def _from_lines(path: Path) -> Iterator[TokenSample]:
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if line.strip():
            where = f"line {number} of {path}"
            yield _from_value(_parse(line, where), where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelReadError(
            "the data is not JSON", where=where, why=str(error), hint=_TOKEN_HINT
        ) from error


def _from_value(value: Any, where: str) -> TokenSample:
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        value = next((fields[name] for name in _FIELDS if name in fields), None)
    if not isinstance(value, list):
        raise ModelReadError(
            f"a sample is a list of token ids, or an object with one as {' or '.join(_FIELDS)}",
            where=where,
            hint=_TOKEN_HINT,
        )
    ids = cast(list[Any], value)
    for index, item in enumerate(ids):
        if not isinstance(item, int) or isinstance(item, bool):
            raise _no_id(item, f"{where}, index {index}")
    return _sample(ids, where)


def _from_npy(path: Path) -> Iterator[TokenSample]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelReadError(
            "the data cannot be read",
            where=str(path),
            why=str(error),
            hint="numpy.save(FILE, array) writes such a file",
        ) from error
    if (
        not isinstance(array, np.ndarray)
        or array.dtype.kind not in "iu"
        or array.ndim not in (1, 2)
    ):
        raise ModelReadError(
            "token ids are whole numbers [samples, tokens] or [tokens]",
            where=str(path),
            why=f"it holds {array.dtype}{list(array.shape)}",
        )
    for index, row in enumerate(np.atleast_2d(array.astype(np.int64))):
        yield TokenSample(row, f"sample {index} of {path}")


def _sample(ids: Sequence[int], where: str) -> TokenSample:
    limit = np.iinfo(np.int64)
    for index, item in enumerate(ids):
        if not limit.min <= item <= limit.max:
            raise _no_id(item, f"{where}, index {index}")
    return TokenSample(np.array(ids, np.int64), where)


def _no_id(value: object, where: str) -> ModelReadError:
    return ModelReadError(f"{value!r} is no token id", where=where, hint=_TOKEN_HINT)
