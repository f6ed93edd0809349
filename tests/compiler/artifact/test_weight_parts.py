"""Quantized weights of every scheme go into an artifact and come back; parts that do not go
together are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Program
from tilewright.backends.reference import numerics
from tilewright.backends.reference.requant import requant_table
from tilewright.compiler.artifact import Artifact, ArtifactWriter, open_artifact
from tilewright.compiler.artifact.manifest import TensorRecord
from tilewright.compiler.artifact.weight_parts import part_problems
from tilewright.compiler.weights.container import open_checkpoint
from tilewright.compiler.weights.layout import WeightRequest
from tilewright.dialects.element_types import F16, F32, I8, I32
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]
ROWS, COLS = 24, 64
SCHEMES = ("w8a16", "w8a16-g16", "w8a16-zp", "w4a16", "w4a16-g32-absmax", "w4a16-channel", "f8e4m3")
RANGES = {"w": (3.0, 5.5)}


def requests_of(name: str) -> list[WeightRequest]:
    """The parts of the weight `w` by a scheme."""
    scheme = parse_scheme(name)
    groups = (ROWS, scheme.groups(COLS))
    base = "w" if name == "w8a16" else f"w.{name}"

    def request(form: Any, element: Any, shape: tuple[int, ...], **options: Any) -> WeightRequest:
        return WeightRequest(f"{base}.{form}", "w", form, element, shape, scheme=name, **options)

    codes = request("codes", I8, (ROWS, scheme.format.row_bytes(COLS)))
    if scheme.int8_activations:
        scales = [request(f"{end}put_scale", F32, (1, 1)) for end in ("in", "out")]
        return [codes, request("requant", I32, (ROWS, 3), bias="b"), *scales]
    zero = [request("zero", I8, groups)] if scheme.zero_point else []
    return [codes, request("scale", F16, groups), *zero]


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    source: dict[str, Array] = {
        "w": rng.standard_normal((ROWS, COLS)).astype(np.float16),
        "b": rng.standard_normal(ROWS).astype(np.float32),
    }
    source["w"][7] = 0
    save_file(source, tmp_path / "model.safetensors")
    return source


def artifact_of(folder: Path, *names: str) -> Artifact:
    chip = load_chip("bm1684x")
    with open_checkpoint(folder) as checkpoint, ArtifactWriter(folder / "m.twm") as writer:
        requests = [request for name in names for request in requests_of(name)]
        dense = WeightRequest("w", "w", "dense", F16, (ROWS, COLS))
        writer.write_weights(checkpoint, [*requests, dense], ranges=RANGES)
        writer.finish(Program(chip.name, (), (), ()), "module {}", chip)
    return open_artifact(folder / "m.twm")


def test_one_weight_in_every_scheme_and_dense(tmp_path: Path, source: dict[str, Array]) -> None:
    artifact = artifact_of(tmp_path, *SCHEMES)
    for name in SCHEMES:
        scheme, base = parse_scheme(name), "w" if name == "w8a16" else f"w.{name}"
        codes, scale, zero = numerics.quantize(source["w"], scheme, F16)
        stored = numerics.stored_codes(codes, scheme.format)
        np.testing.assert_array_equal(artifact.weight(f"{base}.codes"), stored)
        np.testing.assert_array_equal(artifact.weight(f"{base}.scale"), scale)
        assert artifact.weight(f"{base}.scale").dtype == scale.dtype
        if zero is not None:
            np.testing.assert_array_equal(artifact.weight(f"{base}.zero"), zero)
    np.testing.assert_array_equal(artifact.weight("w"), source["w"])
    schemes = {tensor.name: tensor.scheme for tensor in artifact.manifest.weights.tensors}
    assert schemes["w"] == ""
    assert schemes["w.w4a16.zero"] == "w4a16"


def test_int8_layers(tmp_path: Path, source: dict[str, Array]) -> None:
    artifact = artifact_of(tmp_path, "int8")
    codes, scale, _ = numerics.quantize(source["w"], parse_scheme("int8"), F32)
    np.testing.assert_array_equal(artifact.weight("w.int8.codes"), codes)
    ends = [np.float32(end / 127) for end in RANGES["w"]]
    assert artifact.weight("w.int8.input_scale").tolist() == [[ends[0]]]
    assert artifact.weight("w.int8.output_scale").tolist() == [[ends[1]]]
    empty = np.asarray(~codes.any(axis=1))
    table = requant_table(
        scale[:, 0], source["b"], float(ends[0]), float(ends[1]), zero_channels=empty
    )
    np.testing.assert_array_equal(artifact.weight("w.int8.requant"), table)


def changed(which: str, **changes: Any) -> Callable[[TensorRecord], TensorRecord]:
    return lambda t: msgspec.structs.replace(t, **changes) if t.form == which else t


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("w4a16", changed("scale", shape=(1, ROWS)), "scale is f16"),
        ("w4a16", changed("scale", element="i8"), "scale is i8"),
        ("w4a16", changed("zero", shape=(1, ROWS)), "zero is i8"),
        ("w4a16", changed("codes", element="f16"), "codes is f16"),
        ("w4a16", changed("zero", form="requant", name="w.w4a16.requant"), "its parts are"),
        ("w4a16", changed("scale", name="other"), "not called after its form"),
        ("w8a16", changed("scale", scheme="w4a16"), "its parts are"),
        ("w8a16", changed("codes", scheme="w5a16"), "unknown scheme 'w5a16'"),
        ("w8a16", changed("dense", scheme="w8a16"), "is dense and has the scheme"),
        ("int8", changed("requant", shape=(3, ROWS)), "requant is i32"),
        ("int8", changed("input_scale", element="f16"), "input_scale is f16"),
    ],
)
def test_parts_that_do_not_go_together(
    tmp_path: Path, source: dict[str, Array], name: str, change: Any, message: str
) -> None:
    assert "w" in source
    artifact = artifact_of(tmp_path, name)
    tensors = artifact.manifest.weights.tensors
    data = memoryview((tmp_path / "m.twm").read_bytes())
    problems = list(part_problems([change(tensor) for tensor in tensors], data))
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "form", "value", "message"),
    [
        ("w4a16", "zero", np.int8(17), "zero points are not in 0..16"),
        ("w4a16", "zero", np.int8(-1), "zero points are not in 0..16"),
        ("int8", "requant", np.int32(0), "shifts of requant are not in 1..62"),
        ("int8", "requant", np.int32(63), "shifts of requant are not in 1..62"),
        ("int8", "requant", np.int32(-5), "a multiplier of requant is negative"),
        ("int8", "input_scale", np.float32(0), "input_scale is 0"),
        ("int8", "output_scale", np.float32(np.inf), "output_scale is inf"),
    ],
)
def test_values_that_the_machine_does_not_take(
    tmp_path: Path, source: dict[str, Array], name: str, form: str, value: Any, message: str
) -> None:
    """Both where the digests agree: a writer that is wrong, not a file that is damaged."""
    assert "w" in source
    tensors = artifact_of(tmp_path, name).manifest.weights.tensors
    tensor = next(tensor for tensor in tensors if tensor.form == form)
    buffer = bytearray(tensors[-1].offset + tensors[-1].size_bytes)
    for each in tensors:
        if each.form == "requant":
            part = np.frombuffer(buffer, np.int32, 3 * ROWS, each.offset)
            part[...] = 5
        elif each.form in ("input_scale", "output_scale"):
            np.frombuffer(buffer, np.float32, 1, each.offset)[...] = 1
    assert list(part_problems(tensors, memoryview(buffer))) == []
    np.frombuffer(buffer, value.dtype, 3 if form == "requant" else 1, tensor.offset)[...] = value
    assert any(message in why for why in part_problems(tensors, memoryview(buffer)))


def test_the_reader_asks(tmp_path: Path, source: dict[str, Array], monkeypatch: Any) -> None:
    from tilewright.compiler.artifact import reader

    assert "w" in source
    monkeypatch.setattr(reader, "part_problems", lambda *_: iter(["the scale is odd"]))
    with pytest.raises(Exception, match="do not fit together"):
        artifact_of(tmp_path, "w8a16")
