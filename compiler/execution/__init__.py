"""What executes a compiled model: the simulated machine, the reference, or a plugin's backend.

A backend opens a model and gives an `Execution`, which runs its functions by the names of their
inputs and outputs and keeps its states between runs. `tw run --backend NAME` picks one. A package
outside adds one by deriving `Backend` and naming it in its plugin:

    PLUGIN = Plugin(name="acme", backends={"acme-emulator": load_backend})

Cycles are no business of a backend: they are the time model's, of the program (`tw profile`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt
    from xdsl.dialects.builtin import ModuleOp

    from tilewright.backends.chip import Chip
    from tilewright.backends.program import Function, Program
    from tilewright.compiler.artifact import Artifact

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CompiledModel:
    """What there is to execute: the same model as a program of commands and as a `tpu` module."""

    program: Program
    chip: Chip
    module: Callable[[], ModuleOp]
    """Gives a module of its own at each call."""
    weight: Callable[[str], Array]
    """A stored weight by its name in `program.buffers`, read-only."""

    @staticmethod
    def of_artifact(artifact: Artifact) -> CompiledModel:
        """The model in an artifact."""
        from tilewright.dialects.context import parse_module

        name = f"{artifact.path}:module.mlir"
        return CompiledModel(
            artifact.program,
            artifact.chip,
            lambda: parse_module(artifact.module_text, name),
            artifact.weight,
        )


class Execution(Protocol):
    """A model that is ready to run. States (the KV cache) live as long as it."""

    def function(self, name: str) -> Function:
        """The entry function `name`; raises `OptionError` where there is none."""
        ...

    def run(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run an entry function on inputs by name; gives its outputs by name, in storage types.

        Raises `OptionError` where inputs are missing, unknown, of the wrong shape or out of range.
        """
        ...


class Backend(ABC):
    """Executes compiled models."""

    summary: ClassVar[str]
    """What it is, in a line."""

    @abstractmethod
    def open(self, model: CompiledModel) -> Execution:
        """Make `model` ready to run."""
