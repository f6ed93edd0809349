"""Artifacts that must not run, and inputs that an artifact cannot take."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused, names_in

from tilewright.backends.program import Program
from tilewright.compiler.artifact import archive
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.pipeline import CompileOptions


@pytest.fixture
def artifact(models: Models, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copy(models.w8a16, tmp_path / "model.twm"))


def flip(position: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    return change


def other_version(data: bytes) -> bytes:
    return data.replace(b"tilewright artifact 2 ", b"tilewright artifact 9 ")


WEIGHTS_START = archive.data_offset(archive.WEIGHTS, 0) + 9000
FAULTS: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "truncated": (lambda data: data[:-100], ("truncated", "model.twm", "compile the model again")),
    "empty": (lambda _: b"", ("not an artifact", "it is empty")),
    "another file": (lambda _: b"#!/bin/sh\n", ("not an artifact",)),
    "altered weight": (flip(WEIGHTS_START), ("weight '", "is damaged", "SHA-256")),
    "altered end": (flip(-1), ("model.twm",)),
    "altered middle": (lambda data: flip(len(data) // 2)(data), ("damaged", "model.twm")),
    "another version": (other_version, ("format version 9", "this Tilewright reads 2")),
}


@pytest.mark.parametrize("verb", ["run", "compare", "profile", "inspect"])
@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_artifacts(tw: Tw, artifact: Path, fault: str, verb: str) -> None:
    change, said = FAULTS[fault]
    artifact.write_bytes(change(artifact.read_bytes()))
    prompt = ("--prompt-ids", "1") if verb in ("run", "compare") else ()
    assert_refused(tw(verb, artifact, *prompt), 7, *said)


def test_no_artifact(tw: Tw, tmp_path: Path) -> None:
    assert_refused(tw("run", tmp_path / "none.twm"), 7, "none.twm", "No such file")
    assert_refused(tw("run", tmp_path), 7, "cannot be opened", "directory")


def test_addresses_out_of_range(
    tw: Tw, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose digests are right is still checked, down to the addresses."""
    from tilewright.compiler import compile as compiling

    build = compiling.build_program

    def misplaced(*arguments: Any, **options: Any) -> Any:
        built = build(*arguments, **options)
        return replace(built, program=move_last_address(built.program))

    path = tmp_path / "m.twm"
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "build_program", misplaced)
        patch.setattr("tilewright.compiler.artifact.writer.program_problems", lambda *_: [])
        compile_to_artifact(models.checkpoint, path, CompileOptions(), seq=SEQ)
    assert_refused(tw("run", path, "--prompt-ids", "1"), 7, "out of range", "function 'decode'")


def move_last_address(program: Program) -> Program:
    *functions, last = program.functions
    *launches, launch = last.launches
    moved = replace(launch, addresses=(*launch.addresses[:-1], 1 << 40))
    return replace(program, functions=(*functions, replace(last, launches=(*launches, moved))))


# Prompts

PROMPTS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "none": ((), ("the prompt has no tokens",)),
    "empty": (("--prompt-ids", ","), ("the prompt has no tokens",)),
    "no number": (("--prompt-ids", "1,x"), ("'1,x' is not a list of numbers",)),
    "negative": (
        ("--prompt-ids", "-1,2"),
        ("token id -1 is out of range", "position 0", "0 to 127"),
    ),
    "too large": (("--prompt-ids", "1,128"), ("token id 128", "position 1", "128 tokens")),
    "too long": (
        ("--prompt-ids", ",".join(["1"] * SEQ), "--max-new-tokens", 2),
        (f"{SEQ + 1} positions of {SEQ}", "16 prompt tokens and 2 new ones", "--seq"),
    ),
    "no new token": (
        ("--prompt-ids", "1", "--max-new-tokens", 0),
        ("--max-new-tokens is 0", "at least 1"),
    ),
    "function": (("--function", "encode"), ("no function 'encode'", "decode, prefill")),
    "no inputs": (("--function", "decode"), ("needs --inputs", "attention_mask f16[1, 16]")),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(tw: Tw, models: Models, name: str) -> None:
    options, said = PROMPTS[name]
    assert tw("run", models.w8a16, *options).code == 2
    result = tw("run", models.w8a16, *options)
    assert "Traceback" not in result.err
    assert result.out == ""
    for text in said:
        assert text in result.err


