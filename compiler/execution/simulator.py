"""The simulated machine as a backend."""

from __future__ import annotations

from tilewright.compiler.execution import Backend, CompiledModel
from tilewright.compiler.runtime import Session


class Simulator(Backend):
    """The program of commands on the simulated machine."""

    summary = "the commands on the simulated machine"

    def open(self, model: CompiledModel) -> Session:
        return Session(model.program, model.chip, model.weight)
