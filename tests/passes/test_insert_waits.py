"""Where `insert-waits` puts waits; that they suffice and are minimal is in `test_lowering.py`."""

from __future__ import annotations

import pytest
from tests.passes.lowering import KERNELS, elementwise, lower
from xdsl.ir import Operation

from tilewright.dialects.context import make_context
from tilewright.dialects.errors import IRError
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.kernels.commands import COMMAND_OPS, kernels_of
from tilewright.passes.kernels.expansion import expand

PASSES = (AllocateLocalMemoryPass(), InsertWaitsPass())


def waits_of(op: Operation) -> tuple[int, ...]:
    waits = getattr(op, "waits", None)
    assert waits is not None, op.name
    return tuple(waits.get_values())


def test_a_plain_loop():
    (kernel,) = kernels_of(lower(elementwise(), PASSES))
    waits = {op.name: waits_of(op) for op in kernel.walk() if isinstance(op, COMMAND_OPS)}
    # Four iterations; GDMA: load 1, store 2, load 3, ...; BDC: scalar 1, unary 2, scalar 3, ...
    assert waits == {
        # The one buffer is free again since the store waited for the command after its reader.
        "gdma.load": (0, 0, 0, 0),
        "bdc.scalar": (1, 3, 5, 7),
        # A third tile takes the buffer of the first, whose store a later load has proved finished.
        "bdc.unary": (0, 0, 0, 0),
        "gdma.store": (2, 4, 6, 8),
    }


@pytest.mark.parametrize("name", KERNELS)
def test_one_wait_for_each_execution(name: str):
    (kernel,) = kernels_of(lower(KERNELS[name](), PASSES))
    expansion = expand(kernel)
    for number, op in enumerate(expansion.ops):
        assert len(waits_of(op)) == int((expansion.order == number).sum())


def test_offsets_are_required():
    module = lower(elementwise(), [])
    with pytest.raises(IRError, match=r"gdma\.load has no offsets"):
        InsertWaitsPass().apply(make_context(), module)


def test_lanes_are_required():
    module = lower(elementwise(), [AllocateLocalMemoryPass()])
    del kernels_of(module)[0].attributes["tpu.lanes"]
    with pytest.raises(IRError, match="does not say for how many lanes"):
        InsertWaitsPass().apply(make_context(), module)
