"""A builder of kernels: loops, index arithmetic and tile ops in the order in which they run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IndexType,
    StringAttr,
    UnitAttr,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from tilewright.backends.program import Access
from tilewright.dialects import bdc, gdma
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.dialects.quantization import CodeFormat

_INDEX = IndexType()


@dataclass
class Loop:
    """A loop under construction: induction variable, carried values and, once closed, results."""

    index: SSAValue
    carried: tuple[SSAValue, ...]
    results: tuple[SSAValue, ...] = ()
    yielded: tuple[SSAValue, ...] = field(default=())

    def carry(self, *values: SSAValue) -> None:
        """Hand `values` to the next iteration (or to `results` after the last)."""
        self.yielded = values


class KernelBuilder:
    """Builds one kernel function. `arguments` are its views of global memory with their access."""

    def __init__(self, arguments: Sequence[tuple[GlobalType, Access]]) -> None:
        self._accesses = [access for _, access in arguments]
        self._entry = Block(arg_types=[view for view, _ in arguments])
        self._block = self._entry
        self._constants: dict[int, SSAValue] = {}
        self._constant_count = 0

    @property
    def arguments(self) -> tuple[SSAValue, ...]:
        return tuple(self._entry.args)

    def insert(self, op: Operation) -> Operation:
        """Append `op` to the current loop body."""
        self._block.add_op(op)
        return op

    def constant(self, value: int) -> SSAValue:
        """An index constant, defined once at the head of the kernel."""
        if value not in self._constants:
            op = arith.ConstantOp.from_int_and_width(value, _INDEX)
            first = self._entry.first_op
            if self._constant_count == 0:
                if first is None:
                    self._entry.add_op(op)
                else:
                    self._entry.insert_op_before(op, first)
            else:
                last = next(iter(reversed(self._constants.values()))).owner
                assert isinstance(last, Operation)
                self._entry.insert_op_after(op, last)
            self._constant_count += 1
            self._constants[value] = op.result
        return self._constants[value]

    def index(self, value: int | SSAValue) -> SSAValue:
        """`value` as an index value."""
        return self.constant(value) if isinstance(value, int) else value

    def add(self, left: int | SSAValue, right: int | SSAValue) -> SSAValue:
        """`left + right`, folded where both are known."""
        if isinstance(left, int) and isinstance(right, int):
            return self.constant(left + right)
        if left == 0:
            return self.index(right)
        if right == 0:
            return self.index(left)
        op = arith.AddiOp(self.index(left), self.index(right))
        return self.insert(op).results[0]

    def mul(self, left: int | SSAValue, right: int | SSAValue) -> SSAValue:
        """`left * right`, folded where both are known."""
        if isinstance(left, int) and isinstance(right, int):
            return self.constant(left * right)
        if left == 1:
            return self.index(right)
        if right == 1:
            return self.index(left)
        op = arith.MuliOp(self.index(left), self.index(right))
        return self.insert(op).results[0]

    @contextmanager
    def loop(
        self,
        stop: int | SSAValue,
        step: int,
        *,
        start: int | SSAValue = 0,
        carried: Sequence[SSAValue] = (),
    ) -> Generator[Loop]:
        """`for index = start to stop step step`, with carried values."""
        bounds = [self.index(start), self.index(stop), self.constant(step)]
        outer = self._block
        body = Block(arg_types=[_INDEX, *(value.type for value in carried)])
        loop = Loop(body.args[0], tuple(body.args[1:]))
        self._block = body
        yield loop
        body.add_op(scf.YieldOp(*loop.yielded))
        self._block = outer
        op = scf.ForOp(bounds[0], bounds[1], bounds[2], list(carried), body)
        self.insert(op)
        loop.results = tuple(op.results)

    # Data movement.

    def load(
        self,
        view: SSAValue,
        row: int | SSAValue,
        col: int | SSAValue,
        tile: LocalType,
        *,
        limit: int | SSAValue | None = None,
    ) -> SSAValue:
        """`gdma.load view[row, col] upto limit`."""
        bound = None if limit is None else self.index(limit)
        op = gdma.LoadOp(view, self.index(row), self.index(col), tile, bound)
        return self.insert(op).results[0]

    def store(
        self, tile: SSAValue, view: SSAValue, row: int | SSAValue, col: int | SSAValue
    ) -> None:
        """`gdma.store tile, view[row, col]`."""
        self.insert(gdma.StoreOp(tile, view, self.index(row), self.index(col)))

    def gather(
        self,
        view: SSAValue,
        col: int | SSAValue,
        indices: SSAValue,
        at: int | SSAValue,
        tile: LocalType,
    ) -> SSAValue:
        """`gdma.gather view[col], indices[at]`."""
        op = gdma.GatherOp(view, self.index(col), indices, self.index(at), tile)
        return self.insert(op).results[0]

    def scatter(
        self,
        tile: SSAValue,
        view: SSAValue,
        col: int | SSAValue,
        indices: SSAValue,
        at: int | SSAValue,
    ) -> None:
        """`gdma.scatter tile, view[col], indices[at]`."""
        self.insert(gdma.ScatterOp(tile, view, self.index(col), indices, self.index(at)))

    # Compute.

    def fill(self, value: float, tile: LocalType) -> SSAValue:
        return self.insert(bdc.FillOp(value, tile)).results[0]

    def view(self, tile: SSAValue, col: int | SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.ViewOp(tile, self.index(col), result)).results[0]

    def mm(
        self, left: SSAValue, right: SSAValue, result: LocalType, *, transpose_right: bool
    ) -> SSAValue:
        op = bdc.MmOp(left, right, result, transpose_right=transpose_right)
        return self.insert(op).results[0]

    def mm_accumulate(
        self,
        sums: SSAValue,
        col: int | SSAValue,
        left: SSAValue,
        right: SSAValue,
        *,
        transpose_right: bool,
    ) -> SSAValue:
        op = bdc.MmAccumulateOp(sums, self.index(col), left, right, transpose_right=transpose_right)
        return self.insert(op).results[0]

    def dequant(
        self,
        codes: SSAValue,
        scale: SSAValue,
        result: LocalType,
        *,
        code_format: CodeFormat = CodeFormat.I8,
        zero: SSAValue | None = None,
    ) -> SSAValue:
        op = bdc.DequantOp(codes, scale, result, code_format=code_format, zero=zero)
        return self.insert(op).results[0]

    def quantize(self, x: SSAValue, scale: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.QuantizeOp(x, scale, result)).results[0]

    def dequantize(self, x: SSAValue, scale: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.DequantizeOp(x, scale, result)).results[0]

    def requant(self, sums: SSAValue, table: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.RequantOp(sums, table, result)).results[0]

    def unary(self, function: bdc.UnaryFunction, x: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.UnaryOp(function, x, result)).results[0]

    def binary(
        self, function: bdc.BinaryFunction, left: SSAValue, right: SSAValue, result: LocalType
    ) -> SSAValue:
        return self.insert(bdc.BinaryOp(function, left, right, result)).results[0]

    def scalar(
        self, function: bdc.BinaryFunction, x: SSAValue, value: float, result: LocalType
    ) -> SSAValue:
        return self.insert(bdc.ScalarOp(function, x, value, result)).results[0]

    def reduce(self, function: bdc.ReduceFunction, x: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.ReduceOp(function, x, result)).results[0]

    def transpose(self, x: SSAValue, result: LocalType) -> SSAValue:
        return self.insert(bdc.TransposeOp(x, result)).results[0]

    def rotate(
        self, x: SSAValue, result: LocalType, *, rotary_dim: int, interleaved: bool
    ) -> SSAValue:
        op = bdc.RotateOp(x, result, rotary_dim=rotary_dim, interleaved=interleaved)
        return self.insert(op).results[0]

    def finish(self, name: str) -> func.FuncOp:
        """The kernel function."""
        self._entry.add_op(func.ReturnOp())
        types: list[Attribute] = [argument.type for argument in self._entry.args]
        kernel = func.FuncOp(name, FunctionType.from_lists(types, []), Region(self._entry))
        kernel.attributes["tpu.kernel"] = UnitAttr()
        kernel.arg_attrs = ArrayAttr(
            [DictionaryAttr({"tpu.access": StringAttr(access)}) for access in self._accesses]
        )
        return kernel
