"""Models as the importers hand them over: the graph, and which tensors it needs from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.importers.packed.checkpoint import check_dense, open_packed
from tilewright.compiler.importers.packed.config import Packing
from tilewright.compiler.models.causal_lm import ModelSummary
from tilewright.compiler.weights.container import empty_container, open_checkpoint
from tilewright.compiler.weights.source import OpenCheckpoint
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.graph import Weight, shape_of
from tilewright.dialects.scopes import functions_of, walk_calls, where_of

Tables = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ImportedModel:
    """A model: its `top` module, and the checkpoint that its weights refer to."""

    name: str
    module: ModuleOp
    weights: Path
    """A checkpoint's folder, or a safetensors file."""
    shapes: Mapping[str, tuple[int, ...]]
    """The tensors that the checkpoint must hold."""
    ignorable: tuple[str, ...]
    """Patterns of further tensors that it may hold and that are not read."""
    tables: Callable[[], Tables]
    """Computes the weights that are not in the checkpoint, by key."""

    packing: Packing | None = field(default=None, kw_only=True)
    """How the checkpoint's weights are quantized already, if they are."""
    packed: Mapping[str, str] = field(default_factory=dict[str, str], kw_only=True)
    """The schemes of the weights that are, by key."""
    rows: Mapping[str, npt.NDArray[np.int32]] = field(
        default_factory=dict[str, npt.NDArray[np.int32]], kw_only=True
    )
    """Of packed weights whose output channels are wanted in another order, that order."""

    def kept_as_packed(self, requantize: bool = False) -> Mapping[str, str]:
        """The schemes of the weights that are compiled as the checkpoint holds them: of all that it
        holds quantized, or of none to `requantize`. Raises `OptionError` where there is nothing to
        quantize anew."""
        if not requantize:
            return self.packed
        if not self.packed:
            raise OptionError(
                "--requantize is for checkpoints that are quantized already",
                where=str(self.weights),
                why="its weights are dense",
                hint="--quant says what they are stored in",
            )
        return {}

    def open_weights(self) -> OpenCheckpoint:
        """The checkpoint, checked against the model.

        Raises `ModelReadError` if it cannot be read, or lacks tensors, or has others or other
        shapes.
        """
        if not self.shapes and not self.weights.exists():
            return empty_container()
        container = open_checkpoint(self.weights)
        try:
            if self.packing is not None:
                return open_packed(
                    container,
                    self.packing,
                    self.shapes,
                    ignorable=self.ignorable,
                    rows=self.rows,
                )
            check_dense(container)
            container.check(self.shapes, ignorable=self.ignorable)
        except BaseException:
            container.close()
            raise
        return container


@dataclass(frozen=True)
class LanguageModel(ImportedModel):
    """A language model with the functions `prefill` and `decode`."""

    summary: ModelSummary


def weight_shapes(module: ModuleOp) -> dict[str, tuple[int, ...]]:
    """The shape of each weight that the public functions read, by resolved key.

    Raises `IRError` if a key has two shapes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for function in functions_of(module).values():
        if function.sym_visibility is not None:
            continue
        for op, scope in walk_calls(module, function):
            if isinstance(op, Weight):
                key, shape = scope + op.key.data, shape_of(op.result)
                if shapes.setdefault(key, shape) != shape:
                    raise IRError(
                        f"weight {key!r} is read as {list(shapes[key])} and as {list(shape)}",
                        where=where_of(op),
                    )
    return shapes
