"""The reference of all ops, read off their definitions and docstrings.

An op's docstring has a line of summary, an example in a fenced `mlir` block, what the op means, and
under `Invariants:` a list of the verifier's messages. Where `top` and `tpu` share an op, meaning
and invariants stand at their common base.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Dialect, Operation, Region
from xdsl.irdl import IRDLOperation, OpDef
from xdsl.irdl import OptionalDef as Optional
from xdsl.irdl import VariadicDef as Variadic
from xdsl.parser import Parser
from xdsl.traits import Pure, SymbolOpInterface

from tilewright.dialects import bdc, gdma, plugins, top, tpu
from tilewright.dialects.context import dialect_of_plugin, make_context
from tilewright.dialects.errors import ModelReadError, PluginError
from tilewright.dialects.graph import GraphOp
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.dialects.top.base import TopOp
from tilewright.dialects.tpu.base import TpuOp

_MODULES = (top, tpu, gdma, bdc)
_DIALECTS: tuple[Dialect, ...] = (top.Top, tpu.Tpu, gdma.Gdma, bdc.Bdc)
_FENCE = re.compile(r"^```mlir\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INVARIANTS = "Invariants:\n"
_SEGMENT_SIZES = ("operandSegmentSizes", "resultSegmentSizes")


@dataclass(frozen=True)
class OpDoc:
    """What the reference says of an op. `operands`, `results` and `properties` end in `?` or `*`
    where one may be left out or there may be any number."""

    name: str
    dialect: str
    class_name: str
    summary: str
    example: str
    """Ops in custom syntax; `parse_example` reads it."""
    description: str
    """Markdown: what the op means."""
    invariants: tuple[str, ...]
    """Messages of the verifier, as markdown."""
    operands: tuple[str, ...]
    results: tuple[str, ...]
    properties: tuple[str, ...]
    pure: bool


@dataclass(frozen=True)
class _Sections:
    summary: str
    example: str
    description: str
    invariants: tuple[str, ...]


def mlir_blocks(docstring: str) -> list[str]:
    """The fenced `mlir` blocks of a docstring."""
    return _FENCE.findall(inspect.cleandoc(docstring))


def _sections(docstring: str) -> _Sections:
    text = inspect.cleandoc(docstring)
    example = "\n".join(block.rstrip() for block in _FENCE.findall(text))
    prose, _, listed = _FENCE.sub("", text).partition(_INVARIANTS)
    summary, _, description = prose.partition("\n\n")
    items = [" ".join(item.split()) for item in re.split(r"^- ", listed, flags=re.MULTILINE)]
    return _Sections(
        summary=" ".join(summary.split()),
        example=example,
        description=re.sub(r"\n{3,}", "\n\n", description).strip(),
        invariants=tuple(item for item in items if item),
    )


def _shared_base(op: type[Operation]) -> type[GraphOp] | None:
    """The class that says what the op means on both levels: of `tilewright.dialects.graph`, or of
    a plugin's own."""
    for base in op.mro()[1:]:
        if issubclass(base, GraphOp) and base not in (GraphOp, TopOp, TpuOp, CompositeOp):
            return base
    return None


def document_op(op: type[Operation]) -> OpDoc:
    """The documentation of an op class."""
    own = _sections(op.__doc__ or "")
    description, invariants = [own.description], own.invariants
    base = _shared_base(op)
    if base is not None:
        shared = _sections(base.__doc__ or "")
        description += [shared.summary, shared.description]
        invariants += shared.invariants
    definition = op.get_irdl_definition() if issubclass(op, IRDLOperation) else OpDef(op.name)
    return OpDoc(
        name=op.name,
        dialect=op.name.split(".")[0],
        class_name=op.__name__,
        summary=own.summary,
        example=own.example,
        description="\n\n".join(part for part in description if part),
        invariants=invariants,
        operands=tuple(name + _multiplicity(field) for name, field in definition.operands),
        results=tuple(name + _multiplicity(field) for name, field in definition.results),
        properties=tuple(
            name + _multiplicity(field)
            for name, field in definition.properties.items()
            if name not in _SEGMENT_SIZES
        ),
        pure=op.has_trait(Pure),
    )


def _multiplicity(field: object) -> str:
    if isinstance(field, Optional):
        return "?"
    return "*" if isinstance(field, Variadic) else ""


def op_reference() -> list[OpDoc]:
    """The documentation of every op of Tilewright's dialects."""
    return [document_op(op) for dialect in _DIALECTS for op in dialect.operations]


def plugin_ops() -> list[OpDoc]:
    """The documentation of every op of the dialects that plugins give; what cannot be loaded is
    warned of."""
    docs: list[OpDoc] = []
    for name in plugins.given("dialects"):
        try:
            docs += [document_op(op) for op in dialect_of_plugin(name).operations]
        except PluginError as error:
            plugins.warn(error)
    return docs


def render_markdown(docs: Sequence[OpDoc] | None = None) -> str:
    """`docs/reference/ops.md`: the reference as one page of markdown."""
    docs = op_reference() if docs is None else docs
    return "\n".join(_page(docs)).rstrip() + "\n"


def _page(docs: Sequence[OpDoc]) -> Iterator[str]:
    yield "# Ops\n"
    yield "Generated from the docstrings of `dialects/`; do not edit.\n"
    for module, dialect in zip(_MODULES, _DIALECTS, strict=True):
        members = [doc for doc in docs if doc.dialect == dialect.name]
        if not members:
            continue
        yield f"## `{dialect.name}`\n"
        yield inspect.cleandoc(module.__doc__ or "") + "\n"
        for doc in members:
            yield from render_op(doc)


def render_op(doc: OpDoc) -> Iterator[str]:
    """The lines of one op in the reference."""
    yield f"### `{doc.name}`\n"
    yield f"{doc.summary}\n"
    if doc.example:
        yield f"```mlir\n{doc.example}\n```\n"
    if doc.description:
        yield f"{doc.description}\n"
    for title, fields in (
        ("Operands", doc.operands),
        ("Results", doc.results),
        ("Properties", doc.properties),
    ):
        if fields:
            yield f"{title}: " + ", ".join(f"`{field}`" for field in fields) + "\n"
    yield f"Pure: {'yes' if doc.pure else 'no'}\n"
    if doc.invariants:
        yield "Invariants:\n"
        yield "".join(f"- {invariant}\n" for invariant in doc.invariants)


def parse_example(text: str, name: str = "example") -> ModuleOp:
    """The module of an `mlir` block in a docstring.

    A block is self-contained: values that it uses but does not define become arguments of a
    function around it, of the types that the block gives them. A block of functions or programs
    stands as it is.

    Raises `ModelReadError` where the block does not end in an op, and xDSL's exceptions where it is
    not IR.
    """
    parser = Parser(make_context(), text, name)
    ops: list[Operation] = []
    while (op := parser.parse_optional_operation()) is not None:
        ops.append(op)
    rest = text[parser.pos :].strip()
    if rest or not ops:
        raise ModelReadError(f"{name} is not a list of ops", why=f"cannot read {rest[:40]!r}")
    if all(op.has_trait(SymbolOpInterface) for op in ops):
        return ModuleOp(ops)
    block = Block()
    for hint, values in parser.forward_ssa_references.items():
        for value in values.values():
            argument = block.insert_arg(value.type, len(block.args))
            argument.name_hint = hint
            value.replace_all_uses_with(argument)
    block.add_ops([*ops, ReturnOp()])
    types = [argument.type for argument in block.args]
    return ModuleOp([FuncOp("example", (types, []), Region(block))])
