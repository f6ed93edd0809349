"""Whether an emitted module still does what its programs do, once it is planned and linked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.chip import Chip
from tilewright.backends.reference.balls import Ball
from tilewright.compiler.link import link
from tilewright.compiler.memory_plan import MemoryPlan, plan_memory
from tilewright.compiler.runtime import Session
from tilewright.compiler.workbench.evaluation import difference, evaluate, single_calls
from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.compiler.workbench.simulation import Simulation
from tilewright.dialects.errors import IRError, MiscompileError, UnsupportedError
from tilewright.dialects.scopes import functions_of


def check_linked(
    module: ModuleOp,
    inputs: GeneratedInputs,
    simulation: Simulation,
    chip: Chip,
    pass_name: str,
) -> None:
    """Run each public function as a linked program, and launch by launch on memory of its own: the
    same bits.

    A module that cannot be planned, because of what its functions return, is not run.
    """
    with single_calls(module):
        try:
            plan = plan_memory(module, chip, check_fit=False)
        except (IRError, UnsupportedError):
            return
        session = _session(module, plan, inputs, simulation)
        for name, function in functions_of(module).items():
            if name not in plan.inputs:
                continue
            expected = evaluate(module, name, inputs, run_program=simulation.run_program)
            for key, state in inputs.states(module, name).items():
                session.state(key)[...] = state.reshape(-1).view(np.uint8)
            arguments = zip(plan.inputs[name], inputs.arguments(function), strict=True)
            outputs = session.run(name, {slot.name: array for slot, array in arguments})
            for (port, output), ball in zip(outputs.items(), expected.outputs, strict=True):
                found = difference(f"output {port}", ball, Ball.exact(output))
                if found is not None:
                    raise MiscompileError(
                        f"after pass {pass_name} @{name} does something else as a linked program",
                        why=str(found),
                    )


def _session(
    module: ModuleOp, plan: MemoryPlan, inputs: GeneratedInputs, simulation: Simulation
) -> Session:
    def weight(name: str) -> npt.NDArray[np.generic]:
        slot = plan.weights[name]
        return inputs.stored(
            slot.key,
            slot.form,
            slot.shape,
            slot.element,
            slot.transposed,
            slot.scheme,
            slot.bias,
        )

    chip = simulation.chip
    program = simulation.known(link(module, plan, chip))
    return Session(program, chip, weight, machine=simulation.machine())
