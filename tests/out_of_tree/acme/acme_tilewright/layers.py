"""Models as a list of layers in a `.layers` file, say `4x64 squared-relu relu`."""

from __future__ import annotations

from pathlib import Path

from tilewright.compiler.importers.registry import Importer
from tilewright.compiler.language_model import ImportedModel
from tilewright.dialects import top
from tilewright.dialects.element_types import F32, tensor_type
from tilewright.dialects.errors import ModelReadError, UnsupportedError
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from acme_tilewright.dialect import SquaredReluOp

LAYERS = {"relu": top.ReluOp, "squared-relu": SquaredReluOp, "tanh": top.TanhOp}


class Layers(Importer):
    """Reads one function `main` of activations, one after the other, without weights."""

    reads = "a FILE.layers: a shape and the names of layers"

    def accepts(self, path: Path) -> bool:
        return path.suffix == ".layers"

    def load(self, path: Path, seq: int) -> ImportedModel:
        try:
            shape, *layers = path.read_text("utf-8").split()
            kind = tensor_type(tuple(int(size) for size in shape.split("x")), F32)
        except (OSError, ValueError) as error:
            raise ModelReadError("cannot be read", where=str(path), why=str(error)) from error
        function = FuncOp("main", ([kind], [kind]))
        block = function.body.block
        value: SSAValue = block.args[0]
        value.name_hint = "x"
        for layer in layers:
            if layer not in LAYERS:
                raise UnsupportedError(
                    f"no layer {layer!r}", where=str(path), hint=f"one of {', '.join(LAYERS)}"
                )
            op = LAYERS[layer](value)
            block.add_op(op)
            value = op.result
        block.add_op(ReturnOp(value))
        return ImportedModel(
            name=path.stem,
            module=ModuleOp([function]),
            weights=path.with_suffix(".safetensors"),
            shapes={},
            ignorable=(),
            tables=dict,
        )
