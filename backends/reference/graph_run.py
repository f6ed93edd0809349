"""The loop over functions of a module: calls under their scopes, and values freed when dead.

What a value is (an array, a ball) and what an op does to it is for the subclasses to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from tilewright.dialects import graph
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.scopes import functions_of

V = TypeVar("V")
Observer: TypeAlias = Callable[[Operation, str, Sequence[V], Sequence[V]], None]
"""Called as `on_op(op, scope, inputs, outputs)`."""


class GraphRun(ABC, Generic[V]):
    """What all calls of one run share. A whole model needs the memory of its widest point."""

    def __init__(self, module: ModuleOp, on_op: Observer[V] | None) -> None:
        self.functions = functions_of(module)
        self._on_op = on_op
        self._last_uses: dict[Block, list[list[SSAValue]]] = {}

    @abstractmethod
    def fitted(self, value: V, target: SSAValue, what: str) -> V:
        """`value`, if it fits the type of `target`; raises `OptionError` naming `what`."""

    @abstractmethod
    def weight(self, op: graph.Weight, key: str) -> V:
        """The weight of resolved key `key`."""

    @abstractmethod
    def state(self, op: graph.State, key: str) -> V:
        """The state of resolved key `key`: itself, not a copy."""

    @abstractmethod
    def evaluate(self, op: Operation, operands: list[V]) -> list[V]:
        """The results of any other op."""

    def call(
        self, name: str, inputs: Sequence[V], scope: str = "", callers: tuple[str, ...] = ()
    ) -> list[V]:
        """Run function `name` with its weights and states under `scope`."""
        if name not in self.functions:
            known = ", ".join(f"@{known}" for known in self.functions)
            raise IRError(f"there is no function @{name}", hint=f"the functions are {known}")
        if name in callers:
            raise IRError(f"@{name} calls itself", why=" -> ".join((*callers, name)))
        function = self.functions[name]
        if function.is_declaration:
            raise IRError(f"@{name} has no body")
        block = function.body.block
        if len(inputs) != len(block.args):
            raise OptionError(f"@{name} takes {len(block.args)} inputs, not {len(inputs)}")
        environment: dict[SSAValue, V] = {}
        for index, (argument, value) in enumerate(zip(block.args, inputs, strict=True)):
            environment[argument] = self.fitted(value, argument, f"input {index} of @{name}")
        results: list[V] = []
        for op, dead in zip(block.ops, self._dead_after(block), strict=True):
            operands = [environment[operand] for operand in op.operands]
            if isinstance(op, func.ReturnOp):
                results = operands
                break
            outputs = self._execute(op, operands, scope, (*callers, name))
            environment.update(zip(op.results, outputs, strict=True))
            del operands, outputs
            for value in dead:
                del environment[value]
        return results

    def _execute(
        self, op: Operation, operands: list[V], scope: str, callers: tuple[str, ...]
    ) -> list[V]:
        if isinstance(op, graph.Call):
            for inner in op.scope_names:
                results = self.call(op.callee.string_value(), operands, scope + inner, callers)
                operands = [*results, *operands[len(results) :]]
            return operands[: len(op.results)]
        if isinstance(op, graph.Weight):
            return [self.weight(op, scope + op.key.data)]
        if isinstance(op, graph.State):
            return [self.state(op, scope + op.key.data)]
        outputs = self.evaluate(op, operands)
        if self._on_op is not None:
            self._on_op(op, scope, operands, outputs)
        return outputs

    def _dead_after(self, block: Block) -> list[list[SSAValue]]:
        """For each op of `block` the values that nothing needs after it."""
        if block not in self._last_uses:
            self._last_uses[block] = _last_uses(block)
        return self._last_uses[block]


def _last_uses(block: Block) -> list[list[SSAValue]]:
    seen: set[SSAValue] = set()
    dead: list[list[SSAValue]] = []
    for op in reversed(list(block.ops)):
        values = dict.fromkeys((*op.operands, *op.results))
        dead.append([value for value in values if value not in seen])
        seen.update(values)
    return dead[::-1]
