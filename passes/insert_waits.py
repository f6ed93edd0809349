"""The pass `insert-waits`: the order of the two engines."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import BytesAttr, DenseArrayBase, ModuleOp, i32
from xdsl.passes import ModulePass

from tilewright.backends.accesses import bdc_accesses, gdma_accesses
from tilewright.passes import actions
from tilewright.passes.kernels.commands import GDMA_OPS, kernels_of, lanes_of
from tilewright.passes.kernels.expansion import expand
from tilewright.passes.kernels.waits import derive_waits


@dataclass(frozen=True)
class InsertWaitsPass(ModulePass):
    """Say for each execution of a kernel's op which command of the other engine it waits for.

    ```mlir
    func.func @double(
        %x : !gdma.global<8x64xf32> {tpu.access = "read"},
        %y : !gdma.global<8x64xf32> {tpu.access = "write"}
    ) attributes {tpu.kernel, tpu.lanes = 64 : i64} {
      %zero = arith.constant 0 : index
      %t = gdma.load %x[%zero, %zero] {offsets = array<i32: 0>} :
        !gdma.global<8x64xf32> -> !bdc.local<8x64xf32>
      %s = bdc.binary add %t, %t {offsets = array<i32: 16384>} :
        !bdc.local<8x64xf32>, !bdc.local<8x64xf32> -> !bdc.local<8x64xf32>
      gdma.store %s, %y[%zero, %zero] : !bdc.local<8x64xf32>, !gdma.global<8x64xf32>
      func.return
    }
    ```

    -->

    ```mlir
    func.func @double(
        %x : !gdma.global<8x64xf32> {tpu.access = "read"},
        %y : !gdma.global<8x64xf32> {tpu.access = "write"}
    ) attributes {tpu.kernel, tpu.lanes = 64 : i64} {
      %zero = arith.constant 0 : index
      %t = gdma.load %x[%zero, %zero] {offsets = array<i32: 0>, waits = array<i32: 0>} :
        !gdma.global<8x64xf32> -> !bdc.local<8x64xf32>
      %s = bdc.binary add %t, %t {offsets = array<i32: 16384>, waits = array<i32: 1>} :
        !bdc.local<8x64xf32>, !bdc.local<8x64xf32> -> !bdc.local<8x64xf32>
      gdma.store %s, %y[%zero, %zero] {waits = array<i32: 1>} :
        !bdc.local<8x64xf32>, !gdma.global<8x64xf32>
      func.return
    }
    ```

    Requires offsets (`allocate-local-memory`). Guarantees that any timing of the two engines gives
    the result of the program as it stands, and that no wait can be left out. Waits follow from the
    bytes of local memory that commands touch; global memory is touched by one engine, in order. A
    step is `InsertWaits`, of one kernel.
    """

    name = "insert-waits"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for kernel in kernels_of(op):
            if actions.begin("InsertWaits", kernel):
                _insert_waits(kernel)
                actions.end((kernel,))


def _insert_waits(kernel: func.FuncOp) -> None:
    expansion, lanes = expand(kernel), lanes_of(kernel)
    gdma_waits, bdc_waits = derive_waits(
        expansion.on_gdma,
        gdma_accesses(expansion.gdma, lanes),
        bdc_accesses(expansion.bdc, lanes),
    )
    for number, op in enumerate(expansion.ops):
        if isinstance(op, GDMA_OPS):
            waits = gdma_waits[expansion.gdma_ops == number]
        else:
            waits = bdc_waits[expansion.bdc_ops == number]
        op.waits = DenseArrayBase(i32, BytesAttr(waits.astype("<i4").tobytes()))
