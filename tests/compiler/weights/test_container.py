"""Checkpoints: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from tilewright.compiler.weights.container import open_checkpoint, open_file
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import ModelReadError, UnsupportedError


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "a": torch.randn(30, 7, generator=generator).half(),
        "b": torch.randn(5, 3, 2, generator=generator).bfloat16(),
        "c": torch.randn(11, generator=generator),
        "d": torch.tensor(2.5),
        "e": torch.zeros(0, 4),
        "ids": torch.arange(6),
    }


def write_raw(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def write_shards(folder: Path, **changes: str | None) -> None:
    held = tensors()
    save_file({key: held[key] for key in "ab"}, folder / "model-1.safetensors")
    save_file({key: held[key] for key in "cd"}, folder / "model-2.safetensors")
    table: dict[str, str | None] = {"a": "model-1.safetensors", "b": "model-1.safetensors"}
    table |= {"c": "model-2.safetensors", "d": "model-2.safetensors"} | changes
    index = {"metadata": {}, "weight_map": {key: file for key, file in table.items() if file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["model.safetensors", "anything.safetensors"])
def test_one_file(tmp_path: Path, name: str) -> None:
    save_file(tensors(), tmp_path / name, metadata={"format": "pt"})
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.keys() == ["a", "b", "c", "d", "e", "ids"]
        for key, tensor in tensors().items():
            info = checkpoint.info(key)
            assert info.shape == tuple(tensor.shape)
            if key == "ids":
                continue
            values = checkpoint.read(key)
            assert values.shape == info.shape
            np.testing.assert_array_equal(values.astype(np.float32), tensor.float().numpy())
        assert [checkpoint.info(key).element for key in "abc"] == [F16, BF16, F32]
        assert "a" in checkpoint
        assert list(checkpoint.fingerprints()) == [name]
    with open_checkpoint(tmp_path / name) as checkpoint:
        assert "b" in checkpoint


def test_rows_and_columns_into_a_buffer(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    expected = tensors()["a"].numpy()
    buffer = np.zeros(1000, np.uint8)
    with open_file(tmp_path / "x.safetensors") as checkpoint:
        rows = checkpoint.read_rows("a", 4, 9, buffer)
        np.testing.assert_array_equal(rows, expected[4:9])
        assert np.shares_memory(rows, buffer)
        columns = checkpoint.read_columns("a", 2, 6, buffer)
        np.testing.assert_array_equal(columns, expected[:, 2:6])
        np.testing.assert_array_equal(checkpoint.read_columns("a", 0, 7), expected)
        with pytest.raises(IndexError):
            checkpoint.read_rows("a", 4, 31)
        with pytest.raises(ValueError, match="uint8 buffer"):
            checkpoint.read_rows("a", 0, 9, np.zeros(10, np.uint8))


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    preadv = os.preadv
    with open_file(tmp_path / "x.safetensors") as checkpoint:
        monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:5]], at))
        np.testing.assert_array_equal(checkpoint.read("a"), tensors()["a"].numpy())


def test_types_that_are_no_weights(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.info("ids").dtype == "I64"
        with pytest.raises(UnsupportedError, match="a weight stored as I64") as caught:
            checkpoint.read("ids")
        assert "tensor 'ids'" in str(caught.value)


def test_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.keys() == ["a", "b", "c", "d"]
        assert checkpoint.info("c").file.name == "model-2.safetensors"
        np.testing.assert_array_equal(checkpoint.read("c"), tensors()["c"].numpy())


def test_a_tensor_outside_of_the_index_is_not_seen(tmp_path: Path) -> None:
    write_shards(tmp_path, b=None)
    with open_checkpoint(tmp_path) as checkpoint:
        assert "b" not in checkpoint


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ModelReadError, match=r"model-2\.safetensors is missing") as caught:
        open_checkpoint(tmp_path)
    assert "2 tensors: c, d" in str(caught.value)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, z="model-1.safetensors")
    with pytest.raises(ModelReadError) as caught:
        open_checkpoint(tmp_path)
    assert "z (not in model-1.safetensors)" in str(caught.value)


def test_an_index_that_leaves_its_folder(tmp_path: Path) -> None:
    write_shards(tmp_path, a="../model-1.safetensors")
    with pytest.raises(ModelReadError, match="outside of its folder"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_damaged_indices(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelReadError, match="index"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_file({"a": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelReadError, match="tensor 'a' is in two files"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00007.bin", "model.pt", "model.pth"])
def test_pickles_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ModelReadError, match="pickled") as caught:
            open_checkpoint(path)
        assert "save_pretrained(OUT, safe_serialization=True)" in str(caught.value)


def test_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="no weights in the folder"):
        open_checkpoint(tmp_path)
    with pytest.raises(ModelReadError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "none")


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", 0, "not JSON"),
        (b"[]", 0, "not a JSON object"),
        (b'{"a": 1, "a": 2}', 0, "stands there twice"),
        ({"a": {"dtype": "F16"}}, 0, "tensor 'a'"),
        ({"a": entry(0, 4, [2], "F15")}, 4, "unknown dtype 'F15'"),
        ({"a": entry(0, 4, [-2])}, 4, "not a list of counts"),
        ({"a": entry(0, 4, [True])}, 4, "not a list of counts"),
        ({"a": entry(4, 0, [2])}, 4, "not a range"),
        ({"a": entry(0, 4, [3])}, 4, "takes 6 bytes; data_offsets span 4"),
        ({"a": entry(2, 4, [1])}, 4, "begins at 2"),
        ({"a": entry(0, 4, [2]), "b": entry(2, 6, [2])}, 6, "tensor 'b'"),
        ({"a": entry(0, 4, [2]), "b": entry(4, 8, [2])}, 7, "tensor 'b'"),
        ({"a": entry(0, 4, [2])}, 5, "too long"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: Any, data: int, message: str) -> None:
    path = write_raw(tmp_path / "x.safetensors", header, bytes(data))
    with pytest.raises(ModelReadError) as caught:
        open_checkpoint(tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_truncated_file_names_the_tensor_and_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = save({"a": torch.zeros(10), "b": torch.zeros(100)})
    path.write_bytes(whole[:-300])
    with pytest.raises(ModelReadError, match="truncated") as caught:
        open_checkpoint(tmp_path)
    message = str(caught.value)
    assert "tensor 'b'" in message
    assert f"{len(whole):,}" in message
    assert f"{len(whole) - 300:,}" in message


@pytest.mark.parametrize("length", [2**63, 100_000_001, 50])
def test_impossible_header_lengths(tmp_path: Path, length: int) -> None:
    write_raw(tmp_path / "x.safetensors", {}, length=length)
    with pytest.raises(ModelReadError):
        open_checkpoint(tmp_path)


def test_an_lfs_pointer(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (tmp_path / "model.safetensors").write_text(text)
    with pytest.raises(ModelReadError, match="Git LFS pointer"):
        open_checkpoint(tmp_path)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255), length=st.integers(0, 500))
def test_no_damage_is_a_crash(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, length: int
) -> None:
    data = bytearray(save(tensors())[: max(length, 8)])
    data[min(position, len(data) - 1)] = value
    path = tmp_path_factory.mktemp("damage") / "x.safetensors"
    path.write_bytes(data)
    try:
        with open_file(path) as checkpoint:
            for key in checkpoint.keys():  # noqa: SIM118
                assert checkpoint.info(key).size_bytes >= 0
    except ModelReadError:
        pass


def test_a_file_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path)
    with open_checkpoint(tmp_path) as checkpoint:
        path.write_bytes(b"")
        with pytest.raises(ModelReadError, match="become shorter"):
            checkpoint.read("a")


def test_check_lists_everything_at_once(tmp_path: Path) -> None:
    held = {**tensors(), "transformer.rotary_pos_emb.inv_freq": torch.zeros(4)}
    save_file(held, tmp_path / "model.safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors().items()}
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.check(shapes)
        with pytest.raises(ModelReadError) as caught:
            checkpoint.check({**shapes, "a": (7, 30), "new": (1,), "ids": (6,), "c": (12,)})
        why = str(caught.value.why)
        assert "1 missing: new" in why
        assert "2 of another shape: a: [30, 7] instead of [7, 30], c: [11] instead of [12]" in why
        with pytest.raises(ModelReadError, match="does not have the tensors") as caught:
            checkpoint.check({"a": (30, 7)}, ignorable=["[bcd]"])
        assert "3 extra: e, ids, transformer.rotary_pos_emb.inv_freq" in str(caught.value)


def test_a_wrong_key_suggests_the_right_one(tmp_path: Path) -> None:
    save_file({"layers.0.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        with pytest.raises(ModelReadError) as caught:
            checkpoint.info("layers.0.weigth")
        assert "did you mean 'layers.0.weight'?" in str(caught.value)
