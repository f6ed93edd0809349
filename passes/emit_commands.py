"""The pass `emit-commands`: kernels as encoded records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.backends.accesses import bdc_accesses, gdma_accesses
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.errors import IRError
from tilewright.dialects.memory_types import VECTOR_BYTES, align_up
from tilewright.dialects.scopes import where_of
from tilewright.passes import actions
from tilewright.passes.kernels.commands import CommandOp, kernels_of, lanes_of
from tilewright.passes.kernels.expansion import Expansion, Integers, expand
from tilewright.passes.kernels.program import arguments_of, op_of


@dataclass(frozen=True)
class EmitCommandsPass(ModulePass):
    """Replace each kernel by the encoded records of its commands, its loops run through.

    ```mlir
    func.func @zeros(%y : !gdma.global<8x64xf32> {tpu.access = "write"})
        attributes {tpu.kernel, tpu.lanes = 64 : i64} {
      %zero = arith.constant 0 : index
      %t = bdc.fill {value = 0.000000e+00 : f32, offsets = array<i32: 0>, waits = array<i32: 0>} :
        !bdc.local<8x64xf32>
      gdma.store %t, %y[%zero, %zero] {waits = array<i32: 1>} :
        !bdc.local<8x64xf32>, !gdma.global<8x64xf32>
      func.return
    }
    ```

    --> (records shortened)

    ```mlir
    bdc.program @zeros {op = "zeros",
      arguments = [#bdc.argument<write, !gdma.global<8x64xf32>>],
      gdma = #bdc.records<"02000000">, bdc = #bdc.records<"07000000">, local_bytes = 256 : i64}
    ```

    Requires offsets (`allocate-local-memory`) and waits (`insert-waits`). Guarantees a program of
    the kernel's name and location; ids count from 1 on each engine, `local_bytes` is the end of the
    highest tile. The program's `op` is the kernel's attribute `tpu.op`, or else its name. A step is
    `EncodeKernel`.
    """

    name = "emit-commands"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for kernel in kernels_of(op):
            if actions.begin("EncodeKernel", kernel):
                program = _program(kernel)
                program.location = kernel.location
                Rewriter.replace_op(kernel, program, [])
                actions.end((program,))


def _program(kernel: func.FuncOp) -> ProgramOp:
    expansion, lanes = expand(kernel), lanes_of(kernel)
    for records, waits in (
        (expansion.gdma, _waits(expansion, expansion.gdma_ops)),
        (expansion.bdc, _waits(expansion, expansion.bdc_ops)),
    ):
        records["id"] = np.arange(1, len(records) + 1)
        records["wait"] = waits
    accesses = (gdma_accesses(expansion.gdma, lanes), bdc_accesses(expansion.bdc, lanes))
    local_bytes = max(int(engine.stop.max(initial=0)) for engine in accesses)
    return ProgramOp(
        kernel.sym_name.data,
        op_of(kernel),
        arguments_of(kernel),
        gdma=expansion.gdma.tobytes(),
        bdc=expansion.bdc.tobytes(),
        local_bytes=align_up(local_bytes, VECTOR_BYTES),
    )


def _waits(expansion: Expansion, op_of_command: Integers) -> Integers:
    """The waits of one engine's commands, from those of its ops."""
    waits = np.zeros(len(op_of_command), np.int64)
    for number in np.unique(op_of_command).tolist():
        mine = op_of_command == number
        waits[mine] = _waits_of(expansion.ops[number], int(np.count_nonzero(mine)))
    return waits


def _waits_of(op: CommandOp, executions: int) -> Sequence[int] | npt.NDArray[np.int32]:
    if op.waits is None:
        raise IRError(f"{op.name} has no waits: run insert-waits", where=where_of(op))
    waits = np.frombuffer(op.waits.data.data, "<i4")
    if len(waits) != executions:
        raise IRError(
            f"{op.name} has {len(waits)} waits and is executed {executions} times",
            where=where_of(op),
            hint="run insert-waits last before emit-commands",
        )
    return waits
