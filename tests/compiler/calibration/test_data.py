"""Files of calibration data: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compiler.calibration.models import language_model, layers_model

from tilewright.compiler.calibration import CalibrationData, load_data
from tilewright.compiler.calibration.data import TokenSample, cut, read_tokens
from tilewright.compiler.cli.run_verb import npz_bytes
from tilewright.dialects.errors import ModelReadError, OptionError

SEQ = 6


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def ids_of(path: Path) -> list[list[int]]:
    return [sample.ids.tolist() for sample in read_tokens(path)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "1 2 3\n\n4,5, 6\n7\n", [[1, 2, 3], [4, 5, 6], [7]]),
        ("stream.txt", "1 2 3 4", [[1, 2, 3, 4]]),
        ("column.txt", "1\n2\n\n3\n", [[1, 2, 3]]),
        ("a.json", "[[1, 2], [3]]", [[1, 2], [3]]),
        ("flat.json", "[1, 2, 3]", [[1, 2, 3]]),
        ("objects.json", '[{"input_ids": [1, 2]}, {"input_ids": [3]}]', [[1, 2], [3]]),
        ("a.jsonl", '[1, 2]\n\n{"tokens": [3], "text": "x"}\n{"ids": [4]}\n', [[1, 2], [3], [4]]),
    ],
)
def test_token_files(tmp_path: Path, name: str, text: str, expected: list[list[int]]) -> None:
    assert ids_of(written(tmp_path, name, text)) == expected


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_token_arrays(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], dtype))
    assert ids_of(tmp_path / "a.npy") == [[1, 2], [3, 4]]
    np.save(tmp_path / "b.npy", np.array([1, 2, 3], dtype))
    assert ids_of(tmp_path / "b.npy") == [[1, 2, 3]]


@given(st.lists(st.integers(0, 40).map(lambda n: list(range(n + 1)))), st.integers(1, 9))
def test_cutting_loses_no_token(sequences: list[list[int]], seq: int) -> None:
    samples = [TokenSample(np.array(ids), "") for ids in sequences]
    pieces = cut(samples, seq)
    assert [i for p in pieces for i in p.ids.tolist()] == [i for ids in sequences for i in ids]
    assert all(1 <= len(piece.ids) <= seq for piece in pieces)
    assert len(pieces) == sum(-(-len(ids) // seq) for ids in sequences)


def test_prompts_are_padded_and_causal(tmp_path: Path) -> None:
    model = language_model(tmp_path, SEQ)
    path = written(tmp_path, "a.jsonl", "[1, 2, 3]\n[9, 8, 7, 6, 5, 4, 3]\n")
    data = load_data(path, model)
    assert data.record.name == "a.jsonl"
    assert data.record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [sample.tokens for sample in data.samples] == [3, 6, 1]
    first = data.samples[0].inputs
    assert first["input_ids"].tolist() == [1, 2, 3, 0, 0, 0]
    assert first["position_ids"].tolist() == list(range(SEQ))
    assert first["last_position"].tolist() == [2]
    mask = first["attention_mask"]
    np.testing.assert_array_equal(mask == 0, np.tri(SEQ, dtype=bool))
    assert np.isfinite(mask).all()
    assert data.samples[2].where.endswith("line 2 of " + f"{path}, from token 6")
    assert len(load_data(path, model, limit=2).samples) == 2


@pytest.mark.parametrize(
    ("name", "text", "said", "where"),
    [
        ("a.txt", "", "the data is empty", "a.txt"),
        ("a.txt", "\n \n", "the data is empty", "a.txt"),
        ("a.json", "[]", "the data is empty", "a.json"),
        ("a.json", "[[]]", "a sample has no tokens", "sample 0"),
        ("a.jsonl", "[1]\n[]", "a sample has no tokens", "line 2"),
        ("a.txt", "1 2\n3 x4 5", "'x4' is no token id", "line 2 of .*, index 1"),
        ("a.txt", "1 2.5", "'2.5' is no token id", "line 1 of .*, index 1"),
        ("a.txt", "1 99999999999999999999", "99999999999999999999 is no token id", "index 1"),
        ("a.json", "[[1, 2.0]]", "2.0 is no token id", "sample 0 of .*, index 1"),
        ("a.json", "[[1, true]]", "True is no token id", "sample 0 of .*, index 1"),
        ("a.json", "[[1], 2]", "a sample is a list of token ids", "sample 1"),
        ("a.json", '{"input_ids": [1]}', "a list of samples is needed", "a.json"),
        ("a.json", "[[1, 2]", "the data is not JSON", "a.json"),
        ("a.jsonl", '[1]\n{"text": "hello"}', "a sample is a list of token ids", "line 2"),
        ("a.jsonl", "[1]\n[NaN]", "nan is no token id", "line 2 of .*, index 0"),
        ("a.csv", "1", "data in a .csv file cannot be read", "a.csv"),
        ("a", "1", "data in a nameless kind of file", "a"),
        ("a.txt", "1 50", "token id 50 is out of range", "line 1 of .*, index 1"),
        ("a.txt", "1\n-1", "token id -1 is out of range", "index 1"),
        ("a.npy", "hello", "the data cannot be read", "a.npy"),
    ],
)
def test_token_files_that_cannot_be_used(
    tmp_path: Path, name: str, text: str, said: str, where: str
) -> None:
    model = language_model(tmp_path, SEQ)
    with pytest.raises(ModelReadError, match=said) as error:
        load_data(written(tmp_path, name, text), model)
    assert re.search(where, error.value.where or "")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="cannot be read") as error:
        load_data(tmp_path / "no.txt", language_model(tmp_path, SEQ))
    assert error.value.why == "No such file or directory"


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3)), np.zeros((2, 3, 4), int), np.array(3), np.array([True])]
)
def test_token_arrays_that_are_none(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ModelReadError, match="token ids are whole numbers"):
        read_tokens(tmp_path / "a.npy")


def test_an_empty_token_array(tmp_path: Path) -> None:
    for shape in ((0,), (0, 4), (3, 0)):
        np.save(tmp_path / "a.npy", np.zeros(shape, int))
        with pytest.raises(ModelReadError, match=r"no tokens|is empty"):
            read_tokens(tmp_path / "a.npy")


def loaded(folder: Path, **arrays: Any) -> CalibrationData:
    model, _ = layers_model(folder)
    np.savez(folder / "x.npz", **arrays)
    return load_data(folder / "x.npz", model)


def test_inputs_of_a_function(tmp_path: Path) -> None:
    x, bias = np.ones((3, 4, 8)), np.zeros((3, 8), np.float16)
    assert len(loaded(tmp_path, x=x, bias=bias).samples) == 3
    (sample,) = loaded(tmp_path, x=x[0], bias=bias[0]).samples
    assert {name: (a.shape, a.dtype) for name, a in sample.inputs.items()} == {
        "x": ((4, 8), np.dtype(np.float32)),
        "bias": ((8,), np.dtype(np.float32)),
    }


X = np.ones((4, 8))
BIAS = np.zeros(8)
WITH_NAN = np.where(np.arange(32).reshape(4, 8) == 11, np.nan, 1.0)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "missing: bias"),
        ({"x": X, "bias": BIAS, "z": X}, "unknown: z"),
        ({"x": X.T, "bias": BIAS}, r"it is \[8, 4\], not \[4, 8\] or \[samples, 4, 8\]"),
        ({"x": X[None], "bias": BIAS}, "x: 1, bias: no axis"),
        ({"x": np.ones((2, 4, 8)), "bias": np.zeros((3, 8))}, "x: 2, bias: 3"),
        ({"x": np.ones((0, 4, 8)), "bias": np.zeros((0, 8))}, "is empty"),
        ({"x": WITH_NAN, "bias": BIAS}, r"(?s)nan cannot be.*input 'x'.*index \[1, 3\]"),
        ({"x": X, "bias": BIAS + np.inf}, r"(?s)inf cannot be.*input 'bias'.*index \[0\]"),
        ({"x": X * 1e300, "bias": BIAS}, r"(?s)1e\+300 cannot be.*range of float32"),
        ({"x": X + 1j, "bias": BIAS}, "numbers are needed, not complex128"),
        ({"x": X, "bias": np.array(["a"] * 8)}, "numbers are needed, not <U1"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelReadError) as error:
        loaded(tmp_path, **arrays)
    assert re.search(said, str(error.value)), str(error.value)


def test_indices_are_whole_numbers_in_range(tmp_path: Path) -> None:
    model = language_model(tmp_path, SEQ)
    (sample,) = load_data(written(tmp_path, "a.txt", "1 2 3"), model).samples
    for ids, said in ((np.ones(SEQ), "whole numbers"), (np.full(SEQ, 2**40), "range of int32")):
        (tmp_path / "x.npz").write_bytes(npz_bytes({**sample.inputs, "input_ids": ids}))
        with pytest.raises(ModelReadError) as error:
            load_data(tmp_path / "x.npz", model)
        assert said in str(error.value)
    last = {**sample.inputs, "last_position": np.array([SEQ])}
    (tmp_path / "x.npz").write_bytes(npz_bytes(last))
    with pytest.raises(ModelReadError, match="the last position is 6"):
        load_data(tmp_path / "x.npz", model)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    layers, _ = layers_model(tmp_path)
    tokens = written(tmp_path, "a.txt", "1 2 3")
    with pytest.raises(OptionError, match="is not a language model"):
        load_data(tokens, layers)
    np.savez(tmp_path / "x.npz", x=X, bias=BIAS)
    with pytest.raises(OptionError, match="has no function 'maim'"):
        load_data(tmp_path / "x.npz", layers, function="maim")
    with pytest.raises(OptionError, match="--samples is 0"):
        load_data(tmp_path / "x.npz", layers, limit=0)
    model = language_model(tmp_path, SEQ)
    with pytest.raises(OptionError, match="run through prefill, not decode"):
        load_data(tokens, model, function="decode")
