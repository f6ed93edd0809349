"""Ops that are defined by what they decompose into.

A class with irdl operands, properties and one result, and one method:

    @irdl_op_definition
    class MatMulGELUOp(TpuOp, CompositeOp):
        name = "acme.MatMulGELU"
        x = operand_def(TensorType)
        weight = operand_def(TensorType)
        result = result_def(TensorType)

        def decompose(self, x: Value, weight: Value) -> Value:
            product = tpu.MatMulOp(x, weight, element=F32).result
            return tpu.GELUOp(product, "tanh").result

or `composite`, which makes such a class of a function. From the decomposition follow the shape and
type of the result, the verifier, what the op computes in float64 and on the machine (intermediate
results as their types say, f32 where they should not be rounded; one rounding at the end), its
error bound, and what stands for it where it has no kernel (`decompose-composites`).
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Block, Operation, OpResult, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    OptionalDef,
    ParsePropInAttrDict,
    VariadicDef,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.rewriter import Rewriter
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.element_types import F32, ElementType, tensor_type
from tilewright.dialects.errors import InternalError, OptionError
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    float_attr,
    int_attr,
    shape_of,
    storage_of,
)
from tilewright.dialects.shape_rules import require, require_shape

Plain = bool | int | float | str
"""What a property of a composite op may hold, in Python."""

Operands = list[Value | list[Value] | None]
"""Operands as an op's definition groups them."""


@dataclass(frozen=True)
class Decomposition:
    """The ops that stand for a composite one: `block` takes its operands and makes `result`."""

    block: Block
    result: SSAValue


def _undefined(self: CompositeOp, *operands: Value) -> Value:
    raise InternalError(f"{type(self).__name__} has no method decompose")


class CompositeOp(GraphOp):
    """The base of ops that are defined by `decompose`."""

    TWIN: ClassVar[type[CompositeOp] | None] = None
    """Of a top op, the tpu op that it becomes."""
    QUANTIZED_TWIN: ClassVar[type[CompositeOp] | None] = None
    """Of a top op, the tpu op that it becomes under w8a16 if its `QUANTIZED` operands are weights:
    each is two operands there, codes and scales."""
    QUANTIZED: ClassVar[tuple[str, ...]] = ()

    decompose: Callable[..., Value] = _undefined
    """Build ops that compute the result from the operands, given in their order, and return it. An
    operand that is left out is `None`, a variadic one a list."""

    traits = traits_def(Pure())

    def __init__(
        self,
        *operands: Value | Sequence[Value] | None,
        element: ElementType | None = None,
        **properties: Plain | Attribute,
    ) -> None:
        """The operands in order; `element` is the result's element type, that of the first operand
        of floats if left out. Raises `VerifyException` for operands that do not go together.
        """
        names = [name for name, _ in self.get_irdl_definition().operands]
        given = [*operands, *[None] * (len(names) - len(operands))]
        attributes = {name: attribute_of(value) for name, value in properties.items()}
        placeholder = tensor_type((1,), F32)
        super().__init__(operands=given, properties=attributes, result_types=[placeholder])
        made = self._decomposed()
        compute = _compute_element(self.operands)
        kept = storage_of(made.result)
        chosen = element or (compute if compute is not None and kept.is_float else kept)
        kind = tensor_type(shape_of(made.result), chosen)
        Rewriter.replace_value_with_new_type(self.results[0], kind)

    def parameter(self, name: str) -> Plain:
        """The property `name` as a Python value."""
        return plain(self.properties[name])

    def number(self, name: str) -> float:
        """The property `name`, which is a number."""
        value = self.parameter(name)
        require(not isinstance(value, str), f"{name} is {value!r}, not a number")
        return float(value)

    def count(self, name: str) -> int:
        """The property `name`, which is a whole number."""
        return int(self.number(name))

    def decomposition(self) -> Decomposition:
        """The ops that stand for this one; the last gives the result's type."""
        made = self._decomposed()
        result = made.result
        if storage_of(result) != storage_of(self.results[0]):
            from tilewright.dialects.tpu import CastOp  # it is built on this module

            cast = CastOp(result, storage_of(self.results[0]))
            made.block.add_op(cast)
            result = cast.result
        return Decomposition(made.block, result)

    def parts(self, operands: Sequence[Value]) -> tuple[list[Operation], Value]:
        """New ops, in order and in no block yet, that compute the result from `operands`."""
        result = self.decompose(*_grouped(self, operands))
        return list(_in_order(result, frozenset(operands))), result

    def _decomposed(self) -> Decomposition:
        block = Block(arg_types=[operand.type for operand in self.operands])
        ops, result = self.parts(block.args)
        block.add_ops(ops)
        return Decomposition(block, result)

    def check(self) -> None:
        made = self._decomposed()
        for op in made.block.ops:
            try:
                op.verify_()
            except VerifyException as error:
                raise VerifyException(f"its decomposition is illegal: {error}") from error
        result = self.results[0]
        require_shape("result", shape_of(result), shape_of(made.result))
        kept, held = storage_of(made.result), storage_of(result)
        compute = _compute_element(self.operands)
        legal = dict.fromkeys(each for each in (kept, compute, F32) if each is not None)
        legal = list(legal) if kept.is_float else [kept]
        names = " or ".join(each.name for each in legal)
        require(held in legal, f"result holds {names}, not {held.name}")


