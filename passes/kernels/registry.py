"""Which function builds the kernel of which op, and what a builder sees of the op's tensors.

A builder is a function `build(op, operands, results, chip) -> func.FuncOp`, registered for an op:

    @register(tpu.SoftmaxOp)
    def build(op, operands, results, chip): ...

The kernel has one argument for each present operand and then one for each result, in order. An op
that writes its result in place (`tpu.CacheUpdate`) has no argument for that result: it is the
operand's. `operands` and `results` are the tensors as `View`s in the same order. An argument may
be any two-dimensional view over the same bytes (`View.reshaped`), say `[1, H * D]` as `[H, D]`.
The name of the function does not matter: `tile-for-local-memory` sets it.

Kernels are shared between equal ops, so a builder looks at nothing but the op's attributes, the
views and the chip.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects import func
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import plugins
from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import InternalError, UnsupportedError
from tilewright.dialects.memory_types import GlobalType

FAMILIES: tuple[str, ...] = (
    "attention",
    "batch_matmul",
    "elementwise",
    "gated",
    "gather",
    "int8",
    "layout",
    "matmul",
    "normalization",
    "reduction",
    "rope",
    "softmax",
)
"""The modules of this package that register builders; imported, like those of plugins, when the
first kernel is built."""


@dataclass(frozen=True)
class View:
    """A tensor in global memory: its rows (all leading dimensions) lie `pitch_bytes` apart."""

    shape: tuple[int, ...]
    element: ElementType
    pitch_bytes: int

    @staticmethod
    def of(shape: Sequence[int], element: ElementType, pitch_bytes: int | None = None) -> View:
        """A view of `shape`. Rows are contiguous without a pitch, and where there is only one."""
        contiguous = (shape[-1] if shape else 1) * element.size_bytes
        single = math.prod(shape[:-1]) == 1
        pitch = contiguous if pitch_bytes is None or single else pitch_bytes
        return View(tuple(shape), element, pitch)

    @staticmethod
    def of_type(tensor: Attribute) -> View:
        """The contiguous view of a tensor type."""
        if not isinstance(tensor, TensorType):
            raise InternalError(f"{tensor} is not a tensor type")
        return View.of(tensor.get_shape(), element_of(tensor))

    @property
    def rows(self) -> int:
        """The product of the leading dimensions."""
        return math.prod(self.shape[:-1])

    @property
    def cols(self) -> int:
        """The last dimension."""
        return self.shape[-1] if self.shape else 1

    @property
    def is_contiguous(self) -> bool:
        return self.rows == 1 or self.pitch_bytes == self.cols * self.element.size_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the elements, gaps between rows left out."""
        return self.rows * self.cols * self.element.size_bytes

    def global_type(self) -> GlobalType:
        """The type of a kernel argument: `rows` x `cols`."""
        return GlobalType.of(self.rows, self.cols, self.element, self.pitch_bytes)

    def reshaped(self, rows: int, cols: int) -> GlobalType:
        """The same elements as `rows` x `cols`; for another width the view must be contiguous."""
        if (rows, cols) == (self.rows, self.cols):
            return self.global_type()
        if rows * cols != self.rows * self.cols or not self.is_contiguous:
            raise InternalError(f"a kernel views {self} as {rows}x{cols}")
        return GlobalType.of(rows, cols, self.element)


KernelBuild: TypeAlias = Callable[[Operation, Sequence[View], Sequence[View], Chip], func.FuncOp]

_BUILDERS: dict[str, KernelBuild] = {}


def register(*op_classes: type[Operation]) -> Callable[[KernelBuild], KernelBuild]:
    """Register the decorated function as the builder of `op_classes`."""

    def decorate(build: KernelBuild) -> KernelBuild:
        for op_class in op_classes:
            _BUILDERS[op_class.name] = build
        return build

    return decorate


@contextmanager
def temporarily() -> Generator[None]:
    """What is registered inside is gone afterwards."""
    _import_families()
    before = dict(_BUILDERS)
    try:
        yield
    finally:
        _BUILDERS.clear()
        _BUILDERS.update(before)


def registered_ops() -> tuple[str, ...]:
    """The names of all ops that have a builder, sorted."""
    _import_families()
    return tuple(sorted(_BUILDERS))


def has_kernel(op: Operation) -> bool:
    """Whether there is a builder for ops of the class of `op`."""
    _import_families()
    return op.name in _BUILDERS


def build_kernel(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """The kernel of `op` on those views. Raises `UnsupportedError` where there is no builder."""
    _import_families()
    if op.name not in _BUILDERS:
        raise UnsupportedError(
            f"{op.name} has no kernel", hint=f"ops with kernels: {', '.join(sorted(_BUILDERS))}"
        )
    return _BUILDERS[op.name](op, operands, results, chip)


def _import_families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"tilewright.passes.kernels.{family}")
    plugins.load_modules()
