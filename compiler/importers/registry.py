"""Where models come from: an importer for each kind of source, Tilewright's first, then plugins'.

`tw compile SOURCE` asks the importers in turn; the first that accepts the path loads it. A package
outside adds one by deriving `Importer` and naming it in its plugin:

    PLUGIN = Plugin(name="acme", importers={"acme-layers": load_importer})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from tilewright.dialects import plugins
from tilewright.dialects.errors import ModelReadError, TilewrightError

if TYPE_CHECKING:
    from tilewright.compiler.language_model import ImportedModel


class Importer(ABC):
    """Reads models of one kind."""

    reads: ClassVar[str]
    """What it reads, for messages: "an ONNX file"."""

    @abstractmethod
    def accepts(self, path: Path) -> bool:
        """Whether the file or folder `path` is of this kind, by its name or by a look inside."""

    @abstractmethod
    def load(self, path: Path, seq: int) -> ImportedModel:
        """The model; `seq` positions if it is a language model.

        Raises `ModelReadError` and `UnsupportedError` that name what is missing or unknown.
        """


class HuggingFace(Importer):
    """Checkpoints in the layout of the Hugging Face hub."""

    reads = "a folder with config.json and *.safetensors"

    def accepts(self, path: Path) -> bool:
        return (path / "config.json").is_file()

    def load(self, path: Path, seq: int) -> ImportedModel:
        from tilewright.compiler.importers.huggingface import load_model

        return load_model(path, seq=seq)


class Mlir(Importer):
    """`top` IR as text."""

    reads = "top IR in FILE.mlir with its weights in FILE.safetensors"

    def accepts(self, path: Path) -> bool:
        return path.suffix == ".mlir"

    def load(self, path: Path, seq: int) -> ImportedModel:
        from tilewright.compiler.importers.mlir import load_mlir

        return load_mlir(path)


IMPORTERS: Mapping[str, Callable[[], Importer]] = MappingProxyType(
    {"huggingface": HuggingFace, "mlir": Mlir}
)
"""Tilewright's own importers by name, in the order in which they are asked."""


def importer(name: str) -> Importer:
    """The importer of that name; `KeyError` where there is none.

    Raises `PluginError` where a plugin's cannot be loaded.
    """
    if name in IMPORTERS:
        return IMPORTERS[name]()
    return plugins.loaded(plugins.given("importers")[name], "importers", name, Importer)


def importer_names() -> tuple[str, ...]:
    """All importers in the order in which they are asked."""
    return (*IMPORTERS, *plugins.given("importers"))


def open_source(path: Path, seq: int) -> ImportedModel:
    """The model that the first importer which accepts `path` reads.

    Raises `ModelReadError` where none does, `PluginError` where a plugin's importer cannot be
    loaded or breaks, and what the importer raises.
    """
    for name in IMPORTERS:
        own = importer(name)
        if own.accepts(path):
            return own.load(path, seq)
    for name, giver in plugins.given("importers").items():
        try:
            theirs = importer(name)
            if theirs.accepts(path):
                return _require_model(theirs.load(path, seq))
        except TilewrightError:
            raise
        except Exception as error:
            raise giver.failure(f"its importer {name!r} broke at {path}", error) from error
    raise _nobody_reads(path)


def _require_model(model: object) -> ImportedModel:
    from tilewright.compiler.language_model import ImportedModel

    if not isinstance(model, ImportedModel):
        raise TypeError(f"it gave {type(model).__name__}, not an ImportedModel")
    return model


def _nobody_reads(path: Path) -> ModelReadError:
    why = "no importer accepts it"
    if not path.exists():
        why = "there is no such file or folder"
    elif path.is_dir():
        why = f"there is no config.json in it, and {why}"
    elif path.suffix == ".json":
        why = "compiling needs a checkpoint directory: there are no weights in a configuration"
    missing = plugins.left_out()
    return ModelReadError(
        "the model cannot be opened",
        where=str(path),
        why=why if missing is None else f"{why}; {missing}",
        hint="\n".join(["give the folder of a checkpoint, or what else is read:", *_what_is_read()])
        + "\n(tw estimate takes a config.json alone)",
    )


def _what_is_read() -> Iterator[str]:
    for name in importer_names():
        yield f"{name}: {importer(name).reads}"
