"""Builds the module of a plan: one function in which the pattern is present, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FileLineColLoc,
    FloatAttr,
    IntAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    UnitAttr,
    f32,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import IRDLOperation, VarOperandDef

from tilewright.compiler.workbench.rule_checking.plan import Plan, Source, Tensor
from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import tensor_type
from tilewright.dialects.tpu.base import TpuOp
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE
from tilewright.passes.lowerings.int8 import INT8
from tilewright.passes.rules.rule import OpPattern, Rule
from tilewright.passes.rules.scope import property_class

FUNCTION = "instance"
MARK = "check.mark"
"""An attribute on the root: what replaces it by an op of its kind keeps it."""


@dataclass
class Instance:
    """A module, the op in it at which the pattern ends, and all ops of the pattern."""

    module: ModuleOp
    root: Operation
    root_name: str
    pattern: tuple[Operation, ...]


def build(rule: Rule, plan: Plan) -> Instance:
    """The module of `plan`."""
    return _Builder(rule, plan).build()


class _Builder:
    def __init__(self, rule: Rule, plan: Plan) -> None:
        self.rule = rule
        self.plan = plan
        self.block = Block()
        self.values: dict[str, SSAValue] = {}
        self.names = 0

    def build(self) -> Instance:
        for name, source in self.plan.sources.items():
            self.values[name] = self.make_input(name, source)
        for name, other in self.plan.same.items():
            self.values[name] = self.values[other]
        ops = [self.make_op(index, op) for index, op in enumerate(self.rule.ops)]
        ops[self.rule.root].attributes[MARK] = StringAttr("root")
        returned = [
            self.values[name] for name, count in self.plan.extra_uses.items() for _ in range(count)
        ]
        self.block.add_op(ReturnOp(*returned))
        types = [argument.type for argument in self.block.args], [v.type for v in returned]
        function = FuncOp(FUNCTION, types, Region(self.block))
        root = ops[self.rule.root]
        module = ModuleOp([function])
        if self.plan.options.quant == INT8:
            module.attributes[CALIBRATION_ATTRIBUTE] = StringAttr("made-up ranges")
        return Instance(module, root, root.name, tuple(ops))

    def make_input(self, name: str, source: Source) -> SSAValue:
        tensor = self.plan.tensors[name]
        if source is Source.ARGUMENT:
            kind = tensor_type(tensor.shape, tensor.element)
            argument = self.block.insert_arg(kind, len(self.block.args))
            argument.name_hint = name if name.isidentifier() else None
            return argument
        is_tpu = self.is_tpu(name)
        key = name if name.isidentifier() else f"input{len(self.values)}"
        if source is Source.STATE:
            state = tpu.StateOp if is_tpu else top.StateOp
            return self.add(state(key, tensor.shape, tensor.element)).results[0]
        weight = self.add(self.weight(key, tensor, is_tpu=is_tpu)).results[0]
        if source is Source.COMPUTED:
            negated = tpu.NegOp if is_tpu else top.NegOp
            return self.add(negated(weight)).results[0]
        return weight

    def weight(self, key: str, tensor: Tensor, *, is_tpu: bool) -> Operation:
        if not is_tpu:
            return top.WeightOp(key, tensor.shape, tensor.element)
        form = "codes" if tensor.element.name == "i8" else "dense"
        return tpu.WeightOp(key, tensor.shape, tensor.element, form=form)

    def is_tpu(self, name: str) -> bool:
        """Whether the ops that take a value are of `tpu`."""
        users = [
            self.rule.ops[index].op
            for index, fields in enumerate(self.plan.operands)
            if any(name in names for names in fields.values())
        ]
        return any(issubclass(op, TpuOp) for op in users)

    def add(self, op: Operation) -> Operation:
        self.names += 1
        line = IntAttr(self.names)
        op.location = FileLineColLoc(StringAttr("instance"), line, IntAttr(1))
        self.block.add_op(op)
        return op

    def make_op(self, index: int, pattern: OpPattern) -> Operation:
        fields = self.plan.operands[index]
        operands = [
            [self.values[name] for name in fields[field]]
            for field, _ in pattern.op.get_irdl_definition().operands
        ]
        if index in self.plan.swapped:
            operands = operands[::-1]
        given = self.plan.attributes[index]
        properties = {
            name: attribute
            for name, value in given.items()
            if "." not in name and (attribute := as_attribute(pattern.op, name, value)) is not None
        }
        types = [
            tensor_type(self.plan.tensors[name].shape, self.plan.tensors[name].element)
            for name in pattern.results
        ]
        op = pattern.op.build(
            operands=list(_as_built(pattern.op, operands)),
            properties=properties,
            result_types=types,
        )
        for name, value in given.items():
            if "." in name and isinstance(value, str):
                op.attributes[name] = StringAttr(value)
        self.add(op)
        for name, result in zip(pattern.results, op.results, strict=True):
            self.values[name] = result
            result.name_hint = name if name.isidentifier() else None
        return op


def _as_built(
    op: type[IRDLOperation], operands: list[list[SSAValue]]
) -> Iterable[SSAValue | list[SSAValue]]:
    """Operands as `build` takes them: a list where there may be none or several."""
    for (_, kind), values in zip(op.get_irdl_definition().operands, operands, strict=True):
        yield values if isinstance(kind, VarOperandDef) else values[0]


def as_attribute(op: type[IRDLOperation], name: str, value: object) -> Attribute | None:
    """A property of `op` with a value as rules see it; None for one that is missing."""
    base = property_class(op.get_irdl_definition(), name)
    match value:
        case None:
            return None
        case Attribute():
            return value
        case bool():
            if base is UnitAttr:
                return UnitAttr() if value else None
            return BoolAttr.from_bool(value)
        case int() | float() if base is FloatAttr:
            return FloatAttr(float(value), f32)
        case int():
            return IntegerAttr(value, i64)
        case str() if base is not None and issubclass(base, EnumAttribute):
            return base(base.enum_type(value))
        case str():
            return StringAttr(value)
        case tuple():
            return DenseArrayBase.from_list(i64, [each for each in value if type(each) is int])
        case _:
            raise TypeError(f"{name} of {op.name} cannot be {value!r}")