def composite(
    name: str, level: type[GraphOp]
) -> Callable[[Callable[..., Value]], type[CompositeOp]]:
    """Decorator: the op class that a function defines.

        @composite("acme.MatMulGELU", tpu.TpuOp)
        def matmul_gelu(x, weight, bias=None, *, approximate="tanh"):
            product = tpu.MatMulOp(x, weight, bias, element=F32).result
            return tpu.GELUOp(product, approximate).result

    Its parameters are the operands; one with the default None may be left out. Keywords are
    properties, with the types of their defaults. `level` is `top.TopOp` or `tpu.TpuOp`. Raises
    `OptionError` for a function that does not say an op.
    """

    def decorate(function: Callable[..., Value]) -> type[CompositeOp]:
        operands, keywords = signature_of(function)

        def decompose(self: CompositeOp, *values: Value) -> Value:
            return function(*values, **{key: self.parameter(key) for key in keywords})

        return op_class_of(name, level, operands, keywords, decompose, inspect.getdoc(function))

    return decorate


_TAKEN = {"result", *(field.name for field in fields(CompositeOp))}
"""Attributes of ops that are set when one is made; all others are in the class."""


def signature_of(function: Callable[..., object]) -> tuple[dict[str, bool], dict[str, Plain]]:
    """Operands (name: may be left out) and properties (name: default) of a composite function."""
    operands: dict[str, bool] = {}
    keywords: dict[str, Plain] = {}
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if parameter.name in _TAKEN or hasattr(CompositeOp, parameter.name):
            raise OptionError(
                f"{function.__name__} has a parameter {parameter.name!r}",
                why="ops have an attribute of that name already",
                hint="call it otherwise",
            )
        if parameter.kind == parameter.KEYWORD_ONLY:
            if not isinstance(default, bool | int | float | str):
                raise OptionError(
                    f"keyword {parameter.name!r} of {function.__name__} has no default",
                    hint="keywords become properties: give a number, a text, True or False",
                )
            keywords[parameter.name] = default
        elif parameter.kind == parameter.POSITIONAL_OR_KEYWORD:
            operands[parameter.name] = default is None
        else:
            raise OptionError(
                f"{function.__name__} takes *{parameter.name}", hint="name each operand"
            )
    return operands, keywords


