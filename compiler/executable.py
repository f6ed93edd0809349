"""A module compiled and run in memory: from the DSL to numbers and cycles without an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.performance import FunctionTime, ProgramTimes
from tilewright.compiler.pipeline import Built, CompileOptions, build_program, lower
from tilewright.compiler.runtime import Session
from tilewright.compiler.weight_requests import weight_requests
from tilewright.compiler.weights.in_memory import weight_arrays
from tilewright.compiler.weights.parts import Ranges

Array = npt.NDArray[Any]


class Executable:
    """A compiled module with its weights, ready to run on the simulated machine."""

    def __init__(self, tpu_module: ModuleOp, built: Built, weights: Mapping[str, Array]) -> None:
        self.tpu_module = tpu_module
        self.program = built.program
        self.chip = built.chip
        self.weights = weights
        self.session = Session(built.program, built.chip, weights.__getitem__)

    def run(self, function: str, **inputs: Array) -> tuple[Array, ...]:
        """Run a function on the simulator; returns its outputs in order.

        Raises `OptionError` for unknown functions and wrong inputs, `SimulationError` for commands
        that the machine cannot execute.
        """
        return tuple(self.session.run(function, inputs).values())

    def times(self) -> dict[str, FunctionTime]:
        """Cycles of every function by the timing model."""
        return ProgramTimes(self.program, self.chip).by_name()


def compile_module(
    module: ModuleOp,
    weights: Mapping[str, Array],
    options: CompileOptions | None = None,
    *,
    ranges: Ranges | None = None,
) -> Executable:
    """Compile a top module; `weights` holds an array (f32, f16 or bf16) for each of its keys.

    `ranges` are those of int8 layers, in a module that says that it has been calibrated. Raises
    `ModelReadError` for missing, misshapen or non-finite weights, `OptionError` for missing ranges,
    and what the passes raise.
    """
    options = options or CompileOptions()
    tpu_module = lower(module, options)
    built = build_program(tpu_module, options.chip)
    arrays = weight_arrays(weight_requests(built.plan, {}), weights, ranges or {})
    f32_scales = [
        slot.key
        for slot in built.plan.weights.values()
        if slot.form == "scale" and arrays[slot.name].dtype != slot.element.dtype
    ]
    if f32_scales:
        tpu_module = lower(module, options, f32_scales=f32_scales)
        built = build_program(tpu_module, options.chip)
    return Executable(tpu_module, built, arrays)
