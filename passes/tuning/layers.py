"""The linear layers of a module: products with a weight, by the weight's resolved key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.dialects import top
from tilewright.dialects.graph import shape_of
from tilewright.dialects.quantization import DENSE, Scheme, parse_scheme
from tilewright.dialects.scopes import functions_of, walk_calls
from tilewright.passes.tuning.data import Array, TuningData


@dataclass(frozen=True)
class LinearLayer:
    """A weight `[N, K]` and the scheme that it gets; none where it stays dense."""

    key: str
    channels: int
    depth: int
    transposed: bool
    """The model reads it as `[K, N]`."""
    scheme: Scheme | None
    quant: str

    def read(self, data: TuningData) -> Array:
        """The weight as `[N, K]`."""
        array = data.weights.read(self.key)
        return np.ascontiguousarray(array.T) if self.transposed else array

    def replace(self, data: TuningData, weight: Array) -> None:
        """Put `[N, K]` in the weight's place."""
        array = np.ascontiguousarray(weight.T) if self.transposed else weight
        data.weights.replace(self.key, array)


def walk_public(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """Every op that the public functions execute, with its scope: `walk_calls` over all of them."""
    for function in functions_of(module).values():
        if function.sym_visibility is None:
            yield from walk_calls(module, function)


def linear_layers(module: ModuleOp, data: TuningData) -> dict[str, LinearLayer]:
    """The linear layers by resolved key, in the order of execution."""
    layers: dict[str, LinearLayer] = {}
    for op, scope in walk_public(module):
        if isinstance(op, top.MatMulOp) and isinstance(op.right.owner, top.WeightOp):
            key = scope + op.right.owner.key.data
            if key not in layers:
                layers[key] = _layer(op, op.right.owner, key, data)
    return layers


def _layer(op: top.MatMulOp, weight: top.WeightOp, key: str, data: TuningData) -> LinearLayer:
    transposed = op.right_transpose is None
    channels, depth = shape_of(weight.result)[:: -1 if transposed else 1]
    quant = data.quant_of(key)
    scheme = None if quant in DENSE else parse_scheme(quant)
    return LinearLayer(key, channels, depth, transposed, scheme, quant)
