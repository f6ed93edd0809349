"""From an emitted module to a `Program`: calls flattened into launches with global addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, OpResult, SSAValue

from tilewright.backends.chip import Chip
from tilewright.backends.program import Buffer, Function, Kernel, Launch, Port, Program
from tilewright.compiler.memory_plan import (
    MemoryPlan,
    TensorSlot,
    between,
    entry_functions,
    returned_values,
    weight_name_of,
)
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.errors import InternalError
from tilewright.dialects.scopes import op_name
from tilewright.dialects.tpu import CallOp, LaunchOp, StateOp, WeightOp
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.views import view_of


@dataclass(frozen=True)
class _Instance:
    """One execution of a function: its key scope, and where arguments, results and frame lie."""

    scope: str
    arguments: tuple[int, ...]
    results: tuple[int, ...]
    frame: int


_Address: TypeAlias = Callable[[_Instance], int]


@dataclass(frozen=True)
class _LaunchStep:
    kernel: int
    addresses: tuple[_Address, ...]
    name: str


@dataclass(frozen=True)
class _CallStep:
    """A chain of calls: `between` are the buffers that take turns with `results`."""

    callee: str
    scopes: tuple[str, ...]
    arguments: tuple[_Address, ...]
    results: tuple[_Address, ...]
    between: tuple[_Address, ...]


_Steps: TypeAlias = tuple[_LaunchStep | _CallStep, ...]


def link(module: ModuleOp, plan: MemoryPlan, chip: Chip) -> Program:
    """Resolve, under `plan`, every launch of the entry functions of an emitted `module`."""
    kernels: list[Kernel] = []
    index_of: dict[str, int] = {}
    for op in module.ops:
        if isinstance(op, ProgramOp):
            index_of[op.sym_name.data] = len(kernels)
            kernels.append(kernel_of(op))
    linker = _Linker(module, plan, index_of)
    functions = tuple(linker.function(entry) for entry in entry_functions(module))
    return Program(chip.name, tuple(kernels), functions, _buffers(plan))


class _Linker:
    def __init__(self, module: ModuleOp, plan: MemoryPlan, index_of: Mapping[str, int]) -> None:
        self._plan = plan
        self._index_of = index_of
        self._functions = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}
        self._steps: dict[str, _Steps] = {}

    def function(self, entry: func.FuncOp) -> Function:
        name = entry.sym_name.data
        inputs, outputs = self._plan.inputs[name], self._plan.outputs[name]
        instance = _Instance(
            "",
            tuple(slot.address for slot in inputs),
            tuple(slot.address for slot in outputs),
            self._plan.arena,
        )
        launches: list[Launch] = []
        self._run(name, instance, launches)
        return Function(name, _ports(inputs), _ports(outputs), tuple(launches))

    def _run(self, name: str, instance: _Instance, launches: list[Launch]) -> None:
        for step in self._steps_of(name):
            if isinstance(step, _LaunchStep):
                addresses = tuple([address(instance) for address in step.addresses])
                launches.append(Launch(step.kernel, addresses, instance.scope + step.name))
            else:
                self._run_chain(step, instance, self._plan.frames[name].size_bytes, launches)

    def _run_chain(
        self, step: _CallStep, caller: _Instance, frame_bytes: int, launches: list[Launch]
    ) -> None:
        arguments = tuple([address(caller) for address in step.arguments])
        results = tuple([address(caller) for address in step.results])
        turns = (results, tuple([address(caller) for address in step.between]))
        for number, scope in enumerate(step.scopes, start=1):
            # The last call writes the results, so the turns are counted from there.
            out = turns[(len(step.scopes) - number) % 2]
            callee = _Instance(caller.scope + scope, arguments, out, caller.frame + frame_bytes)
            self._run(step.callee, callee, launches)
            arguments = out + arguments[len(out) :]

    def _steps_of(self, name: str) -> _Steps:
        if name not in self._steps:
            self._steps[name] = tuple(self._compile(self._functions[name]))
        return self._steps[name]

    def _compile(self, function: func.FuncOp) -> list[_LaunchStep | _CallStep]:
        name = function.sym_name.data
        returned = {view_of(v).root: index for index, v in enumerate(returned_values(function))}
        steps: list[_LaunchStep | _CallStep] = []

        def address(value: SSAValue) -> _Address:
            view = view_of(value)
            return self._address_of(name, returned, view.root, view.offset_bytes)

        for op in function.body.block.ops:
            if isinstance(op, LaunchOp):
                values = [*op.operands]
                values += [r for r in op.results if op.alias is None or r.index > 0]
                steps.append(
                    _LaunchStep(
                        self._index_of[op.kernel.string_value()],
                        tuple([address(value) for value in values]),
                        op_name(op),
                    )
                )
            elif isinstance(op, CallOp):
                steps.append(
                    _CallStep(
                        op.callee.string_value(),
                        op.scope_names,
                        tuple([address(value) for value in op.operands]),
                        tuple([address(value) for value in op.results]),
                        tuple([self._between(name, result) for result in op.results])
                        if len(op.scopes) > 1
                        else (),
                    )
                )
        return steps

    def _between(self, function: str, result: SSAValue) -> _Address:
        start = self._plan.frames[function].offsets[between(result)]
        return lambda instance: instance.frame + start

    def _address_of(
        self, function: str, returned: Mapping[SSAValue, int], root: SSAValue, offset: int
    ) -> _Address:
        plan = self._plan
        if root in returned:
            result = returned[root]
            return lambda instance: instance.results[result] + offset
        if isinstance(root, BlockArgument):
            argument = root.index
            return lambda instance: instance.arguments[argument] + offset
        assert isinstance(root, OpResult)
        op = root.op
        if isinstance(op, WeightOp):
            suffix = weight_name_of(op)
            return lambda instance: plan.weights[instance.scope + suffix].address + offset
        if isinstance(op, StateOp):
            key = op.key.data
            return lambda instance: plan.states[instance.scope + key].address + offset
        if root in plan.frames[function].offsets:
            start = plan.frames[function].offsets[root] + offset
            return lambda instance: instance.frame + start
        raise InternalError(f"{op.name} has no place in global memory")


def _ports(slots: tuple[TensorSlot, ...]) -> tuple[Port, ...]:
    return tuple(Port(s.name, s.shape, s.element, s.address) for s in slots)


def _buffers(plan: MemoryPlan) -> tuple[Buffer, ...]:
    buffers = [Buffer(w.name, w.address, w.size_bytes, "weight") for w in plan.weights.values()]
    buffers += [Buffer(s.name, s.address, s.size_bytes, "state") for s in plan.states.values()]
    for function, slots in plan.inputs.items():
        buffers += [Buffer(f"{function}.{s.name}", s.address, s.size_bytes, "input") for s in slots]
    for function, slots in plan.outputs.items():
        buffers += [
            Buffer(f"{function}.{s.name}", s.address, s.size_bytes, "output") for s in slots
        ]
    buffers.append(Buffer("activations", plan.arena, max(plan.arena_bytes, 1), "activation"))
    return tuple(sorted(buffers, key=lambda buffer: buffer.address))