def test_other_verbs_refuse_what_is_not_there(tw: Tw, models: Models) -> None:
    for verb in ("compare", "profile"):
        result = tw(verb, models.w8a16, "--function", "encode")
        assert_refused(result, 2, "no function 'encode'", "prefill, decode")
    assert_refused(tw("compare", models.w8a16, "--prompt-ids", "500"), 2, "token id 500")
    kernels = tw("inspect", models.w8a16, "--commands", "conv")
    assert_refused(kernels, 2, "no kernel is called 'conv'", "w8a16_matmul")
    assert_refused(tw("ops", "top.Conv"), 2, "no op 'top.Conv'", "tw ops")
    assert_refused(tw("chips", "v9"), 2, "no chip 'v9'", "bm1684x")
    assert tw("compare", models.w8a16, "--seed", "-1").code == 2


# Arrays

GOOD: dict[str, npt.NDArray[Any]] = {
    "input_ids": np.array([1]),
    "position_ids": np.array([0]),
    "attention_mask": np.zeros((1, SEQ)),
}
ARRAYS: dict[str, tuple[dict[str, npt.NDArray[Any]], int, tuple[str, ...]]] = {
    "missing": (
        {"input_ids": np.array([1])},
        2,
        ("takes the inputs input_ids, position_ids, attention_mask", "it was given input_ids"),
    ),
    "extra": ({**GOOD, "labels": np.zeros(1)}, 2, ("labels",)),
    "shape": ({**GOOD, "input_ids": np.array([1, 2])}, 2, ("has shape [1], not [2]",)),
    "fractions for ids": ({**GOOD, "input_ids": np.array([1.5])}, 2, ("i32, not float64",)),
    "texts": ({**GOOD, "input_ids": np.array(["1"])}, 2, ("holds i32, not <U1",)),
    "beyond i32": (
        {**GOOD, "input_ids": np.array([2**40 + 1])},
        2,
        ("1099511627777", "out of the range of i32", "index [0]"),
    ),
    "beyond f16": (
        {**GOOD, "attention_mask": np.full((1, SEQ), -1e30)},
        2,
        ("-1e+30", "out of the range of f16", "index [0, 0]"),
    ),
    "id": (
        {**GOOD, "input_ids": np.array([500])},
        9,
        ("index 0 is 500", "128 rows", "word_embeddings"),
    ),
    "negative id": ({**GOOD, "input_ids": np.array([-1])}, 9, ("index 0 is -1",)),
    "position": ({**GOOD, "position_ids": np.array([SEQ])}, 9, ("rotary", "16 rows")),
    "objects": ({**GOOD, "input_ids": np.array([None])}, 3, ("cannot be read", "in.npz")),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tw: Tw, models: Models, tmp_path: Path, name: str) -> None:
    arrays, code, said = ARRAYS[name]
    np.savez(tmp_path / "in.npz", allow_pickle=True, **arrays)
    out = tmp_path / "out.npz"
    result = tw(
        "run", models.w8a16, "--function", "decode", "--inputs", tmp_path / "in.npz", "-o", out
    )
    assert result.code == code
    assert "Traceback" not in result.err
    assert result.out == ""
    assert names_in(tmp_path) == ["in.npz"]
    for text in said:
        assert text in result.err


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", None])
def test_files_without_arrays(
    tw: Tw, models: Models, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "in.npz"
    if content is not None:
        path.write_bytes(content)
    result = tw("run", models.w8a16, "--function", "decode", "--inputs", path)
    assert_refused(result, 3, "the inputs cannot be read", "in.npz", "numpy.savez")


def test_one_array_is_no_archive(tw: Tw, models: Models, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros(1))
    result = tw("run", models.w8a16, "--function", "decode", "--inputs", tmp_path / "in.npy")
    assert_refused(result, 3, "no .npz file")
