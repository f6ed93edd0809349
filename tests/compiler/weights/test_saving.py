"""Arrays written as safetensors, held against the safetensors package."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tilewright.compiler.weights.saving import save_arrays
from tilewright.dialects.errors import StorageError, UnsupportedError


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "b": rng.standard_normal((7,)).astype(np.float16).reshape(7),
        "c.transposed": rng.standard_normal((4, 6)).astype(np.float32).T,
    }
    path = tmp_path / "w.safetensors"
    save_arrays(path, arrays)
    read = load_file(path)
    assert {key: value.dtype for key, value in read.items()} == {
        key: value.dtype for key, value in arrays.items()
    }
    assert all(np.array_equal(read[key], arrays[key]) for key in arrays)


def test_bf16_is_written_as_bf16(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_arrays(path, {"x": np.array([1.5, -2.0]).astype(ml_dtypes.bfloat16)})
    with safe_open(path, "np") as file:
        assert file.get_slice("x").get_dtype() == "BF16"


def test_other_types_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'x' is float64"):
        save_arrays(tmp_path / "w.safetensors", {"x": np.zeros(2)})
    with pytest.raises(StorageError):
        save_arrays(tmp_path / "none" / "w.safetensors", {"x": np.zeros(2, np.float32)})
    assert not list(tmp_path.iterdir())
