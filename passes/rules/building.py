"""Makes what replaces a match: new ops, not yet in any block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import (
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.element_types import element_of, tensor_type
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.passes.rules.constructors import takes_type
from tilewright.passes.rules.expressions import Evaluate, call_user, compile_expression
from tilewright.passes.rules.rule import BuilderCall, ExplicitType, Making, OpBuild, Rule, TypeOf
from tilewright.passes.rules.values import NoValueError

Builders = Mapping[str, Callable[[SSAValue], SSAValue]]
"""Functions behind `codes` and `scale`, which whoever applies lowerings gives."""


@dataclass
class Built:
    """New ops in the order of their making, and the values that replace the root's results."""

    ops: list[Operation] = field(default_factory=list[Operation])
    results: tuple[SSAValue, ...] = ()

    def discard(self) -> None:
        """Drop the ops, so that nothing says that they use its value."""
        for op in reversed(self.ops):
            op.erase(safe_erase=False)


_Step = Callable[[dict[str, object], Built, Builders], None]


class Builder:
    """Makes the replacement of one rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._steps = [
            _op_step(rule, step) if isinstance(step, OpBuild) else _builder_step(rule, step)
            for step in rule.replacement.steps
        ]

    def build(self, names: Mapping[str, object], builders: Builders | None = None) -> Built | None:
        """What replaces the root, with `names` as a match has bound them.

        None where a new op cannot be made of these values: the rule does not apply then. For a
        lowering the values in `names` are the converted ones, and `builders` has `codes` and
        `scale`.
        """
        built = Built()
        bound = dict(names)
        try:
            for step in self._steps:
                step(bound, built, builders or {})
        except (NoValueError, VerifyException, UnsupportedError):
            built.discard()
            return None
        except Exception:
            built.discard()
            raise
        results = [bound[name] for name in self._rule.replacement.results]
        built.results = tuple(value for value in results if isinstance(value, SSAValue))
        if len(built.results) != len(results):
            built.discard()
            return None
        return built


def _op_step(rule: Rule, step: OpBuild) -> _Step:
    attributes = [(name, compile_expression(rule.source, value)) for name, value in step.attributes]
    result_type = _result_type(rule, step)
    inferred = takes_type(step.op) if result_type is not None else ()

    def run(names: dict[str, object], built: Built, builders: Builders) -> None:
        operands = {
            each.keyword: tuple(names[name] for name in each.value)
            if isinstance(each.value, tuple)
            else names[each.value]
            if each.value is not None
            else None
            for each in step.operands
        }
        values = {name: evaluate(names) for name, evaluate in attributes}
        marks = {name: values.pop(name) for name in list(values) if "." in name}
        wanted = None if result_type is None else result_type(names)
        for name in inferred:
            if name not in values and wanted is not None:
                values[name] = _from_type(name, wanted)
        try:
            op = _make(step.op, step, operands, values, wanted)
        except (VerifyException, UnsupportedError, NoValueError):
            raise
        except Exception as error:
            # A constructor may raise anything on an argument of a wrong kind.
            raise rule.source.error(f"{step.op.name} cannot be made: {error}", step.span) from error
        built.ops.append(op)
        if wanted is not None and any(result.type != wanted for result in op.results):
            raise NoValueError
        for name, value in marks.items():
            op.attributes[name] = _as_attribute(value)
        if len(op.results) == 1 and len(step.results) == 1:
            names[step.results[0]] = op.results[0]
        else:
            names.update(zip(step.results, op.results, strict=True))

    return run


def _make(
    make: Callable[..., Operation],
    step: OpBuild,
    operands: Mapping[str, object],
    values: Mapping[str, object],
    wanted: TensorType[Attribute] | None,
) -> Operation:
    match step.making:
        case Making.BY_NAME:
            return make(**operands, **values)
        case Making.IN_ORDER:
            return make(*operands.values(), **values)
        case Making.GENERIC:
            groups = [
                [value] if isinstance(value, SSAValue) else value or ()
                for value in operands.values()
            ]
            properties = {name: _as_attribute(value) for name, value in values.items()}
            result_types = [wanted] * len(step.results)
            return make(operands=groups, properties=properties, result_types=result_types)


def _as_attribute(value: object) -> Attribute:
    """A Python value as an attribute: f32, i64, text, unit, or an array of i64."""
    match value:
        case Attribute():
            return value
        case True:
            return UnitAttr()
        case float():
            return FloatAttr(value, f32)
        case int():
            return IntegerAttr(value, i64)
        case str():
            return StringAttr(value)
        case tuple():
            return DenseArrayBase.from_list(i64, [each for each in value if type(each) is int])
        case _:
            raise NoValueError


def _result_type(
    rule: Rule, step: OpBuild
) -> Callable[[Mapping[str, object]], TensorType[Attribute]] | None:
    match step.result_type:
        case None:
            return None
        case TypeOf(name):
            return lambda names: _type_of(names[name])
        case ExplicitType(element, dims):
            sizes = [compile_expression(rule.source, dim) for dim in dims]
            return lambda names: tensor_type(tuple(_size(size, names) for size in sizes), element)


def _size(evaluate: Evaluate, names: Mapping[str, object]) -> int:
    size = evaluate(names)
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if type(size) is not int:
        raise NoValueError
    return size


def _type_of(value: object) -> TensorType[Attribute]:
    if not isinstance(value, SSAValue) or not isinstance(value.type, TensorType):
        raise NoValueError
    return tensor_type(shape_of(value), storage_of(value))


def _from_type(parameter: str, wanted: TensorType[Attribute]) -> object:
    """What a constructor takes that follows from the type of its result."""
    match parameter:
        case "shape" | "sizes":
            return wanted.get_shape()
        case "element":
            return element_of(wanted)
        case "result_types":
            return [wanted]
        case _:
            return wanted


def _builder_step(rule: Rule, step: BuilderCall) -> _Step:
    call = step.call
    name = call.function.text
    arguments = [compile_expression(rule.source, argument) for argument in call.arguments]

    def run(names: dict[str, object], built: Built, builders: Builders) -> None:
        values = [argument(names) for argument in arguments]
        target = builders.get(name) if call.target is None else call.target
        if target is None:
            raise rule.source.error(f"{name} is not there in this pass", call.span)
        made = call_user(rule.source, name, call.span, target, values)
        if made is None:
            raise NoValueError
        results = _results_of(made)
        for op in _unattached([*_ops_of(made), *(value.owner for value in results)], built.ops):
            built.ops.append(op)
        if len(results) != len(step.results):
            raise rule.source.error(
                f"{name} gives {len(results)} values, {len(step.results)} are needed", call.span
            )
        names.update(zip(step.results, results, strict=True))

    return run


def _ops_of(made: object) -> list[Operation]:
    items: Iterable[object] = made if isinstance(made, Sequence) else [made]
    return [item for item in items if isinstance(item, Operation)]


def _results_of(made: object) -> list[SSAValue]:
    """Values as a function gives them: a value, several, an op, or ops of which the last counts."""
    if isinstance(made, Operation):
        return list(made.results)
    if isinstance(made, SSAValue):
        return [made]
    ops = _ops_of(made)
    if ops:
        return list(ops[-1].results)
    return (
        [item for item in made if isinstance(item, SSAValue)] if isinstance(made, Sequence) else []
    )


def _unattached(roots: Sequence[object], known: Sequence[Operation]) -> list[Operation]:
    """The ops in no block that `roots` are, and that make their operands, each after those."""
    found: list[Operation] = []

    def visit(owner: object) -> None:
        if not isinstance(owner, Operation) or owner.parent is not None:
            return
        if any(owner is op for op in (*found, *known)):
            return
        for operand in owner.operands:
            visit(operand.owner)
        found.append(owner)

    for root in roots:
        visit(root)
    return found
