"""Checkpoints and IR that cannot be compiled: the exit code, what is said, and no output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file
from tests.compiler.cli.harness import (
    SEQ,
    Models,
    Result,
    Tw,
    assert_refused,
    chip_file,
    names_in,
)

Tensors = dict[str, npt.NDArray[Any]]
WEIGHT = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"
NORM = "transformer.encoder.layers.0.input_layernorm.weight"


@pytest.fixture
def checkpoint(models: Models, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(models.checkpoint, tmp_path / "damaged"))


def refuse(tw: Tw, source: Path, code: int, *said: str, options: tuple[object, ...] = ()) -> Result:
    """`tw compile` refuses `source` and leaves nothing in the folder of the output."""
    folder = source.parent / "out"
    folder.mkdir(exist_ok=True)
    arguments = ("compile", source, "-o", folder / "m.twm", "--seq", SEQ, "-q", *options)
    result = tw(*arguments)
    assert_refused(result, code, *said)
    assert names_in(folder) == []
    return result


# config.json


def change_config(**fields: object) -> Callable[[Path], None]:
    def change(checkpoint: Path) -> None:
        path = checkpoint / "config.json"
        values = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return change


def write_config(data: bytes) -> Callable[[Path], None]:
    return lambda checkpoint: void((checkpoint / "config.json").write_bytes(data))


def void(_: object) -> None: ...


CONFIGS: dict[str, tuple[Callable[[Path], None], int, tuple[str, ...]]] = {
    "architecture": (
        change_config(model_type="mamba"),
        4,
        ("models of type 'mamba'", "supported: chatglm, glm, llama, qwen2", "config.json"),
    ),
    "no architecture": (change_config(model_type=None), 3, ("'model_type' is missing",)),
    "text for a number": (change_config(hidden_size="64"), 3, ("'hidden_size'", "config.json")),
    "no layers": (change_config(num_layers=0), 3, ("'num_layers' is 0",)),
    "not JSON": (write_config(b"{"), 3, ("is not JSON", "config.json", "line 1")),
    "not text": (write_config(b"\xff\xfe"), 3, ("is not JSON", "config.json")),
    "a list": (write_config(b"[]"), 3, ("holds no JSON object",)),
    "missing": (lambda c: (c / "config.json").unlink(), 3, ("there is no config.json", "hint")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(tw: Tw, checkpoint: Path, name: str) -> None:
    change, code, said = CONFIGS[name]
    change(checkpoint)
    refuse(tw, checkpoint, code, *said)


# The weights


def change_tensors(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        path = checkpoint / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return apply


def change_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        path = checkpoint / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def put(value: float, key: str, *index: int) -> Callable[[Path], None]:
    def change(tensors: Tensors) -> None:
        tensors[key] = tensors[key].copy()
        tensors[key][index] = value

    return change_tensors(change)


def shorten(tensors: Tensors) -> None:
    tensors[WEIGHT] = tensors[WEIGHT][:-1].copy()


def replace_two(tensors: Tensors) -> None:
    del tensors[WEIGHT], tensors[NORM]
    tensors["bogus.weight"] = np.zeros(3, np.float16)


WEIGHTS: dict[str, tuple[Callable[[Path], None], int, tuple[str, ...]]] = {
    "truncated": (
        change_bytes(lambda data: data[:-1000]),
        3,
        ("truncated", "transformer.output_layer.weight", "model.safetensors", "hint"),
    ),
    "empty": (change_bytes(lambda _: b""), 3, ("truncated", "it has 0 bytes")),
    "header": (
        change_bytes(lambda data: data[:8] + b"garbage!" + data[16:]),
        3,
        ("header is not JSON", "model.safetensors"),
    ),
    "length of the header": (
        change_bytes(lambda data: b"\xff" * 8 + data[8:]),
        3,
        ("not safetensors", "18,446,744,073,709,551,615"),
    ),
    "shape": (
        change_tensors(shorten),
        3,
        (f"1 of another shape: {WEIGHT}: [191, 64] instead of [192, 64]", "model.safetensors"),
    ),
    "missing and extra": (
        change_tensors(replace_two),
        3,
        (f"2 missing: {NORM}, {WEIGHT}", "1 extra: bogus.weight", "model.safetensors"),
    ),
    "integers": (
        change_tensors(lambda t: t.update({WEIGHT: t[WEIGHT].astype(np.int64)})),
        4,
        ("stored as I64", WEIGHT, "F32, F16, BF16"),
    ),
    "NaN": (
        put(np.nan, WEIGHT, 5, 7),
        3,
        (f"{WEIGHT!r} holds nan at index [5, 7]", "model.safetensors", "hint"),
    ),
    "NaN in a vector": (put(np.nan, NORM, 9), 3, (f"{NORM!r} holds nan at index [9]",)),
    "infinity": (put(-np.inf, WEIGHT, 0, 0), 3, (f"{WEIGHT!r} holds -inf at index [0, 0]",)),
    "none": (lambda c: (c / "model.safetensors").unlink(), 3, ("no weights in the folder",)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(tw: Tw, checkpoint: Path, name: str) -> None:
    change, code, said = WEIGHTS[name]
    change(checkpoint)
    refuse(tw, checkpoint, code, *said)


def test_weights_too_large_for_f16(tw: Tw, checkpoint: Path) -> None:
    def enlarge(tensors: Tensors) -> None:
        tensors[NORM] = tensors[NORM].astype(np.float32)
        tensors[NORM][3] = 1e6

    change_tensors(enlarge)(checkpoint)
    refuse(tw, checkpoint, 3, NORM, "1e+06 at index [3]", "too large for f16", "bf16")


def test_a_pickled_checkpoint(tw: Tw, checkpoint: Path) -> None:
    os.rename(checkpoint / "model.safetensors", checkpoint / "pytorch_model.bin")
    result = refuse(tw, checkpoint, 3, "pickled", "pytorch_model.bin", "convert it once")
    assert "save_pretrained(OUT, safe_serialization=True)" in result.err


def test_sources_that_are_no_checkpoint(tw: Tw, checkpoint: Path, tmp_path: Path) -> None:
    refuse(tw, checkpoint / "config.json", 3, "needs a checkpoint directory", "tw estimate")
    refuse(tw, tmp_path / "nowhere", 3, "nowhere", "give the folder of a checkpoint")
    refuse(tw, tmp_path / "nowhere.mlir", 3, "nowhere.mlir", "No such file")


# What does not fit


def test_too_large_for_global_memory(tw: Tw, checkpoint: Path, tmp_path: Path) -> None:
    chip = chip_file(tmp_path, global_bytes=131072)
    result = refuse(tw, checkpoint, 6, "global memory", "hint", options=("--chip", chip))
    needed = tw("estimate", checkpoint, "--seq", SEQ, "--quant", "w8a16", "--json").json[0]
    excess = needed["memory_bytes"] - 131072
    assert f"{excess:,} bytes too many" in result.err
    assert f"it needs {needed['memory_bytes']:,} of 131,072 bytes" in result.err


def test_too_large_for_local_memory(tw: Tw, checkpoint: Path, tmp_path: Path) -> None:
    chip = chip_file(tmp_path, lane_bytes=1024)
    said = ("does not fit local memory", "tpu.", "more than the 1024")
    refuse(tw, checkpoint, 6, *said, options=("--chip", chip))


# IR

HEAD = "func.func @main(%x: tensor<2x64xf32>) -> tensor<2x64xf32> {\n"
SILU = "  %y = top.SiLU %x : tensor<2x64xf32> -> tensor<2x64xf32>\n"
TAIL = "  func.return %y : tensor<2x64xf32>\n}\n"
MODULES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "unknown op": (
        HEAD + SILU.replace("SiLU", "Swish") + TAIL,
        4,
        ("top.Swish is not registered", "m.mlir:2:", "tw ops", "--load FILE.py"),
    ),
    "syntax": (HEAD + SILU.replace("->", "") + TAIL, 3, ("m.mlir:", "Expected '->'")),
    "result": (
        HEAD + SILU.replace("-> tensor<2x", "-> tensor<3x") + TAIL.replace("<2x", "<3x"),
        5,
        ("top.SiLU", "in @main"),
    ),
    "undefined value": (HEAD + TAIL, 3, ("%y", "m.mlir:")),
    "dynamic shape": (
        (HEAD + SILU + TAIL).replace("2x64", "?x64"),
        5,
        ("tensor<?x64xf32>", "not static"),
    ),
    "element type": ((HEAD + SILU + TAIL).replace("f32", "f64"), 5, ("f64", "not supported")),
    "a lower level": (
        HEAD + SILU.replace("top", "tpu") + TAIL,
        5,
        ("tpu.SiLU stands in a model", "tw opt"),
    ),
    "another dialect": (
        HEAD + "  %one = arith.constant 1 : i32\n" + SILU + TAIL,
        5,
        ("arith.constant stands in a model", "in @main"),
    ),
    "no tensor": (
        (HEAD + SILU + TAIL).replace("(%x:", "(%i: i32, %x:"),
        5,
        ("an argument of @main is i32", "m.mlir"),
    ),
    "a value twice": (
        (HEAD + SILU + TAIL)
        .replace("> {", ">, tensor<2x64xf32>) {")
        .replace("-> tensor<2x64xf32>,", "-> (tensor<2x64xf32>,")
        .replace(
            "return %y : tensor<2x64xf32>", "return %y, %y : tensor<2x64xf32>, tensor<2x64xf32>"
        ),
        5,
        ("@main returns one value twice", "compute it anew"),
    ),
    "nothing computed": (HEAD + TAIL.replace("%y", "%x"), 5, ("does not compute", "@main")),
    "a declared function": (
        "func.func @main(tensor<2x64xf32>) -> tensor<2x64xf32>\n",
        5,
        ("@main has 0 blocks", "m.mlir"),
    ),
    "private functions": (
        (HEAD + SILU + TAIL).replace("func.func", "func.func private"),
        5,
        ("no public function", "m.mlir"),
    ),
    "empty": ("", 3, ("m.mlir:1:1",)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(tw: Tw, tmp_path: Path, name: str) -> None:
    text, code, said = MODULES[name]
    path = tmp_path / "m.mlir"
    path.write_text(text)
    refuse(tw, path, code, *said)


def test_a_module_that_is_not_text(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_bytes(b"\xff\xfe")
    refuse(tw, path, 3, "m.mlir", "utf-8")


def test_the_weights_of_a_module(tw: Tw, tmp_path: Path) -> None:
    weight = '  %w = top.Weight "norm" : tensor<64xf32>\n'
    add = "  %y = top.Add %x, %w : tensor<2x64xf32>, tensor<64xf32> -> tensor<2x64xf32>\n"
    path = tmp_path / "m.mlir"
    path.write_text(HEAD + weight + add + TAIL)
    refuse(tw, path, 3, "no such checkpoint", "m.safetensors")
    save_file({"norm": np.ones(63, np.float32)}, tmp_path / "m.safetensors")
    refuse(tw, path, 3, "norm: [63] instead of [64]")
