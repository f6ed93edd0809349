"""Ops of your own, defined by a function of the DSL.

    @dsl.custom_op("acme.MatMulGELU", quantized=("weight",))
    def matmul_gelu(x, weight, bias, *, approximate="tanh"):
        return dsl.gelu(dsl.linear(x, weight, bias), approximate=approximate)

makes the op classes of both levels, with their shapes, verifier, reference semantics and error
bound (`dialects.graph.composite`), and the lowering between them. Called in a traced function, it
appends the op. `matmul_gelu.tpu` and `matmul_gelu.w8a16` are what kernels are attached to; without
a kernel the op is computed as its function says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.compiler.dsl.tensor import Operand, Tensor, apply, wrap
from tilewright.compiler.dsl.tracer import shape_error, tracing
from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import (
    CompositeOp,
    Plain,
    op_class_of,
    signature_of,
)

_TPU_OPS = {op.name.removeprefix("tpu."): op for op in tpu.Tpu.operations}
Body = Callable[..., object]


@dataclass(frozen=True)
class _Traced:
    """What the function does, as `top` ops in `block`."""

    block: Block
    result: SSAValue


class CustomOp:
    """A function of the DSL as an op. `top`, `tpu` and (with quantized operands) `w8a16` are the
    classes of its ops; `ops` has those that there are, for a dialect.
    """

    def __init__(self, name: str, body: Body, quantized: Sequence[str]) -> None:
        self.body, self.name, self.quantized = body, name, tuple(quantized)
        self.operands, self.keywords = signature_of(body)
        for each in self.quantized:
            if self.operands.get(each, True):
                raise OptionError(f"{name} has no operand {each!r} that is always there")
        dialect, _, short = name.partition(".")
        self._traces: dict[tuple[object, ...], _Traced] = {}
        documentation = body.__doc__
        self.top = op_class_of(
            name, top.TopOp, self.operands, self.keywords, self._as_top(), documentation
        )
        self.tpu = op_class_of(
            f"{dialect}.tpu.{short}",
            tpu.TpuOp,
            self.operands,
            self.keywords,
            self._as_tpu(),
            documentation,
        )
        self.top.TWIN = self.tpu
        self._w8a16 = self._quantized_class(f"{dialect}.tpu.W8A16{short}", documentation)
        update_wrapper(self, body)

    def __call__(self, *operands: Operand | None, **keywords: Any) -> Tensor:
        """Append the op. Raises `UnsupportedError` at the user's line if operands do not fit."""
        unknown = sorted(set(keywords) - set(self.keywords))
        if unknown or len(operands) > len(self.operands):
            raise shape_error(
                f"{self.name} of {len(operands)} operands, {', '.join(unknown) or 'no keywords'}",
                hint=f"operands {', '.join(self.operands)}; keywords {', '.join(self.keywords)}",
            )
        return apply(self.top, *operands, **keywords)

    @property
    def w8a16(self) -> type[CompositeOp]:
        """The op on int8 codes: each quantized operand is followed by its scales `<name>_scale`."""
        if self._w8a16 is None:
            raise OptionError(
                f"{self.name} has no quantized operands",
                hint='@dsl.custom_op(name, quantized=("weight",))',
            )
        return self._w8a16

    @property
    def ops(self) -> list[type[Operation]]:
        """All classes of the op, as a `Dialect` lists them."""
        return [self.top, self.tpu, *([] if self._w8a16 is None else [self._w8a16])]

    def _quantized_class(self, name: str, documentation: str | None) -> type[CompositeOp] | None:
        if not self.quantized:
            return None
        operands: dict[str, bool] = {}
        for each, may_miss in self.operands.items():
            operands[each] = may_miss
            if each in self.quantized:
                operands[f"{each}_scale"] = False
        made = op_class_of(
            name, tpu.TpuOp, operands, self.keywords, self._as_w8a16(tuple(operands)), documentation
        )
        self.top.QUANTIZED_TWIN = made
        self.top.QUANTIZED = self.quantized
        return made

    def _as_top(self) -> Callable[..., Value]:
        def decompose(op: CompositeOp, *operands: Value | None) -> Value:
            traced = self._trace(op, operands)
            values = _bind(traced, operands)
            for each in traced.block.ops:
                each.clone(values)
            return values[traced.result]

        return decompose

    def _as_tpu(self) -> Callable[..., Value]:
        def decompose(op: CompositeOp, *operands: Value | None) -> Value:
            traced = self._trace(op, operands)
            return _OnTpu(_bind(traced, operands), {}).result(traced)

        return decompose

    def _as_w8a16(self, names: tuple[str, ...]) -> Callable[..., Value]:
        def decompose(op: CompositeOp, *operands: Value | None) -> Value:
            given = dict(zip(names, operands, strict=True))
            floats = [given[name] for name in self.operands]
            traced = self._trace(op, floats)
            scales = {
                codes: scale
                for name in self.quantized
                if (codes := given[name]) and (scale := given[f"{name}_scale"])
            }
            return _OnTpu(_bind(traced, floats), scales).result(traced)

        return decompose

    def _trace(self, op: CompositeOp, operands: Sequence[Value | None]) -> _Traced:
        """What the function does with operands of those shapes, in f32."""
        types = [None if value is None else _as_f32(value) for value in operands]
        key = (*types, *(op.properties[name] for name in self.keywords))
        if key not in self._traces:
            keywords = {name: op.parameter(name) for name in self.keywords}
            self._traces[key] = self._run(types, keywords)
        return self._traces[key]

    def _run(self, types: Sequence[Attribute | None], keywords: Mapping[str, Plain]) -> _Traced:
        named = zip(self.operands, types, strict=True)
        present = [(name, kind) for name, kind in named if kind is not None]
        with tracing() as tracer, tracer.function(present, None) as builder:
            left = iter(builder.block.args)
            tensors = [None if kind is None else wrap(next(left)) for kind in types]
            result = self.body(*tensors, **keywords)
        if not isinstance(result, Operand):
            raise shape_error(f"{self.name} returns {result!r}", hint="return one tensor")
        return _Traced(builder.block, result.value)


