"""Typed tensors: what DSL functions compute with.

A `Tensor` wraps a value of the function that is traced. `Parameter`, `State` and `Table` are
declared as attributes of a module; used as operands they become `top.Weight` and `top.State` ops.
All four are `Operand`s and share the operators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from types import EllipsisType
from typing import Any

import numpy as np
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from tilewright.compiler.dsl.tracer import Node, current, emit, shape_error
from tilewright.dialects import top
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.graph import GraphOp, shape_of, storage_of

Index = slice | EllipsisType
Number = int | float


class Operand(ABC):
    """What a DSL op takes: a shape, an element type, and a value in the function that is traced."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""

    @property
    @abstractmethod
    def element(self) -> ElementType:
        """The type of the elements."""

    @property
    @abstractmethod
    def value(self) -> SSAValue:
        """The value in the function that is traced now."""

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __add__(self, other: Operand | Number) -> Tensor:
        return add(self, other)

    def __radd__(self, other: Number) -> Tensor:
        return add(self, other)

    def __sub__(self, other: Operand | Number) -> Tensor:
        return subtract(self, other)

    def __rsub__(self, other: Number) -> Tensor:
        return add(-self, other)

    def __mul__(self, other: Operand | Number) -> Tensor:
        return multiply(self, other)

    def __rmul__(self, other: Number) -> Tensor:
        return multiply(self, other)

    def __truediv__(self, other: Operand | Number) -> Tensor:
        return divide(self, other)

    def __rtruediv__(self, other: Number) -> Tensor:
        return multiply(apply(top.ReciprocalOp, self), other)

    def __neg__(self) -> Tensor:
        return apply(top.NegOp, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return matmul(self, other)

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        return slice_tensor(self, index if isinstance(index, tuple) else (index,))

    def reshape(self, *shape: int) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return reshape(self, shape)

    def permute(self, *order: int) -> Tensor:
        """Axis `i` of the result is axis `order[i]`."""
        return permute(self, order)


class Tensor(Operand):
    """A value of the function that is traced."""

    def __init__(self, value: SSAValue, shape: tuple[int, ...], element: ElementType) -> None:
        self._value = value
        self._shape = shape
        self._element = element

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def element(self) -> ElementType:
        return self._element

    @property
    def value(self) -> SSAValue:
        return self._value

    def named(self, name: str) -> Tensor:
        """This tensor, called `%name` in the IR; the name of a function's output if it is one."""
        self._value.name_hint = name
        return self

    def __repr__(self) -> str:
        return f"Tensor({describe(self)})"


class Leaf(Node, Operand):
    """An operand with a key, declared as an attribute of a module. Read once a function."""

    def __init__(self, *shape: int) -> None:
        if not shape or any(size < 1 for size in shape):
            raise shape_error(f"{type(self).__name__} of shape {list(shape)}: sizes start at 1")
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def element(self) -> ElementType:
        return F32

    @property
    def value(self) -> SSAValue:
        builder = current().builder
        known = builder.leaves.get(id(self))
        if known is not None:
            return known
        key = self.key(builder.base)
        op = self.make_op(key)
        builder.leaves[id(self)] = value = emit(op, key)[0]
        return value

    def make_op(self, key: str) -> Operation:
        """The op that reads it."""
        return top.WeightOp(key, self.shape)


class Parameter(Leaf):
    """A weight of the checkpoint: `self.weight = dsl.Parameter(out_features, in_features)`."""


class State(Leaf):
    """A tensor that lives between calls, such as a KV cache. It holds f32 in `top`."""

    def make_op(self, key: str) -> Operation:
        return top.StateOp(key, self.shape)


class Table(Leaf):
    """A weight that is computed rather than read from the checkpoint, e.g. the cosines of RoPE.

    `compute` gives a float32 array of `shape`; it runs when the table's values are asked for, not
    during the trace.
    """

    def __init__(self, compute: Callable[[], np.ndarray[Any, Any]], *shape: int) -> None:
        super().__init__(*shape)
        self.compute = compute


def describe(x: Operand) -> str:
    """`f32[4, 8]`."""
    return f"{x.element.name}{list(x.shape)}"


def wrap(value: SSAValue) -> Tensor:
    """The tensor of an IR value."""
    return Tensor(value, shape_of(value), storage_of(value))


def apply(
    make: Callable[..., GraphOp],
    *operands: Operand | None,
    role: str | None = None,
    **attributes: Any,
) -> Tensor:
    """Append the op that `make` builds of the operands' values, and wrap its result.

    `role` becomes the discardable attribute `top.role`. Raises `UnsupportedError` at the user's
    line if the operands do not go together.
    """
    values = [operand.value if operand is not None else None for operand in operands]
    try:
        op = make(*values, **attributes)
        op.verify_()
    except VerifyException as error:
        listed = ", ".join(describe(operand) for operand in operands if operand is not None)
        name = str(getattr(make, "name", "an op"))
        raise shape_error(
            f"{name} of {listed}", why=str(error).removeprefix(f"{name}: ")
        ) from error
    if role is not None:
        op.attributes["top.role"] = StringAttr(role)
    return wrap(emit(op)[0])


def _binary(
    make: Callable[..., GraphOp], a: Operand, b: Operand, *, commutes: bool = False
) -> Tensor:
    """`b` broadcasts to `a`, or `a` to `b` if that makes no difference."""
    smaller = (prod(a.shape), a.rank) < (prod(b.shape), b.rank)
    return apply(make, b, a) if commutes and smaller else apply(make, a, b)


def add(a: Operand, b: Operand | Number) -> Tensor:
    """`a + b`. A number is added to every element."""
    if not isinstance(b, Operand):
        return apply(top.AddConstOp, a, value=float(b))
    return _binary(top.AddOp, a, b, commutes=True)


def subtract(a: Operand, b: Operand | Number) -> Tensor:
    """`a - b`; `b` broadcasts to `a`."""
    if not isinstance(b, Operand):
        return apply(top.AddConstOp, a, value=-float(b))
    return _binary(top.SubOp, a, b)


def multiply(a: Operand, b: Operand | Number) -> Tensor:
    """`a * b`, element by element."""
    if not isinstance(b, Operand):
        return apply(top.MulConstOp, a, value=float(b))
    return _binary(top.MulOp, a, b, commutes=True)


def divide(a: Operand, b: Operand | Number) -> Tensor:
    """`a / b`; `b` broadcasts to `a`. Division by a number multiplies with its reciprocal."""
    if not isinstance(b, Operand):
        if b == 0:
            raise shape_error("division by the number 0")
        return apply(top.MulConstOp, a, value=1.0 / b)
    return _binary(top.DivOp, a, b)


def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of `a` and `b`, element by element."""
    return _binary(top.MaxOp, a, b, commutes=True)


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of `a` and `b`, element by element."""
    return _binary(top.MinOp, a, b, commutes=True)


def matmul(x: Operand, right: Operand, bias: Operand | None = None) -> Tensor:
    """`x @ right + bias`: `x` is `[..., K]`, `right` `[K, N]`, `bias` `[N]`. See `batch_matmul` for
    stacks of matrices.
    """
    return apply(top.MatMulOp, x, right, bias)


def reshape(x: Operand, shape: Sequence[int]) -> Tensor:
    """The same elements, in row-major order, in another shape; one size may be -1."""
    sizes = list(shape)
    rest = prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and rest > 0:
        sizes[sizes.index(-1)] = prod(x.shape) // rest
    if any(size < 1 for size in sizes):
        raise shape_error(f"reshape of {describe(x)} to {list(shape)}")
    return apply(top.ReshapeOp, x, shape=sizes)


def permute(x: Operand, order: Sequence[int]) -> Tensor:
    """Axis `i` of the result is axis `order[i]` of `x`."""
    return apply(top.PermuteOp, x, order=order)


def slice_tensor(x: Operand, index: tuple[Index, ...]) -> Tensor:
    """`x[index]`: ranges with step 1, with Python's meaning of what is left out or negative."""
    ranges = [item for item in index if item is not Ellipsis]
    if len(index) - len(ranges) > 1 or len(ranges) > x.rank:
        raise shape_error(f"{len(ranges)} indices into {describe(x)}")
    missing = [slice(None)] * (x.rank - len(ranges))
    at = index.index(Ellipsis) if Ellipsis in index else len(ranges)
    offsets: list[int] = []
    sizes: list[int] = []
    for size, item in zip(x.shape, [*ranges[:at], *missing, *ranges[at:]], strict=True):
        if not isinstance(item, slice) or item.step not in (None, 1):
            raise shape_error(
                f"index {item} into {describe(x)}",
                hint="only ranges with step 1, such as x[:, 2:8]",
            )
        start, stop, _ = item.indices(size)
        if (item.stop or 0) > size:
            raise shape_error(f"index {item.start}:{item.stop} into {describe(x)} is out of range")
        if stop <= start:
            raise shape_error(f"index {item.start}:{item.stop} into {describe(x)} selects nothing")
        offsets.append(start)
        sizes.append(stop - start)
    if tuple(sizes) == x.shape:
        return wrap(x.value)
    return apply(top.SliceOp, x, offsets=offsets, sizes=sizes)