def op_class_of(
    name: str,
    level: type[GraphOp],
    operands: dict[str, bool],
    keywords: dict[str, Plain],
    decompose: Callable[..., Value],
    documentation: str | None,
) -> type[CompositeOp]:
    """The class of the composite op `name`, as `composite` makes it."""
    short = name.rpartition(".")[2]
    if not short.isidentifier() or "." not in name:
        raise OptionError(f"{name!r} does not name an op", hint="as in acme.MatMulGELU")
    defaults = {key: attribute_of(value) for key, value in keywords.items()}

    def init(
        self: CompositeOp,
        *values: Value | None,
        element: ElementType | None = None,
        **properties: Plain | Attribute,
    ) -> None:
        CompositeOp.__init__(self, *values, element=element, **{**defaults, **properties})

    optional = [key for key, may_miss in operands.items() if may_miss]
    segments = [AttrSizedOperandSegments(as_property=True)] if len(optional) > 1 else []
    body: dict[str, object] = {
        "__doc__": documentation or f"`{name}`, as its function says.",
        "__module__": decompose.__module__,
        "__init__": init,
        "name": name,
        **{
            key: opt_operand_def(TensorType) if may_miss else operand_def(TensorType)
            for key, may_miss in operands.items()
        },
        **{key: prop_def(type(value)) for key, value in defaults.items()},
        "result": result_def(TensorType),
        "irdl_options": (*segments, ParsePropInAttrDict()),
        "assembly_format": _assembly_format(operands),
        "decompose": decompose,
    }
    made: type[CompositeOp] = types.new_class(
        f"{short}Op", (level, CompositeOp), exec_body=lambda namespace: namespace.update(body)
    )
    return irdl_op_definition(made)


def _assembly_format(operands: dict[str, bool]) -> str:
    """`$x, $w attr-dict : type($x), type($w) -> type($result)`, optional operands by name."""
    needed = [key for key, may_miss in operands.items() if not may_miss]
    named = [key for key, may_miss in operands.items() if may_miss]
    parts = [" `,` ".join(f"${key}" for key in needed)]
    parts += [f"(`{key}` ${key}^ `:` type(${key}))?" for key in named]
    held = " `,` ".join(f"type(${key})" for key in needed)
    return " ".join((*parts, "attr-dict `:`", held, "`->` type($result)"))


def attribute_of(value: Plain | Attribute) -> Attribute:
    """The attribute that holds a property: f32, i64, i1 or a text."""
    if isinstance(value, Attribute):
        return value
    if isinstance(value, bool):
        return BoolAttr.from_bool(value)
    if isinstance(value, int):
        return int_attr(value)
    return float_attr(value) if isinstance(value, float) else StringAttr(value)


def plain(attribute: Attribute) -> Plain:
    """The Python value of an attribute that `attribute_of` makes."""
    if isinstance(attribute, FloatAttr):
        return attribute.value.data
    if isinstance(attribute, IntegerAttr):
        value = attribute.value.data
        return bool(value) if attribute.type == BoolAttr.from_bool(True).type else value
    if isinstance(attribute, StringAttr):
        return attribute.data
    raise VerifyException(f"property {attribute} is no number, text, or truth value")


def _compute_element(operands: Sequence[SSAValue]) -> ElementType | None:
    """The type of the first operand of floats."""
    return next((e for e in map(storage_of, operands) if e.is_float), None)


def _grouped(op: CompositeOp, values: Sequence[SSAValue]) -> Operands:
    """`values`, one for each operand that is there, as the definition of `op` groups them."""
    left = iter(values)
    groups: Operands = []
    for name, kind in op.get_irdl_definition().operands:
        present: object = getattr(op, name)
        if isinstance(kind, OptionalDef):
            groups.append(None if present is None else next(left))
        elif isinstance(kind, VariadicDef):
            count = len(present) if isinstance(present, Sequence) else 0
            groups.append([next(left) for _ in range(count)])
        else:
            groups.append(next(left))
    return groups


def _in_order(result: Value, given: frozenset[Value]) -> Iterator[Operation]:
    """The ops that compute `result` from the values `given`, operands first."""
    seen: set[Operation] = set()

    def visit(value: SSAValue) -> Iterator[Operation]:
        if not isinstance(value, OpResult) or value in given or value.op in seen:
            return
        seen.add(value.op)
        for operand in value.op.operands:
            yield from visit(operand)
        yield value.op

    yield from visit(result)


__all__ = [
    "CompositeOp",
    "Decomposition",
    "composite",
    "op_class_of",
    "signature_of",
]
