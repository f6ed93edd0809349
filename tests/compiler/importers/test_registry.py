"""Importers: the first that accepts a source reads it; an unknown source names them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tilewright.compiler.importers import registry
from tilewright.compiler.importers.registry import (
    IMPORTERS,
    Importer,
    importer,
    importer_names,
    open_source,
)
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO
from tilewright.compiler.language_model import ImportedModel
from tilewright.dialects import plugins
from tilewright.dialects.errors import ModelReadError, PluginError
from tilewright.dialects.plugins import Installed, Plugin

MODULE = """
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = top.Relu %x : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
"""


class Renamed(Importer):
    """Reads what `mlir` does, in files of another name."""

    reads = "a FILE.renamed of IR"

    def accepts(self, path: Path) -> bool:
        return path.suffix in (".renamed", ".mlir")

    def load(self, path: Path, seq: int) -> ImportedModel:
        if not path.read_text():
            raise ZeroDivisionError("nothing in it")
        text = path.read_text()
        path.with_suffix(".mlir").write_text(text)
        return importer("mlir").load(path.with_suffix(".mlir"), seq)


@pytest.fixture
def with_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin with one importer."""
    plugin = Plugin("other", importers={"renamed": Renamed})
    installed = Installed("other", "other:PLUGIN", "other-package", "1", plugin)
    found: Mapping[str, Installed] = {"renamed": installed}
    monkeypatch.setattr(plugins, "given", lambda kind: found if kind == "importers" else {})


def test_our_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CHATGLM_DEMO))
    assert importer("huggingface").accepts(tmp_path)
    assert open_source(tmp_path, 8).name == tmp_path.name
    (tmp_path / "m.mlir").write_text(MODULE)
    assert not importer("huggingface").accepts(tmp_path / "m.mlir")
    assert open_source(tmp_path / "m.mlir", 8).name == "m"
    assert set(IMPORTERS) <= set(importer_names())


@pytest.mark.usefixtures("with_plugin")
def test_a_plugins_importer_comes_after_ours(tmp_path: Path) -> None:
    assert importer_names() == ("huggingface", "mlir", "renamed")
    (tmp_path / "m.renamed").write_text(MODULE)
    assert open_source(tmp_path / "m.renamed", 8).name == "m"
    (tmp_path / "empty.mlir").write_text("")
    with pytest.raises(ModelReadError):
        open_source(tmp_path / "empty.mlir", 8)


@pytest.mark.usefixtures("with_plugin")
def test_a_plugins_importer_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.renamed").write_text("")
    with pytest.raises(PluginError, match=r"plugin other of other-package 1: .*broke") as caught:
        open_source(tmp_path / "m.renamed", 8)
    assert caught.value.why == "ZeroDivisionError: nothing in it"
    monkeypatch.setattr(Renamed, "load", lambda self, path, seq: 3)
    with pytest.raises(PluginError) as caught:
        open_source(tmp_path / "m.renamed", 8)
    assert caught.value.why == "TypeError: it gave int, not an ImportedModel"


@pytest.mark.usefixtures("with_plugin")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere", "there is no such file or folder"),
        ("folder", "there is no config.json in it"),
        ("config.json", "compiling needs a checkpoint directory"),
        ("model.onnx", "no importer accepts it"),
    ],
)
def test_an_unknown_source_lists_what_there_is(tmp_path: Path, name: str, why: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif name != "nowhere":
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelReadError) as caught:
        registry.open_source(tmp_path / name, 8)
    assert why in (caught.value.why or "")
    for each in importer_names():
        assert f"{each}: {importer(each).reads}" in (caught.value.hint or "")
