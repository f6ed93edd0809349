"""The weights that a module asks for, written as a safetensors file."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from tilewright.backends.reference.numerics import quantize, stored_codes
from tilewright.backends.reference.requant import requant_table
from tilewright.compiler.output import atomic_output
from tilewright.compiler.weights import weight_writer
from tilewright.compiler.weights.container import (
    TensorInfo,
    WeightContainer,
    empty_container,
    open_checkpoint,
)
from tilewright.compiler.weights.layout import PADDING_NAME, Form, WeightRequest
from tilewright.compiler.weights.materialize import StoredWeights, WeightProgress, write_weights
from tilewright.compiler.weights.quantize import CodesRule
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType
from tilewright.dialects.errors import InternalError, ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]
BASE = 4096
W8A16 = parse_scheme("w8a16")


def quantized(
    key: str,
    shape: tuple[int, int],
    element: ElementType = F16,
    *,
    transposed: bool = False,
    rows: tuple[int, int] | None = None,
    name: str | None = None,
) -> list[WeightRequest]:
    name = name or key
    scale = (shape[0], 1)
    return [
        WeightRequest(f"{name}.codes", key, "codes", I8, shape, transposed, rows),
        WeightRequest(f"{name}.scale", key, "scale", element, scale, transposed, rows),
    ]


def dense(
    key: str, shape: tuple[int, ...], element: ElementType = F16, **options: Any
) -> WeightRequest:
    return WeightRequest(options.pop("name", key), key, "dense", element, shape, **options)


class Store:
    """A checkpoint in a folder, and what is made of it."""

    def __init__(self, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        self.folder, self.progress = folder, list[WeightProgress]()
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, folder / "m.safetensors"
        )

    def write(self, requests: Sequence[WeightRequest], **options: Any) -> StoredWeights:
        self.path = self.folder / "out.bin"
        with (
            open_checkpoint(self.folder / "m.safetensors") as checkpoint,
            atomic_output(self.path) as output,
        ):
            stored = write_weights(
                output, BASE, checkpoint, requests, progress=self.progress.append, **options
            )
        self.data = self.path.read_bytes()[BASE:]
        return stored

    def load(self) -> dict[str, Array]:
        (self.folder / "alone").write_bytes(self.data)
        loaded = load_file(self.folder / "alone")
        return {
            key: value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
            if value.dtype == torch.bfloat16
            else value.numpy()
            for key, value in loaded.items()
        }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Store(
        tmp_path,
        {
            "w": normal(61, 37).half(),
            "wb": normal(20, 16).bfloat16(),
            "wf": normal(20, 16),
            "wt": normal(37, 61).half(),
            "tiny": (normal(9, 8) * 2e-4).half(),
            "v": normal(13),
            "s": torch.tensor(0.1),
            "ids": torch.arange(3),
        },
    )


def source(store: Store, key: str) -> Array:
    with open_checkpoint(store.folder / "m.safetensors") as checkpoint:
        return checkpoint.read(key)


@pytest.mark.parametrize("chunk", [1, 500, 4 << 20])
@pytest.mark.parametrize("threads", [1, 3])
def test_everything_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, chunk: int, threads: int
) -> None:
    monkeypatch.setattr(weight_writer, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(weight_writer, "PANEL_BYTES", chunk)
    table = np.arange(12, dtype=np.int32).reshape(3, 4)
    requests = [
        *quantized("w", (61, 37)),
        *quantized("wt", (61, 37), transposed=True),
        *quantized("wf", (20, 16)),
        *quantized("w", (10, 37), rows=(5, 15), name="part"),
        *quantized("wt", (11, 37), transposed=True, rows=(50, 61), name="turned part"),
        *quantized("tiny", (9, 8)),
        dense("v", (13,)),
        dense("v", (13,), F32, name="v32"),
        dense("v", (1, 4), BF16, rows=(3, 7), name="v bf16"),
        dense("wt", (61, 37), transposed=True, name="wt dense"),
        dense("s", (1,)),
        WeightRequest("table", None, "dense", I32, (3, 4), array=table),
    ]
    stored = store.write(requests, threads=threads)
    loaded = store.load()
    wide = {"w": source(store, "w"), "wt": source(store, "wt").T, "wf": source(store, "wf")}
    wide |= {"part": wide["w"][5:15], "turned part": wide["wt"][50:], "tiny": source(store, "tiny")}
    for name, weight in wide.items():
        codes, scale, _ = quantize(weight, W8A16, F16)
        np.testing.assert_array_equal(loaded[f"{name}.codes"], codes, err_msg=name)
        np.testing.assert_array_equal(loaded[f"{name}.scale"], scale, err_msg=name)
        assert loaded[f"{name}.scale"].dtype == scale.dtype
    vector = source(store, "v")
    np.testing.assert_array_equal(loaded["v"], vector.astype(np.float16))
    np.testing.assert_array_equal(loaded["v32"], vector)
    np.testing.assert_array_equal(loaded["v bf16"], vector[3:7].astype(BF16.dtype)[None])
    np.testing.assert_array_equal(loaded["wt dense"], source(store, "wt").T)
    np.testing.assert_array_equal(loaded["s"], source(store, "s").astype(np.float16)[None])
    np.testing.assert_array_equal(loaded["table"], table)
    elements = stored.scale_elements
    assert elements.pop("tiny.scale") == F32
    assert set(elements.values()) == {F16}
    assert set(loaded) - {PADDING_NAME} == {request.name for request in requests}


def test_sums_and_offsets_are_those_of_the_file(store: Store) -> None:
    stored = store.write([*quantized("w", (61, 37)), dense("v", (13,))])
    assert len(store.data) == stored.size_bytes
    assert zlib.crc32(store.data) == stored.crc32
    header = store.data[: stored.header_bytes]
    assert hashlib.sha256(header).hexdigest() == stored.header_sha256
    assert stored.header_bytes % 4096 == 0
    loaded = store.load()
    for tensor in stored.tensors:
        part = store.data[tensor.offset : tensor.offset + tensor.size_bytes]
        assert part == loaded[tensor.name].tobytes()
        assert hashlib.sha256(part).hexdigest() == tensor.sha256
        assert tensor.offset % tensor.element.size_bytes == 0


def test_the_bytes_do_not_depend_on_threads_or_chunks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [*quantized("w", (61, 37)), *quantized("tiny", (9, 8)), dense("v", (13,))]
    first = store.write(requests)
    data = store.data
    monkeypatch.setattr(weight_writer, "CHUNK_BYTES", 100)
    assert store.write(requests, threads=4) == first
    assert store.data == data


@pytest.mark.parametrize("rule", ["stored-scale", "tpu-mlir"])
def test_rules(store: Store, rule: CodesRule) -> None:
    store.write(quantized("wf", (20, 16), BF16), codes=rule)
    codes, scale, _ = quantize(source(store, "wf"), W8A16, BF16, codes_rule=rule)
    loaded = store.load()
    np.testing.assert_array_equal(loaded["wf.codes"], codes)
    np.testing.assert_array_equal(loaded["wf.scale"], scale)


def test_progress_has_a_line_for_each_weight(store: Store) -> None:
    store.write([dense("v", (13,)), *quantized("w", (61, 37))])
    lines = [(p.index, p.total, p.name, p.source_dtype, p.form) for p in store.progress]
    assert lines == [(1, 2, "v", "F32", "dense"), (2, 2, "w", "F16", "codes")]
    assert [(p.shape, p.scheme) for p in store.progress] == [((13,), ""), ((61, 37), "w8a16")]
    assert store.progress[1].size_bytes == 61 * 37 + 61 * 2
    assert all(progress.seconds >= 0 for progress in store.progress)


def with_value(value: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tensor = torch.ones(40, 30, dtype=dtype)
    tensor[17, 3] = value
    return {"layers.2.w": tensor, "turned": tensor.T.contiguous()}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("chunk", [100, 4 << 20])
def test_what_is_not_finite_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    dtype: torch.dtype,
    chunk: int,
) -> None:
    monkeypatch.setattr(weight_writer, "CHUNK_BYTES", chunk)
    store = Store(tmp_path, with_value(value, dtype))
    for requests, message in (
        ([dense("layers.2.w", (40, 30))], r"'layers\.2\.w' holds (nan|-inf) at index \[17, 3\]"),
        (quantized("layers.2.w", (40, 30)), r"'layers\.2\.w' holds .* at index \[17, 3\]"),
        (quantized("layers.2.w", (9, 30), rows=(15, 24)), r"at index \[17, 3\]"),
        ([dense("turned", (40, 30), transposed=True)], r"at index \[3, 17\]"),
        (quantized("turned", (40, 30), transposed=True), r"at index \[3, 17\]"),
    ):
        with pytest.raises(ModelReadError, match=message):
            store.write(requests)
    assert not store.path.exists()


def test_what_overflows_f16_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, with_value(70000.0, torch.float32))
    with pytest.raises(
        ModelReadError, match=r"holds 70000 at index \[17, 3\]: too large"
    ) as caught:
        store.write([dense("layers.2.w", (40, 30))])
    assert "bf16" in str(caught.value)
    with pytest.raises(ModelReadError, match=r"output channel 17: too large for f16"):
        store.write(quantized("layers.2.w", (40, 30)))
    store.write([dense("layers.2.w", (40, 30), BF16)])
    store.write(quantized("layers.2.w", (40, 30), BF16))


def test_rounding_is_to_nearest_even(tmp_path: Path) -> None:
    values = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 2.0**-25, 3 * 2.0**-26, -0.0])
    store = Store(tmp_path, {"v": values})
    store.write([dense("v", (6,)), dense("v", (6,), BF16, name="b")])
    loaded = store.load()
    assert loaded["v"].tolist() == [1.0, 1 + 2**-9, 65504.0, 0.0, 2.0**-24, 0.0]
    assert loaded["b"].astype(np.float64).tolist()[:3] == [1.0, 1.0, 65536.0]


def test_requests_that_make_no_sense(store: Store) -> None:
    w = quantized("w", (61, 37))
    for requests, message in (
        ([w[0]], "are not asked for together"),
        ([*w, *quantized("w", (61, 37), name="again")], "are not asked for together"),
        ([dense("v", (13,)), dense("v", (13,))], "share a name"),
        ([dense("v", (14,))], "asked for as"),
        (quantized("w", (37, 61)), "asked for as"),
        (quantized("w", (10, 37), rows=(55, 65)), "asked for as"),
        ([WeightRequest("t", None, "dense", F32, (3,), array=np.zeros(3))], "the table 't'"),
    ):
        with pytest.raises(InternalError, match=message):
            store.write(requests)
    with pytest.raises(ModelReadError, match="no tensor 'none'"):
        store.write([dense("none", (1,))])
    with pytest.raises(UnsupportedError, match="stored as I64"):
        store.write([dense("ids", (3,))])


def test_no_weights_at_all(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "x") as output:
        stored = write_weights(output, 0, empty_container(), [])
    assert load_file(tmp_path / "x") == {}
    assert stored.tensors == ()


# Schemes.


def parts(key: str, shape: tuple[int, int], name: str, **options: Any) -> list[WeightRequest]:
    """The requests for a quantized weight `[N, K]` with f16 scales."""
    scheme = parse_scheme(name)
    groups = (shape[0], scheme.groups(shape[1]))

    def request(form: Form, element: ElementType, held: tuple[int, ...]) -> WeightRequest:
        full = f"{key}.{name}.{form}"
        return WeightRequest(full, key, form, element, held, scheme=name, **options)

    codes = request("codes", I8, (shape[0], scheme.format.row_bytes(shape[1])))
    zero = [request("zero", I8, groups)] if scheme.zero_point else []
    return [codes, request("scale", F16, groups), *zero]


@pytest.mark.parametrize("chunk", [100, 4 << 20])
@pytest.mark.parametrize("name", ["w4a16-channel", "w8a16-zp", "w4a16-channel-absmax", "f8e5m2"])
def test_schemes_in_chunks_and_turned(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int
) -> None:
    monkeypatch.setattr(weight_writer, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(weight_writer, "PANEL_BYTES", chunk)
    scheme = parse_scheme(name)
    stored = store.write(
        [*parts("w", (61, 37), name), *parts("wt", (61, 37), name, transposed=True)]
    )
    for key, weight in (("w", source(store, "w")), ("wt", source(store, "wt").T)):
        codes, scale, zero = quantize(weight, scheme, F16)
        held = store.load()
        np.testing.assert_array_equal(
            held[f"{key}.{name}.codes"], stored_codes(codes, scheme.format)
        )
        np.testing.assert_array_equal(held[f"{key}.{name}.scale"], scale)
        if zero is not None:
            np.testing.assert_array_equal(held[f"{key}.{name}.zero"], zero)
    assert {t.scheme for t in stored.tensors} == {name}
    assert sum(t.size_bytes for t in stored.tensors) == sum(p.size_bytes for p in store.progress)


def test_all_schemes_of_a_weight_have_f32_scales_if_one_has(store: Store) -> None:
    """By 7 steps the f16 scales are normal, by 127 they are not."""
    weight = source(store, "tiny").astype(np.float32) * 3
    names = ["w4a16-channel-absmax", "w8a16"]
    elements = [quantize(weight, parse_scheme(name), F16)[1].dtype for name in names]
    assert elements == [np.float16, np.float32]
    save_file({"tiny": torch.from_numpy(weight)}, store.folder / "m.safetensors")
    stored = store.write([request for name in names for request in parts("tiny", (9, 8), name)])
    assert set(stored.scale_elements.values()) == {F32}
    held = store.load()
    for name in names:
        scheme = parse_scheme(name)
        codes, scale, _ = quantize(weight, scheme, F32)
        np.testing.assert_array_equal(
            held[f"tiny.{name}.codes"], stored_codes(codes, scheme.format)
        )
        np.testing.assert_array_equal(held[f"tiny.{name}.scale"], scale)


def test_int8_layers_need_their_ranges(store: Store) -> None:
    request = WeightRequest("r", "wf", "requant", I32, (20, 3), scheme="int8")
    codes = WeightRequest("c", "wf", "codes", I8, (20, 16), scheme="int8")
    with pytest.raises(OptionError, match="no range for wf") as caught:
        store.write([codes, request], ranges={"w": (1.0, 1.0)})
    assert "tw calibrate" in str(caught.value)
    store.write([codes, request], ranges={"wf": (2.0, 8.0)})
    made, scale, _ = quantize(source(store, "wf"), parse_scheme("int8"), F32)
    table = requant_table(scale[:, 0], None, float(np.float32(2 / 127)), float(np.float32(8 / 127)))
    np.testing.assert_array_equal(store.load()["c"], made)
    np.testing.assert_array_equal(store.load()["r"], table)


def test_eight_bit_floats_have_no_rule_of_tpu_mlir(store: Store) -> None:
    with pytest.raises(OptionError, match="no rule for the codes of f8e4m3"):
        store.write(parts("w", (61, 37), "f8e4m3"), codes="tpu-mlir")


class Finished(WeightContainer):
    """A checkpoint in which one weight is quantized already."""

    def __init__(self, container: WeightContainer, key: str, weight: QuantizedWeight) -> None:
        self.container, self.key, self.weight = container, key, weight

    def info(self, key: str) -> TensorInfo:
        return self.container.info(key)

    def quantized(self, key: str) -> QuantizedWeight | None:
        return self.weight if key == self.key else None


def write_finished(
    store: Store, weight: QuantizedWeight, requests: Sequence[WeightRequest]
) -> StoredWeights:
    store.path = store.folder / "out.bin"
    with (
        open_checkpoint(store.folder / "m.safetensors") as checkpoint,
        atomic_output(store.path) as output,
    ):
        stored = write_weights(output, BASE, Finished(checkpoint, "wf", weight), requests)
    store.data = store.path.read_bytes()[BASE:]
    return stored


def finished_weight(name: str, scale: Array) -> QuantizedWeight:
    scheme, rng = parse_scheme(name), np.random.default_rng(4)
    codes = rng.integers(-128, 128, (20, scheme.format.row_bytes(16))).astype(np.int8)
    zero = rng.integers(0, 16, scale.shape).astype(np.int8) if scheme.zero_point else None
    element = {np.dtype(np.float16): F16, np.dtype(np.float32): F32}.get(scale.dtype, BF16)
    return QuantizedWeight(scheme, (20, 16), codes, scale, element, zero)


def test_finished_weights_are_written_as_they_are(store: Store) -> None:
    scale = np.random.default_rng(3).random((20, 1)).astype(np.float16)
    weight = finished_weight("w4a16-channel", scale)
    for rows in (None, (5, 12)):
        part = slice(*rows) if rows else slice(None)
        shape = (len(weight.codes[part]), 16)
        write_finished(store, weight, parts("wf", shape, "w4a16-channel", rows=rows))
        held = store.load()
        np.testing.assert_array_equal(held["wf.w4a16-channel.codes"], weight.codes[part])
        np.testing.assert_array_equal(held["wf.w4a16-channel.scale"], scale[part])
        assert weight.zero is not None
        np.testing.assert_array_equal(held["wf.w4a16-channel.zero"], weight.zero[part])


def test_finished_scales_keep_their_values(store: Store) -> None:
    """In the type that is asked for where it holds them, else in f32."""
    requests = parts("wf", (20, 16), "w8a16")
    for scale, stored in (
        (np.full((20, 1), 0.75, BF16.dtype), F16),
        (np.full((20, 1), 2.0**-20, BF16.dtype), F16),
        (np.full((20, 1), 2.0**-30, BF16.dtype), F32),
        (np.full((20, 1), 1 / 3, np.float32), F32),
    ):
        made = write_finished(store, finished_weight("w8a16", scale), requests)
        assert made.scale_elements == {"wf.w8a16.scale": stored}
        held = store.load()["wf.w8a16.scale"]
        np.testing.assert_array_equal(held.astype(np.float64), scale.astype(np.float64))


def test_finished_weights_of_another_scheme_are_our_mistake(store: Store) -> None:
    weight = finished_weight("w8a16", np.ones((20, 1), np.float16))
    with pytest.raises(InternalError, match=r"'wf' is w8a16 .* asked for as w4a16-channel"):
        write_finished(store, weight, parts("wf", (20, 16), "w4a16-channel"))