def custom_op(name: str, *, quantized: Sequence[str] = ()) -> Callable[[Body], CustomOp]:
    """Decorator: the op `name` ("dialect.Op"), of what a function of the DSL computes.

    The function's parameters are the operands (with the default None: may be left out), keywords
    are properties. `quantized` names weights `[N, K]` of `dsl.linear` that `w8a16` stores as int8
    codes. Raises `OptionError` for a function that does not say an op.
    """

    def decorate(body: Body) -> CustomOp:
        return CustomOp(name, body, quantized)

    return decorate


def _as_f32(value: Value) -> Attribute:
    """The type of a value in `top`: codes stand for the weights that they encode."""
    element = storage_of(value)
    in_top = F32 if element.is_float or element.name == "i8" else element
    return tensor_type(shape_of(value), in_top)


def _bind(traced: _Traced, operands: Sequence[Value | None]) -> dict[SSAValue, SSAValue]:
    present = [value for value in operands if value is not None]
    return dict(zip(traced.block.args, present, strict=True))


@dataclass
class _OnTpu:
    """The `top` ops of a trace as `tpu` ops in f32; operands are widened, which is exact.

    Matrix products take operands of one type as they are: their products are exact in any case.
    """

    values: dict[SSAValue, SSAValue]
    scales: dict[SSAValue, SSAValue]
    """The scales of operands that are codes."""

    def result(self, traced: _Traced) -> SSAValue:
        """The result's value, computed in f32."""
        for op in traced.block.ops:
            made = self._matmul(op) if isinstance(op, top.MatMulOp) else self._same(op)
            made.location = op.location
            self.values.update(zip(op.results, made.results, strict=True))
        return self.values[traced.result]

    def _matmul(self, op: top.MatMulOp) -> Operation:
        x, right = self.values[op.x], self.values[op.right]
        bias = None if op.bias is None else self.values[op.bias]
        if right in self.scales:
            if op.right_transpose is None:
                raise UnsupportedError(
                    "a quantized operand is multiplied as [K, N]", hint="dsl.linear takes [N, K]"
                )
            if bias is None or storage_of(bias) == storage_of(x):
                return tpu.W8A16MatMulOp(x, right, self.scales[right], bias, element=F32)
            product = tpu.W8A16MatMulOp(x, right, self.scales[right], element=F32)
            return tpu.AddOp(product.result, self._wide(bias))
        elements = {storage_of(each) for each in (x, right, bias) if each is not None}
        if len(elements) > 1:
            x, right = self._wide(x), self._wide(right)
            bias = None if bias is None else self._wide(bias)
        transposed = op.right_transpose is not None
        return tpu.MatMulOp(x, right, bias, right_transpose=transposed, element=F32)

    def _same(self, op: Operation) -> Operation:
        new_class = _twin(op)
        operands = [self._wide(self.values[each]) for each in op.operands]
        return new_class.create(
            operands=operands,
            result_types=[each.type for each in op.results],
            properties=dict(op.properties),
        )

    def _wide(self, value: SSAValue) -> SSAValue:
        element: ElementType = storage_of(value)
        if value in self.scales:
            raise UnsupportedError(
                "a quantized operand is used outside of dsl.linear",
                hint="codes only enter matrix products",
            )
        if not element.is_float or element == F32:
            return value
        return tpu.CastOp(value, F32).result


def _twin(op: Operation) -> type[Operation]:
    """The `tpu` op of the same meaning."""
    if isinstance(op, CompositeOp) and op.TWIN is not None:
        return op.TWIN
    short = op.name.removeprefix("top.")
    if short not in _TPU_OPS:
        raise UnsupportedError(
            f"{op.name} inside of a custom op", hint="use ops that compute, not weights or states"
        )
    return _TPU_OPS[short]
