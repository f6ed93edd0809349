"""Arrays by name in `.npz` files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import numpy.typing as npt

from tilewright.dialects.errors import ModelReadError


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file by name; raises `ModelReadError`."""
    try:
        with open(path, "rb") as file:
            if not is_zipfile(file):
                raise ValueError("it is no .npz file")
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ModelReadError(
            "the inputs cannot be read",
            where=str(path),
            why=str(error),
            hint="numpy.savez(FILE, name=array, ...) writes such a file",
        ) from error
