"""Arrays in memory as a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.output import write_atomically
from tilewright.compiler.weights.container import WEIGHT_ELEMENTS
from tilewright.compiler.weights.safetensors_header import HeaderEntry, format_header
from tilewright.dialects.errors import UnsupportedError

Array = npt.NDArray[Any]


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` (f32, f16 or bf16) into the safetensors file `path`, by name, in order.

    Raises `UnsupportedError` for arrays of other types, `StorageError` where it cannot be written.
    """
    dtypes = {element.dtype: name for name, element in WEIGHT_ELEMENTS.items()}
    entries: list[HeaderEntry] = []
    data: list[bytes] = []
    begin = 0
    for key, array in arrays.items():
        if array.dtype not in dtypes:
            raise UnsupportedError(
                f"weight {key!r} is {array.dtype}",
                hint="f32, f16 or bf16: array.astype(np.float32)",
            )
        data.append(np.ascontiguousarray(array).tobytes())
        dtype = dtypes[array.dtype]
        entries.append(HeaderEntry(key, dtype, array.shape, begin, len(data[-1])))
        begin += len(data[-1])
    write_atomically(path, b"".join([format_header(entries), *data]))
