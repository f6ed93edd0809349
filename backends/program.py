"""What the machine runs: kernels (encoded command groups), launches of them, and the map of global
memory.

Nothing here refers to IR. The compiler fills these; the artifact stores them; the simulator
executes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilewright.backends.encoding.records import Records
from tilewright.dialects.element_types import ElementType

Access = Literal["read", "write", "update"]
BufferKind = Literal["weight", "state", "input", "output", "activation"]


@dataclass(frozen=True)
class KernelArgument:
    """A two-dimensional view of global memory that a kernel is launched with."""

    rows: int
    cols: int
    element: ElementType
    pitch_bytes: int
    access: Access

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the end of the last."""
        return (self.rows - 1) * self.pitch_bytes + self.cols * self.element.size_bytes


@dataclass(frozen=True)
class Kernel:
    """A command group: the records of both engines, and the arguments they address."""

    name: str
    op: str
    """The op it computes, e.g. `tpu.W8A16MatMul`."""
    arguments: tuple[KernelArgument, ...]
    gdma: Records
    bdc: Records
    local_bytes: int
    """Bytes of every lane's local memory that it uses."""


@dataclass(frozen=True)
class Launch:
    """A kernel with the global addresses of its arguments."""

    kernel: int
    """Index in `Program.kernels`."""
    addresses: tuple[int, ...]
    name: str
    """The op in the words of the source model, e.g.
    `transformer.encoder.layers.3.mlp.dense_h_to_4h`.
    """


@dataclass(frozen=True)
class Port:
    """An input or output of a function."""

    name: str
    shape: tuple[int, ...]
    element: ElementType
    address: int


@dataclass(frozen=True)
class Function:
    """An entry of the program, e.g. `prefill` or `decode`: launches in order."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Buffer:
    """A range of global memory."""

    name: str
    address: int
    size_bytes: int
    kind: BufferKind


@dataclass(frozen=True)
class Program:
    """All that a chip needs to run a model, weights aside."""

    chip: str
    kernels: tuple[Kernel, ...]
    functions: tuple[Function, ...]
    buffers: tuple[Buffer, ...]
