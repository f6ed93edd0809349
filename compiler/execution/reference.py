"""The typed reference as a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from tilewright.backends.program import Function
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.execution import Backend, CompiledModel
from tilewright.compiler.memory_plan import weight_name_of
from tilewright.compiler.runtime import entry_function, stored_inputs
from tilewright.dialects.errors import InternalError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.tpu import WeightOp

Array = npt.NDArray[Any]


class Reference(Backend):
    """The `tpu` module op by op, as the numerics contract has it (docs/numerics.md)."""

    summary = "the tpu module op by op in the typed reference"

    def open(self, model: CompiledModel) -> ReferenceExecution:
        return ReferenceExecution(model)


class ReferenceExecution:
    """A `tpu` module under the typed reference, with inputs, outputs and states as a `Session`."""

    def __init__(self, model: CompiledModel) -> None:
        self._program = model.program
        self._module = model.module()
        self._weight = model.weight
        self._states: dict[str, Array] = {}

    def function(self, name: str) -> Function:
        """The entry function `name`; raises `OptionError` where there is none."""
        return entry_function(self._program, name)

    def run(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run an entry function; raises `OptionError` as `Session.run` does."""
        function = self.function(name)
        stored = stored_inputs(function, inputs)
        results = run_function(
            self._module,
            name,
            [stored[port.name] for port in function.inputs],
            weights=self._stored_weight,
            states=self._states,
        )
        return {
            port.name: np.array(result)
            for port, result in zip(function.outputs, results, strict=True)
        }

    def _stored_weight(self, key: str, op: Operation) -> Array:
        if not isinstance(op, WeightOp):
            raise InternalError(f"{op.name} stands for a weight in a tpu module")
        data = self._weight(weight_name_of(op, key)).reshape(-1).view(np.uint8)
        return data.view(storage_of(op.result).dtype).reshape(shape_of(op.result))
