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

from tilewright.backends.reference.numerics import quantize
from tilewright.compiler.output import atomic_output
from tilewright.compiler.weights import weight_writer
from tilewright.compiler.weights.container import empty_container, open_checkpoint
from tilewright.compiler.weights.layout import PADDING_NAME, WeightRequest
from tilewright.compiler.weights.materialize import StoredWeights, WeightProgress, write_weights
from tilewright.compiler.weights.quantize import CodesRule
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType
from tilewright.dialects.errors import InternalError, ModelReadError, UnsupportedError
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
        ([w[0]], "not asked for together|are not asked for"),
        ([*w, *quantized("w", (61, 37), name="again")], "not asked for together|are not asked for"),
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
