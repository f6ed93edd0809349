"""Artifacts are read back as they were written, by this reader and by others, and not otherwise."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load, save_file

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD, BdcOpcode, GdmaOpcode
from tilewright.backends.program import (
    Buffer,
    Function,
    Kernel,
    KernelArgument,
    Launch,
    Port,
    Program,
)
from tilewright.backends.reference.numerics import quantize
from tilewright.compiler.artifact import ArtifactWriter, archive, open_artifact
from tilewright.compiler.artifact.validate import program_problems
from tilewright.compiler.weights.container import open_checkpoint
from tilewright.compiler.weights.layout import WeightRequest
from tilewright.dialects.element_types import F16, F32, I8, element_by_name
from tilewright.dialects.errors import ArtifactError, InternalError, StorageError
from tilewright.dialects.quantization import parse_scheme

ROWS, COLS = 24, 33
MODULE = 'module {\n  func.func @main() attributes {note = "Grüße"}\n}\n'


def requests(table: npt.NDArray[Any]) -> list[WeightRequest]:
    return [
        WeightRequest("w.codes", "w", "codes", I8, (ROWS, COLS)),
        WeightRequest("w.scale", "w", "scale", F16, (ROWS, 1)),
        WeightRequest("norm", "norm", "dense", F16, (COLS,)),
        WeightRequest("table", None, "dense", F32, table.shape, array=table),
    ]


def example_program(chip: Chip) -> Program:
    base = chip.global_base
    arguments = (
        KernelArgument(ROWS, COLS, I8, COLS, "read"),
        KernelArgument(ROWS, COLS, I8, COLS, "write"),
    )
    gdma = np.zeros(2, GDMA_RECORD)
    gdma["opcode"] = [GdmaOpcode.LOAD, GdmaOpcode.STORE]
    gdma["element"], gdma["argument"], gdma["id"] = I8.code, [0, 1], [1, 2]
    gdma["wait"] = [0, 1]
    gdma["rows"], gdma["cols"], gdma["pitch"], gdma["local_stride"] = ROWS, COLS, COLS, 64
    bdc = np.zeros(1, BDC_RECORD)
    bdc["opcode"], bdc["id"], bdc["wait"] = BdcOpcode.UNARY, 1, 1
    bdc["rows"], bdc["cols"] = ROWS, COLS
    kernel = Kernel("copy_24x33", "tpu.Neg", arguments, gdma, bdc, 128)
    buffers = (
        Buffer("w.codes", base, ROWS * COLS, "weight"),
        Buffer("w.scale", base + 4096, ROWS * 2, "weight"),
        Buffer("norm", base + 8192, COLS * 2, "weight"),
        Buffer("table", base + 12288, 48, "weight"),
        Buffer("out", base + 16384, ROWS * COLS, "output"),
        Buffer("frame", base + 20480, 8192, "activation"),
        Buffer("inner frame", base + 24576, 4096, "activation"),
    )
    launches = (
        Launch(0, (base, base + 20480), "layers.0.mlp"),
        Launch(0, (base + 24576, base + 16384), "layers.1.mlp"),
    )
    output = Port("out", (ROWS, COLS), I8, base + 16384)
    main = Function("main", (), (output,), launches)
    return Program(chip.name, (kernel,), (main, Function("empty", (), (), ())), buffers)


@dataclass(frozen=True)
class Example:
    path: Path
    program: Program
    chip: Chip
    source: dict[str, npt.NDArray[Any]]
    table: npt.NDArray[Any]


@pytest.fixture
def example(tmp_path: Path) -> Example:
    chip = load_chip("bm1684x")
    rng = np.random.default_rng(5)
    source = {
        "w": rng.standard_normal((ROWS, COLS)).astype(np.float16),
        "norm": rng.standard_normal(COLS).astype(np.float32),
    }
    save_file(source, tmp_path / "model.safetensors")
    table = rng.standard_normal((3, 4)).astype(np.float32)
    path = write_example(tmp_path / "model.twm", chip, table)
    return Example(path, example_program(chip), chip, source, table)


def write_example(
    path: Path,
    chip: Chip,
    table: npt.NDArray[Any],
    *,
    program: Program | None = None,
    interrupt: Callable[[], None] | None = None,
) -> Path:
    with open_checkpoint(path.parent) as checkpoint, ArtifactWriter(path) as writer:
        writer.write_weights(checkpoint, requests(table))
        if interrupt is not None:
            interrupt()
        writer.finish(
            program or example_program(chip),
            MODULE,
            chip,
            model={"name": "example", "layers": 2},
            options={"quant": "w8a16"},
            pipeline="convert-top-to-tpu,tile-for-local-memory",
            inputs=checkpoint.fingerprints(),
        )
    return path


def test_everything_is_read_back(example: Example) -> None:
    artifact = open_artifact(example.path)
    codes, scale, _ = quantize(example.source["w"], parse_scheme("w8a16"), F16)
    np.testing.assert_array_equal(artifact.weight("w.codes"), codes)
    np.testing.assert_array_equal(artifact.weight("w.scale"), scale)
    np.testing.assert_array_equal(artifact.weight("norm"), example.source["norm"].astype("f2"))
    np.testing.assert_array_equal(artifact.weight("table"), example.table)
    assert set(artifact.weights()) == {"w.codes", "w.scale", "norm", "table"}
    assert not artifact.weight("norm").flags.writeable
    assert artifact.module_text == MODULE
    assert artifact.chip == example.chip
    assert artifact.manifest.model == {"name": "example", "layers": 2}
    assert artifact.manifest.pipeline.startswith("convert-top")
    assert list(artifact.manifest.inputs) == ["model.safetensors"]
    assert_programs_equal(artifact.program, example.program)


def assert_programs_equal(program: Program, expected: Program) -> None:
    assert program.functions == expected.functions
    assert program.buffers == expected.buffers
    for kernel, other in zip(program.kernels, expected.kernels, strict=True):
        assert kernel.gdma.tobytes() == other.gdma.tobytes()
        assert kernel.bdc.tobytes() == other.bdc.tobytes()
        assert replace(kernel, gdma=other.gdma, bdc=other.bdc) == other


def test_the_bytes_are_the_same_every_time(example: Example) -> None:
    first = example.path.read_bytes()
    write_example(example.path, example.chip, example.table)
    assert example.path.read_bytes() == first


def test_other_tools_read_it(example: Example) -> None:
    with zipfile.ZipFile(example.path) as file:
        assert file.testzip() is None
        assert file.namelist() == sorted(archive.MEMBERS)
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        tensors = load(file.read("weights.safetensors"))
        assert file.read("module.mlir").decode() == MODULE
    np.testing.assert_array_equal(tensors["w.codes"], open_artifact(example.path).weight("w.codes"))
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tqq", example.path], check=True)


def test_members_are_aligned(example: Example) -> None:
    members, _ = archive.parse(memoryview(example.path.read_bytes()), "")
    assert [member.name for member in members] == list(archive.MEMBERS)
    assert all(member.offset % 4096 == 0 for member in members)
    record = open_artifact(example.path).manifest.weights
    assert all(t.offset % element_by_name(t.element).size_bytes == 0 for t in record.tensors)
    assert record.header_bytes == 4096


def test_any_flipped_byte_is_found(example: Example, tmp_path: Path) -> None:
    whole = example.path.read_bytes()
    changed = tmp_path / "changed.twm"
    members, _ = archive.parse(memoryview(whole), "")
    edges = {m.offset + d for m in members for d in (-1, 0, 1)} | {m.end - 1 for m in members}
    directory = set(range(members[-1].end, len(whole)))
    positions = edges | directory | set(range(0, len(whole), 61)) | set(range(60))
    for position in sorted(positions):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        changed.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            open_artifact(changed)
        assert caught.value.where
        assert caught.value.hint


def test_truncation_is_found_at_every_point(example: Example, tmp_path: Path) -> None:
    whole = example.path.read_bytes()
    cut = tmp_path / "cut.twm"
    for length in [*range(0, len(whole), 97), *range(len(whole) - 200, len(whole))]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"truncated|not an artifact|damaged"):
            open_artifact(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(ArtifactError):
        open_artifact(cut)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an artifact"),
        (b"version https://git-lfs", "not an artifact"),
        (b"PK\x05\x06" + bytes(18), "not an artifact"),
        (b"PK\x03\x04" + bytes(5000), "truncated"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.twm"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be opened"):
        open_artifact(tmp_path / "none.twm")
    with pytest.raises(ArtifactError, match="cannot be opened"):
        open_artifact(tmp_path)


def test_a_zip_of_someone_else(tmp_path: Path) -> None:
    path = tmp_path / "other.twm"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", "{}")
    with pytest.raises(ArtifactError):
        open_artifact(path)


def test_another_version_is_named(example: Example) -> None:
    data = example.path.read_bytes()
    example.path.write_bytes(data.replace(b"tilewright artifact 2 ", b"tilewright artifact 7 "))
    with pytest.raises(ArtifactError, match="format version 7; this Tilewright reads 2") as caught:
        open_artifact(example.path)
    assert "compile the model again" in str(caught.value)


def test_weights_may_go_unverified(example: Example) -> None:
    data = bytearray(example.path.read_bytes())
    codes = next(
        t for t in open_artifact(example.path).manifest.weights.tensors if t.name == "w.codes"
    )
    data[archive.data_offset(archive.WEIGHTS, 0) + codes.offset + 100] ^= 1
    example.path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"weight 'w\.codes' is damaged"):
        open_artifact(example.path)
    open_artifact(example.path, verify_weights=False)


# Programs that must not run.


def change_kernel(**changes: Any) -> Callable[[Program], Program]:
    return lambda p: replace(p, kernels=(replace(p.kernels[0], **changes),))


def change_record(engine: str, field: str, value: int) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        records = getattr(program.kernels[0], engine).copy()
        records[field][0] = value
        return change_kernel(**{engine: records})(program)

    return change


def change_gather(**fields: int) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        for field, value in {"opcode": GdmaOpcode.GATHER, **fields}.items():
            program = change_record("gdma", field, value)(program)
        return program

    return change


def change_buffer(index: int, **changes: Any) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        buffers = list(program.buffers)
        buffers[index] = replace(buffers[index], **changes)
        return replace(program, buffers=tuple(buffers))

    return change


def change_launch(**changes: Any) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        main = program.functions[0]
        launches = (replace(main.launches[0], **changes), *main.launches[1:])
        return replace(program, functions=(replace(main, launches=launches),))

    return change


def change_port(address: int) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        main = program.functions[0]
        return replace(
            program,
            functions=(replace(main, outputs=(replace(main.outputs[0], address=address),)),),
        )

    return change


BASE = load_chip("bm1684x").global_base
END = BASE + load_chip("bm1684x").global_bytes
FAULTS: list[tuple[str, Callable[[Program], Program], str]] = [
    ("chip", lambda p: replace(p, chip="bm1690"), "is for bm1690"),
    ("local memory", change_kernel(local_bytes=1 << 20), "local bytes"),
    ("opcode", change_record("gdma", "opcode", 9), "GDMA command 1 has an unknown opcode"),
    ("opcode of compute", change_record("bdc", "opcode", 0), "BDC command 1 has an unknown opcode"),
    ("id", change_record("bdc", "id", 2), "out of sequence"),
    ("wait", change_record("gdma", "wait", 2), "does not exist"),
    ("element", change_record("gdma", "element", 5), "unknown element"),
    ("element of compute", change_record("bdc", "a_element", 200), "unknown element"),
    ("argument", change_record("gdma", "argument", 2), "argument that does not exist"),
    ("offset", change_record("gdma", "global_offset", 1), "beyond its argument"),
    ("huge offset", change_record("gdma", "global_offset", 2**64 - 1), "beyond its argument"),
    ("pitch", change_record("gdma", "pitch", 2**62), "beyond its argument"),
    ("rows", change_record("gdma", "rows", ROWS + 1), "beyond its argument"),
    ("store to what is read", change_record("gdma", "opcode", GdmaOpcode.STORE), "only read"),
    ("gather", change_gather(table_rows=ROWS + 1), "beyond its argument"),
    ("indices", change_gather(table_rows=1, index_argument=2), "argument that does not exist"),
    ("end of indices", change_gather(table_rows=1, index_offset=ROWS * COLS - 90), "reads indices"),
    ("kernel index", change_launch(kernel=1), "kernel 1"),
    ("address count", change_launch(addresses=(BASE,)), "1 addresses for 2"),
    ("address", change_launch(addresses=(BASE + 1, BASE + 20480)), "not inside one buffer"),
    ("unmapped", change_launch(addresses=(BASE - 4096, BASE + 20480)), "not inside one buffer"),
    ("across", change_launch(addresses=(BASE, BASE + 28000)), "not inside one buffer"),
    ("write to weight", change_launch(addresses=(BASE, BASE)), "writes to the weight 'w.codes'"),
    ("port", change_port(BASE + 16385), "port 'out'"),
    ("below memory", change_buffer(0, address=BASE - 4096), "not inside global memory"),
    ("above memory", change_buffer(4, address=END - 10), "not inside global memory"),
    ("overlap", change_buffer(1, address=BASE + 100), "overlaps buffer 'w.codes'"),
    ("overlap of kinds", change_buffer(4, address=BASE + 24000), "overlaps"),
    ("two of a name", change_buffer(1, name="w.codes"), "two buffers"),
    ("no such weight", change_buffer(2, name="bias"), "no weight of this name"),
    ("size of a weight", change_buffer(2, size_bytes=10), "the weight has 66"),
]


@pytest.mark.parametrize(("change", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_programs_out_of_range(
    example: Example,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Program], Program],
    message: str,
) -> None:
    program = change(example.program)
    path = example.path
    with pytest.raises(InternalError):
        write_example(path, example.chip, example.table, program=program)
    with monkeypatch.context() as patch:
        patch.setattr("tilewright.compiler.artifact.writer.program_problems", lambda *_: [])
        write_example(path, example.chip, example.table, program=program)
    with pytest.raises(ArtifactError, match=r"out of range|damaged") as caught:
        open_artifact(path)
    found = f"{caught.value.where}: {caught.value.why}"
    sizes = {"w.codes": ROWS * COLS, "w.scale": ROWS * 2, "norm": COLS * 2, "table": 48}
    problems = [f"{w}: {why}" for w, why in program_problems(program, example.chip, sizes)]
    assert re.search(message, "\n".join([found, *problems]))


# Nothing half-written.


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.name != "model.safetensors")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_what_was_there(
    example: Example, error: type[BaseException]
) -> None:
    def interrupt() -> None:
        raise error

    before = example.path.read_bytes()
    with pytest.raises(error):
        write_example(example.path, example.chip, example.table, interrupt=interrupt)
    assert example.path.read_bytes() == before
    assert leftovers(example.path) == ["model.twm"]


def test_an_unfinished_artifact_does_not_appear(example: Example) -> None:
    path = example.path.with_name("new.twm")
    with pytest.raises(InternalError, match="unfinished"), ArtifactWriter(path):
        pass
    assert leftovers(path) == ["model.twm"]


@pytest.mark.parametrize("limit", [0, 4096, 5000, 8192 + 500, 20000])
def test_no_space(example: Example, limit: int) -> None:
    """The system refuses writes beyond the limit, as a full disk does."""
    path = example.path.with_name("new.twm")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageError, match="no space left"):
            write_example(path, example.chip, example.table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(path) == ["model.twm"]


def test_a_program_without_weights(example: Example) -> None:
    path = example.path.with_name("new.twm")
    program = Program(example.chip.name, (), (), ())
    with ArtifactWriter(path) as writer:
        writer.finish(program, "module {}\n", example.chip)
    assert open_artifact(path).program == program
