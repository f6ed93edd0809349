"""Models as text: `top` IR in a `.mlir` file, weights in a safetensors file of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp, TensorType

from tilewright.compiler.language_model import ImportedModel, Tables, weight_shapes
from tilewright.compiler.output import write_atomically
from tilewright.compiler.weights.saving import save_arrays
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import IRError, ModelReadError
from tilewright.dialects.levels import level_of
from tilewright.dialects.scopes import functions_of, where_of

Array = npt.NDArray[Any]

_LEVELS = ("builtin", "func", "top")


def load_mlir(path: Path | str) -> ImportedModel:
    """The `top` module in the file `path`; weights by resolved key in `<same stem>.safetensors`.

    Raises `ModelReadError` if the file cannot be read or parsed, `IRError` if the IR is not legal
    or not `top`.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelReadError("cannot be read", where=str(path), why=str(error)) from error
    module = parse_module(text, str(path))
    verify_module(module)
    for op in module.walk():
        if level_of(op) not in _LEVELS:
            raise IRError(
                f"{op.name} stands in a model",
                where=where_of(op),
                hint="a model is given in ops of top, or of plugins' dialects on that level; "
                "tw opt takes IR of any level",
            )
    _require_entry(module, path)
    return ImportedModel(
        name=path.stem,
        module=module,
        weights=path.with_suffix(".safetensors"),
        shapes=weight_shapes(module),
        ignorable=(),
        tables=_no_tables,
    )


def save_mlir(path: Path | str, module: ModuleOp, weights: Mapping[str, Array]) -> None:
    """Write a `top` module into the file `path`, and its weights by resolved key into
    `<same stem>.safetensors`: what `load_mlir`, `tw opt` and `tw compile` read.

    Raises `ModelReadError` for weights that are missing, or not of the shape that the module says,
    `StorageError` where the files cannot be written.
    """
    path = Path(path)
    shapes = weight_shapes(module)
    for key, shape in shapes.items():
        if key not in weights:
            raise ModelReadError(f"weight {key!r} is missing", hint=f"it is of shape {list(shape)}")
        if weights[key].shape != shape:
            given = list(weights[key].shape)
            raise ModelReadError(f"weight {key!r} has shape {given}, not {list(shape)}")
    save_arrays(path.with_suffix(".safetensors"), {key: weights[key] for key in shapes})
    write_atomically(path, print_module(module).encode())


def _require_entry(module: ModuleOp, path: Path) -> None:
    functions = functions_of(module).values()
    for function in functions:
        if len(function.body.blocks) != 1:
            raise IRError(
                f"function @{function.sym_name.data} has {len(function.body.blocks)} blocks",
                where=str(path),
                why="a model is a straight sequence of ops, one block a function",
            )
        for argument in function.body.block.args:
            if not isinstance(argument.type, TensorType):
                raise IRError(
                    f"an argument of @{function.sym_name.data} is {argument.type}",
                    where=str(path),
                    why="functions take and return tensors",
                )
    if all(function.sym_visibility is not None for function in functions):
        raise IRError(
            "the model has no public function",
            where=str(path),
            hint="func.func @main(%x: tensor<4x64xf32>) -> ... { ... } is one that can be run",
        )


def _no_tables() -> Tables:
    return {}
