"""Reproducers: whole folders, which show the failure again."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.workbench.failing_passes import registered
from tests.compiler.workbench.models import mixture
from tests.compiler.workbench.mutations import KERNELS, MUTATIONS, mutated

from tilewright.compiler.workbench import reproducer as reproducers
from tilewright.compiler.workbench.equivalence import EquivalenceCheck
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.compiler.workbench.pipelines import passes_from_text, pipeline_text
from tilewright.compiler.workbench.replay import replay
from tilewright.compiler.workbench.reproducer import Reproducer, ReproducerWriter
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.errors import ModelReadError, StorageError, TilewrightError

FILES = ["README.md", "before.mlir", "input.mlir", "inputs.npz", "reproducer.json"]
KINDS = {"crash": 70, "refuse": 4, "break": 5, "miscompile": 13}


@pytest.fixture(autouse=True)
def _passes() -> Generator[None]:
    with registered():
        yield


def written(folder: Path, kind: str, *, checked: bool = True) -> Path:
    """The reproducer of a pipeline whose second pass fails."""
    passes = passes_from_text(f"stepwise{{kind=none}},stepwise{{kind={kind}}},{KERNELS}")
    writer = ReproducerWriter(folder)
    instruments = [EquivalenceCheck(), writer] if checked else [writer]
    with pytest.raises((TilewrightError, KeyError)):
        run_pipeline(mixture(), passes, instruments)
    assert writer.written is not None
    assert str(writer.written) in str(writer.kept())
    return writer.written


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_leaves_a_folder_that_replays_it(tmp_path: Path, kind: str) -> None:
    folder = written(tmp_path, kind, checked=kind == "miscompile")
    names = sorted(path.name for path in folder.iterdir())
    finished = kind in ("break", "miscompile")
    assert names == sorted([*FILES, *(["after.mlir"] if finished else [])])
    assert "tw replay ." in (folder / "README.md").read_text()
    result = replay(folder)
    assert result.reproduced
    assert result.notes == ()
    assert result.expected.exit_code == KINDS[kind]
    assert result.expected.pattern == "Touch"
    assert result.expected.op.startswith("top.Sub")


def test_what_it_says(tmp_path: Path) -> None:
    folder = written(tmp_path, "miscompile")
    assert folder.name == "stepwise-miscompilation"
    document = json.loads((folder / "reproducer.json").read_text())
    assert document["failing_pass"] == 'stepwise{kind="miscompile"}'
    assert document["pipeline"].startswith('stepwise{kind="none"},stepwise')
    assert document["pipeline_from_failing_pass"].startswith('stepwise{kind="miscompile"},convert')
    assert (document["seed"], document["cases"], document["chip"]) == (0, ["random"], "bm1684x")
    assert set(document["versions"]) == {"tilewright", "xdsl", "numpy", "python"}
    read = Reproducer.read(folder)
    assert read.input.is_structurally_equivalent(mixture())
    assert pipeline_text(read.passes[2:]) == pipeline_text(passes_from_text(KERNELS))
    assert read.failure == replay(folder).expected
    with np.load(folder / "inputs.npz") as arrays:
        expected = GeneratedInputs(mixture()).arrays()
        assert {f"random.{name}" for name in expected} == set(arrays.files)
        np.testing.assert_array_equal(arrays["random.main.0"], expected["main.0"])
    after = parse_module((folder / "after.mlir").read_text(), "after")
    before = parse_module((folder / "before.mlir").read_text(), "before")
    assert not after.is_structurally_equivalent(before)


def test_a_failure_that_is_gone(tmp_path: Path) -> None:
    with mutated(next(m for m in MUTATIONS if m.pass_name == "emit-commands")):
        writer = ReproducerWriter(tmp_path)
        with pytest.raises(TilewrightError) as caught:
            run_pipeline(mixture(), passes_from_text(KERNELS), [EquivalenceCheck(), writer])
        assert "EncodeKernel (step" in str(caught.value.where)
        assert writer.written is not None
        assert replay(writer.written).reproduced
    result = replay(writer.written)
    assert not result.reproduced
    assert result.found is None


def test_another_failure_is_not_the_one(tmp_path: Path) -> None:
    folder = written(tmp_path, "crash", checked=False)
    text = (folder / "reproducer.json").read_text()
    (folder / "reproducer.json").write_text(text.replace("crash", "refuse"))
    result = replay(folder)
    assert not result.reproduced
    assert result.found is not None
    assert result.found.kind == "refusal"


def test_other_versions_are_noted(tmp_path: Path) -> None:
    folder = written(tmp_path, "miscompile")
    document = json.loads((folder / "reproducer.json").read_text())
    document["versions"]["numpy"] = "1.0"
    document["plugins"] = ["acme-gone"]
    (folder / "reproducer.json").write_text(json.dumps(document))
    np.savez(folder / "inputs.npz", allow_pickle=False, **{"random.main.0": np.zeros(3)})
    notes = replay(folder).notes
    assert [note.split(" ")[0] for note in notes] == ["numpy", "plugin", "this"]
    assert "it was 1.0" in notes[0]


def test_names_are_counted(tmp_path: Path) -> None:
    names = [written(tmp_path, "crash", checked=False).name for _ in range(3)]
    assert names == [f"stepwise-exception{suffix}" for suffix in ("", "-2", "-3")]


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproducer = Reproducer.read(written(tmp_path / "good", "crash", checked=False))

    def full(*arguments: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reproducers.np, "savez_compressed", full)
    with pytest.raises(StorageError, match="no space left"):
        reproducer.write(tmp_path / "bad")
    assert list((tmp_path / "bad").iterdir()) == []


def test_none_is_written_where_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = ReproducerWriter(None)
    with pytest.raises(KeyError):
        run_pipeline(mixture(), passes_from_text("stepwise"), [writer])
    assert writer.kept() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "reproducer.json").unlink(),
        lambda folder: (folder / "reproducer.json").write_text("{"),
        lambda folder: (folder / "reproducer.json").write_text("[]"),
        lambda folder: (folder / "reproducer.json").write_text('{"format": 1}'),
        lambda folder: (folder / "reproducer.json").write_text('{"format": 99}'),
        lambda folder: (folder / "before.mlir").unlink(),
        lambda folder: (folder / "inputs.npz").write_bytes(b"no archive"),
    ],
)
def test_damaged_folders(tmp_path: Path, damage: object) -> None:
    folder = written(tmp_path, "crash", checked=False)
    assert callable(damage)
    damage(folder)
    with pytest.raises(ModelReadError):
        replay(folder)


def test_failures_as_json() -> None:
    failure = Failure("illegal IR", "p", 2, "d", "m", 5, "Pattern", "top.Sub", 3, 9)
    assert Failure.from_json(failure.to_json()) == failure
    for key in ("kind", "pass_number", "exit_code"):
        with pytest.raises(ModelReadError):
            Failure.from_json({**failure.to_json(), key: None})


def test_when_failures_are_alike() -> None:
    failure = Failure("illegal IR", "p", 2, "d", "m", 5, "Pattern")
    assert failure.is_like(replace(failure, pass_number=1, message="n", op="x"))
    assert failure.is_like(replace(failure, pattern=""))
    assert not failure.is_like(None)
    for change in ({"kind": "refusal"}, {"pass_name": "q"}, {"detail": "e"}, {"pattern": "Other"}):
        assert not failure.is_like(replace(failure, **change))


def test_a_written_module_reads_back_with_its_locations(tmp_path: Path) -> None:
    folder = written(tmp_path, "crash", checked=False)
    read = Reproducer.read(folder)
    assert print_module(read.input) == (folder / "input.mlir").read_text()
