"""A module compiled and run in memory: from the DSL to numbers and cycles without an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.memory_plan import MemoryPlan, WeightSlot, weight_name
from tilewright.compiler.performance import FunctionTime, ProgramTimes
from tilewright.compiler.pipeline import Built, CompileOptions, build_program, lower
from tilewright.compiler.runtime import Session
from tilewright.compiler.weights.container import WEIGHT_ELEMENTS
from tilewright.compiler.weights.convert import NotConvertibleError, convert, rejection
from tilewright.compiler.weights.quantize import quantize_w8a16
from tilewright.dialects.errors import ModelReadError

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
    module: ModuleOp, weights: Mapping[str, Array], options: CompileOptions | None = None
) -> Executable:
    """Compile a top module; `weights` holds an array (f32, f16 or bf16) for each of its keys.

    Raises `ModelReadError` for missing, misshapen or non-finite weights, and what the passes raise.
    """
    options = options or CompileOptions()
    tpu_module = lower(module, options)
    built = build_program(tpu_module, options.chip)
    arrays, f32_scales = _materialize(built.plan, weights)
    if f32_scales:
        tpu_module = lower(module, options, f32_scales=f32_scales)
        built = build_program(tpu_module, options.chip)
    return Executable(tpu_module, built, arrays)


def _materialize(
    plan: MemoryPlan, weights: Mapping[str, Array]
) -> tuple[dict[str, Array], list[str]]:
    """The arrays of all weight slots, and the source keys whose scales had to be f32."""
    arrays: dict[str, Array] = {}
    f32_scales: list[str] = []
    for slot in plan.weights.values():
        if slot.form == "dense":
            arrays[slot.name] = _dense(slot, _source(slot, weights))
        elif slot.form == "codes":
            scale = plan.weights[weight_name(slot.key, "scale")]
            source = _source(slot, weights)
            codes, scales = quantize_w8a16(source, scale.element, name=slot.key)
            arrays[slot.name] = codes
            arrays[scale.name] = scales
            if scales.dtype != scale.element.dtype:
                f32_scales.append(slot.key)
    return arrays, f32_scales


def _source(slot: WeightSlot, weights: Mapping[str, Array]) -> Array:
    """The source of a dense tensor or of codes, as it is stored: of the shape of the slot."""
    if slot.key not in weights:
        raise ModelReadError(
            f"weight {slot.key!r} is missing", hint=f"given: {', '.join(sorted(weights)) or 'none'}"
        )
    array = weights[slot.key]
    shape = slot.shape[::-1] if slot.transposed else slot.shape
    if array.shape != shape:
        raise ModelReadError(
            f"weight {slot.key!r} has shape {list(array.shape)}, not {list(shape)}"
        )
    if array.dtype not in [element.dtype for element in WEIGHT_ELEMENTS.values()]:
        raise ModelReadError(f"weight {slot.key!r} is {array.dtype}, not f32, f16 or bf16")
    return np.ascontiguousarray(array.T if slot.transposed else array)


def _dense(slot: WeightSlot, source: Array) -> Array:
    stored = next(e for e in WEIGHT_ELEMENTS.values() if e.dtype == source.dtype)
    try:
        return convert(source, stored, slot.element)
    except NotConvertibleError as error:
        index = np.unravel_index(error.flat_index, source.shape)
        raise rejection(
            slot.key,
            float(source[index]),
            tuple(int(i) for i in index),
            slot.element,
        ) from error
