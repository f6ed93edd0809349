"""The tracer: turns the running of Python code into the ops of a `top` module.

One `Tracer` exists while `trace` runs. It holds a stack of functions under construction; `emit`
appends an op to the innermost one and gives it the location of the user's line. Values of the DSL
are thin wrappers (`tensor.py`) around what `emit` returns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from tilewright.compiler.dsl.chains import join_chains
from tilewright.dialects.errors import IRError, UnsupportedError
from tilewright.dialects.source_lines import named_location, readable_place, user_frame

_PACKAGE = str(Path(__file__).parent)


class Node:
    """Anything that has a key: a module, a parameter, a state or a table.

    The key of a node is the path of attribute names from the root of its tree, as in a PyTorch
    state dict.
    """

    owner: Node | None = None
    name_in_owner: str = ""

    def key(self, base: Node | None = None) -> str:
        """The key relative to the node `base` (`None`: to the root). Raises `IRError` if `base`
        does not own it.
        """
        parts: list[str] = []
        node = self
        while node is not base:
            if node.owner is None:
                if base is None:
                    break
                raise IRError(
                    f"{self.key()!r} is used inside {base.key()!r}, which does not own it",
                    where=where(),
                    why="an outlined module is compiled once and called for every copy of it",
                    hint="pass the tensor to the module as an argument",
                )
            if node.name_in_owner:
                parts.append(node.name_in_owner)
            node = node.owner
        return ".".join(reversed(parts))


@dataclass
class FunctionBuilder:
    """A function under construction. `base` is the outlined module that it is the body of."""

    base: Node | None
    block: Block
    leaves: dict[int, SSAValue] = field(default_factory=dict[int, SSAValue])
    """Values of the weights and states used so far, by the `id` of their node."""
    modules: list[Node] = field(default_factory=list[Node])
    """The modules whose `forward` is running, outermost first."""

    def path(self) -> str:
        """The running module's key, relative to `base`."""
        return self.modules[-1].key(self.base) if self.modules else ""


class Tracer:
    """The module under construction."""

    def __init__(self) -> None:
        self.functions: list[FuncOp] = []
        self.outlined: dict[object, object] = {}
        """What `module.py` remembers of the outlined modules, by structure and argument types."""
        self.entry = ""
        """The entry function that is traced now."""
        self._builders: list[FunctionBuilder] = []
        self._names: set[str] = set()

    @property
    def builder(self) -> FunctionBuilder:
        return self._builders[-1]

    def running_module(self) -> str:
        """The full key of the module whose `forward` runs."""
        modules = self._builders[-1].modules if self._builders else []
        return modules[-1].key() if modules else ""

    def reserve(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`, ... if it is taken."""
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    @contextmanager
    def function(
        self, arguments: Sequence[tuple[str, Attribute]], base: Node | None
    ) -> Generator[FunctionBuilder]:
        """Build a function: `arguments` are names and types. Close it with `finish`."""
        block = Block(arg_types=[type_ for _, type_ in arguments])
        for argument, (name, _) in zip(block.args, arguments, strict=True):
            argument.name_hint = name
        builder = FunctionBuilder(base, block)
        if base is not None:
            builder.modules.append(base)
        self._builders.append(builder)
        try:
            yield builder
        finally:
            self._builders.pop()

    def finish(
        self, builder: FunctionBuilder, name: str, results: Sequence[SSAValue], *, private: bool
    ) -> FuncOp:
        """End the function with a return of `results` and add it to the module."""
        builder.block.add_op(ReturnOp(*results))
        types = ([a.type for a in builder.block.args], [result.type for result in results])
        join_chains(builder.block)
        op = FuncOp(name, types, Region(builder.block), visibility="private" if private else None)
        self.functions.append(op)
        return op


_tracer: ContextVar[Tracer | None] = ContextVar("tracer", default=None)


@contextmanager
def tracing() -> Generator[Tracer]:
    """Makes a new tracer the current one."""
    tracer = Tracer()
    token = _tracer.set(tracer)
    try:
        yield tracer
    finally:
        _tracer.reset(token)


def current() -> Tracer:
    """The tracer that runs now; raises `IRError` outside of `trace`."""
    tracer = _tracer.get()
    if tracer is None:
        raise IRError(
            "a DSL op was called, but nothing is being traced",
            where=where(),
            hint="call it from a function that is given to dsl.trace",
        )
    return tracer


def emit(op: Operation, name: str | None = None) -> Sequence[SSAValue]:
    """Append `op` to the function under construction; `name` overrides the running module's in its
    location.
    """
    builder = current().builder
    label = name or builder.path() or op.name.rpartition(".")[2]
    op.location = named_location(label, _user_frame())
    builder.block.add_op(op)
    return op.results


def _user_frame() -> FrameType | None:
    """The innermost frame outside of the DSL's own files."""
    return user_frame(_PACKAGE)


def where() -> str:
    """The user's line, and the module that is being traced, for an error message."""
    place = readable_place(_user_frame())
    tracer = _tracer.get()
    module = tracer.running_module() if tracer is not None else ""
    return f"{place} (in {module})" if module else place


def shape_error(what: str, *, why: str | None = None, hint: str | None = None) -> UnsupportedError:
    """An error about operands that do not go together, at the user's line."""
    return UnsupportedError(what, where=where(), why=why, hint=hint)
