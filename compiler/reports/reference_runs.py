"""What the ops of a compiled model should have computed: the values of a reference, by op.

The reference is the unquantized float model (`source_reference`) or another artifact's own program
in float64 (`program_reference`). Ops are found by function, name in the source model, kind, and how
many of this kind the name has had before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.executor import SemanticsName, Weights, run_function
from tilewright.compiler.calibration.observe import layer_of
from tilewright.compiler.calibration.run import FloatWeights
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.memory_plan import weight_name_of
from tilewright.compiler.runtime import Session
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects import graph, tpu
from tilewright.dialects.errors import InternalError, OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of, name_of

Array = npt.NDArray[Any]

PRODUCT = "MatMul"
_WITHOUT_COUNTERPART = (tpu.QuantizeOp, tpu.Int8MatMulOp)
"""Codes of int8 layers; what they stand for is seen when they are dequantized."""


class OpKey(NamedTuple):
    """An executed op, in words that all versions of a model have in common."""

    function: str
    name: str
    kind: str
    occurrence: int


class OpCounter:
    """Names executed ops, one after the other."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._seen: Counter[tuple[str, str]] = Counter()

    def key(self, op: Operation, scope: str) -> OpKey | None:
        """The next op's key; none for one that only quantized modules have."""
        if isinstance(op, _WITHOUT_COUNTERPART):
            return None
        kind = kind_of_op(op)
        name = scope + (name_of(op.location) or kind)
        number = self._seen[name, kind]
        self._seen[name, kind] += 1
        return OpKey(self._function, name, kind, number)


def kind_of_op(op: Operation) -> str:
    """What an op computes, whatever its weight is stored as."""
    if isinstance(op, graph.MatMul | tpu.A16MatMul | tpu.DequantizeOp):
        return PRODUCT
    if isinstance(op, graph.Gather | tpu.W8A16GatherOp):
        return "Gather"
    return op.name.rpartition(".")[2]


class Linear(NamedTuple):
    """A linear layer of the reference: its weight's key, `W [N, K]` and its bias, if it has one."""

    key: str
    weight: Array
    bias: Array | None


@dataclass
class ReferenceRun:
    """The values of one run, by op; those of states are copies."""

    values: dict[OpKey, Array] = field(default_factory=dict[OpKey, Array])
    inputs: dict[OpKey, Array] = field(default_factory=dict[OpKey, Array])
    """Of linear layers."""
    linear: dict[OpKey, Linear] = field(default_factory=dict[OpKey, Linear])
    order: list[OpKey | None] = field(default_factory=list["OpKey | None"])
    """Of every op that was executed."""
    outputs: list[Array] = field(default_factory=list[Array])


@dataclass
class Reference:
    """A module that is run by the compiler's reference. States live as long as this object."""

    module: ModuleOp
    weights: Weights
    semantics: SemanticsName
    what: str
    """For messages and tables."""
    states: dict[str, Array] = field(default_factory=dict[str, Array])

    def run(self, function: str, inputs: Mapping[str, Array]) -> ReferenceRun:
        """Run a function on inputs by name; raises `OptionError` where the reference lacks it."""
        functions = functions_of(self.module)
        if function not in functions:
            raise OptionError(
                f"{self.what} has no function {function!r}", hint=f"it has {', '.join(functions)}"
            )
        seen, counter = ReferenceRun(), OpCounter(function)

        def on_op(op: Operation, scope: str, given: Sequence[Array], made: Sequence[Array]) -> None:
            key = counter.key(op, scope)
            seen.order.append(key)
            if key is None or not made:
                return
            seen.values[key] = made[0].copy() if isinstance(op, graph.CacheUpdate) else made[0]
            linear = layer_of(op)
            if linear is not None:
                matmul, weight = linear
                matrix = given[1] if matmul.right_transpose is not None else given[1].T
                bias = given[2] if len(given) > 2 else None
                seen.inputs[key] = given[0]
                seen.linear[key] = Linear(scope + weight.key.data, matrix, bias)

        seen.outputs = run_function(
            self.module,
            function,
            [self._fitted(value, inputs, i) for i, value in self._arguments(function)],
            weights=self.weights,
            states=self.states,
            semantics=self.semantics,
            on_op=on_op,
        )
        return seen

    def _arguments(self, function: str) -> list[tuple[int, Any]]:
        return list(enumerate(functions_of(self.module)[function].body.block.args))

    def _fitted(self, value: Any, inputs: Mapping[str, Array], index: int) -> Array:
        name = value.name_hint or f"input_{index}"
        if name not in inputs:
            raise OptionError(
                f"{self.what} has an input {name!r} that the artifact lacks",
                hint="give the checkpoint that the artifact was compiled from",
            )
        array = np.asarray(inputs[name])
        if array.shape != shape_of(value):
            raise OptionError(
                f"input {name!r} of {self.what} has shape {list(shape_of(value))}, that of the "
                f"artifact {list(array.shape)}"
            )
        return array.astype(storage_of(value).dtype)


def source_reference(model: ImportedModel, source: WeightSource) -> Reference:
    """The unquantized float model, in f32."""
    return Reference(
        model.module, FloatWeights(source, model.tables()), "typed", f"the source {model.name}"
    )


def program_reference(session: Session, module: ModuleOp, what: str) -> Reference:
    """An artifact's own `tpu` module with its own weights, in float64: what it would compute
    without rounding activations."""

    def weight(key: str, op: Operation) -> Array:
        if not isinstance(op, tpu.WeightOp):
            raise InternalError(f"{key} is no weight of a tpu module")
        stored = session.weight(weight_name_of(op, key)).reshape(-1).view(np.uint8)
        return stored.view(storage_of(op.result).dtype).reshape(shape_of(op.result))

    return Reference(module, weight, "float64", what)
