"""Quantized weights into the bytes of an artifact, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Program
from tilewright.backends.reference import numerics
from tilewright.compiler.artifact.reader import open_artifact
from tilewright.compiler.artifact.writer import ArtifactWriter
from tilewright.compiler.memory_plan import weight_name
from tilewright.compiler.weights.container import TensorInfo
from tilewright.compiler.weights.layout import WeightRequest
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.dialects.element_types import BF16, F16, F32, I8
from tilewright.dialects.errors import InternalError
from tilewright.dialects.quantization import Scheme

Array = npt.NDArray[Any]

KEY = "w"


class OneWeight:
    """A source of one weight, which is quantized already."""

    def __init__(self, weight: QuantizedWeight) -> None:
        self.weight = weight

    def keys(self) -> list[str]:
        return [KEY]

    def info(self, key: str) -> TensorInfo:
        return TensorInfo(key, self.weight.shape, "F16", Path("made-up"), 0, 0)

    def quantized(self, key: str) -> QuantizedWeight | None:
        return self.weight

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        raise InternalError("the weight is not dense")

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        raise InternalError("the weight is not dense")

    def fingerprints(self) -> Mapping[str, str]:
        return {}


def written(scheme: Scheme, codes: Array, scale: Array, zero: Array | None = None) -> bytes:
    """The bytes of an artifact with a weight of these parts."""
    element = next(e for e in (F16, BF16, F32) if e.dtype == scale.dtype)
    stored = numerics.stored_codes(codes, scheme.format).astype(np.int8)
    weight = QuantizedWeight(scheme, codes.shape, stored, scale, element, zero)
    requests = [
        WeightRequest(
            weight_name(KEY, "codes"), KEY, "codes", I8, stored.shape, scheme=scheme.name
        ),
        WeightRequest(
            weight_name(KEY, "scale"), KEY, "scale", element, scale.shape, scheme=scheme.name
        ),
    ]
    if zero is not None:
        requests.append(
            WeightRequest(weight_name(KEY, "zero"), KEY, "zero", I8, zero.shape, scheme=scheme.name)
        )
    chip = load_chip("bm1684x")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.twm"
        with ArtifactWriter(path) as writer:
            writer.write_weights(OneWeight(weight), requests)
            writer.finish(Program(chip.name, (), (), ()), "module {}\n", chip)
        return path.read_bytes()


def read(scheme: Scheme, data: bytes) -> Sequence[Array]:
    """The parts of the weight in an artifact."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.twm"
        path.write_bytes(data)
        artifact = open_artifact(path)
        names = {form: weight_name(KEY, form) for form in ("codes", "scale", "zero")}
        held = artifact.weights()
        named = {f: artifact.weight(name).copy() for f, name in names.items() if name in held}
    depth = named["codes"].shape[1] * 8 // scheme.format.bits
    codes = numerics.plain_codes(named["codes"], scheme.format, depth)
    return (codes, named["scale"], named["zero"]) if "zero" in named else (codes, named["scale"])
