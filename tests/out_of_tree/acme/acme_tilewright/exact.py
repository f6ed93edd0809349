"""The backend `acme-exact`: the model in float64, rounded only where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tilewright.backends.program import Function
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.execution import Backend, CompiledModel, Execution
from tilewright.compiler.runtime import entry_function, stored_inputs
from tilewright.dialects.errors import UnsupportedError
from xdsl.ir import Operation

Array = NDArray[Any]


class Exact(Backend):
    """Executes models that have neither weights nor states."""

    summary = "float64, rounded at the outputs"

    def open(self, model: CompiledModel) -> Execution:
        return _Execution(model)


class _Execution:
    def __init__(self, model: CompiledModel) -> None:
        self._program, self._module = model.program, model.module()

    def function(self, name: str) -> Function:
        """The entry function `name`; raises `OptionError` where there is none."""
        return entry_function(self._program, name)

    def run(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run an entry function; raises `OptionError` for inputs that do not fit."""
        function = self.function(name)
        stored = stored_inputs(function, inputs)
        values = [stored[port.name] for port in function.inputs]
        results = run_function(
            self._module, name, values, weights=_no_weights, states={}, semantics="float64"
        )
        return {
            port.name: np.asarray(result).astype(port.element.dtype)
            for port, result in zip(function.outputs, results, strict=True)
        }


def _no_weights(key: str, op: Operation) -> Array:
    raise UnsupportedError(f"acme-exact has no weights for {key!r}")
