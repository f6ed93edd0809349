"""The pass `double-buffer`: loads of the next iteration run beside the compute of this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, func, scf
from xdsl.dialects.builtin import IndexType, ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from tilewright.dialects import gdma
from tilewright.passes import actions
from tilewright.passes.kernels.commands import LOADS, STORES, kernels_of
from tilewright.passes.kernels.expansion import INDEX_OPS
from tilewright.passes.kernels.index_arithmetic import (
    Constants,
    copy,
    folded,
    is_known_ahead,
    is_movable,
    known,
)

_INDEX = IndexType()


@dataclass(frozen=True)
class DoubleBufferPass(ModulePass):
    """Software-pipeline the loops of a kernel: load ahead, from the innermost loop outwards.

    ```mlir
    func.func @double(
        %x : !gdma.global<256x64xf32> {tpu.access = "read"},
        %y : !gdma.global<256x64xf32> {tpu.access = "write"}
    ) attributes {tpu.kernel} {
      %zero = arith.constant 0 : index
      %step = arith.constant 64 : index
      %stop = arith.constant 256 : index
      scf.for %i = %zero to %stop step %step {
        %t = gdma.load %x[%i, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
        %s = bdc.binary add %t, %t :
          !bdc.local<64x64xf32>, !bdc.local<64x64xf32> -> !bdc.local<64x64xf32>
        gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf32>, !gdma.global<256x64xf32>
      }
      func.return
    }
    ```

    -->

    ```mlir
    func.func @double(
        %x : !gdma.global<256x64xf32> {tpu.access = "read"},
        %y : !gdma.global<256x64xf32> {tpu.access = "write"}
    ) attributes {tpu.kernel} {
      %zero = arith.constant 0 : index
      %step = arith.constant 64 : index
      %last = arith.constant 192 : index
      %first = gdma.load %x[%zero, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
      %end = scf.for %i = %zero to %last step %step
          iter_args(%t = %first) -> (!bdc.local<64x64xf32>) {
        %j = arith.addi %i, %step : index
        %next = gdma.load %x[%j, %zero] : !gdma.global<256x64xf32> -> !bdc.local<64x64xf32>
        %s = bdc.binary add %t, %t :
          !bdc.local<64x64xf32>, !bdc.local<64x64xf32> -> !bdc.local<64x64xf32>
        gdma.store %s, %y[%i, %zero] : !bdc.local<64x64xf32>, !gdma.global<256x64xf32>
        scf.yield %next : !bdc.local<64x64xf32>
      }
      %r = bdc.binary add %end, %end :
        !bdc.local<64x64xf32>, !bdc.local<64x64xf32> -> !bdc.local<64x64xf32>
      gdma.store %r, %y[%last, %zero] : !bdc.local<64x64xf32>, !gdma.global<256x64xf32>
      func.return
    }
    ```

    In a loop around other loops the next loads go behind the last inner loop that loads, so that
    they come after its loads in the queue; the first loads of an inner loop, which now stand in
    front of it, move like all others. A loop that runs once is replaced by its body. A loop whose
    bounds are not constant stays as it is, and so does the load of an argument that the kernel also
    stores to.

    Requires kernels. Guarantees a program with the same meaning, executed in the order in which it
    stands. It is optional: without it nothing overlaps. Steps are `InlineLoop`, of a loop that runs
    once or never, and `PipelineLoop`.
    """

    name = "double-buffer"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for kernel in kernels_of(op):
            _Pipeliner(kernel).run()


class _Pipeliner:
    """Rewrites one kernel."""

    def __init__(self, kernel: func.FuncOp) -> None:
        self.kernel = kernel
        self.constants = Constants(kernel)
        self.written = {op.target for op in kernel.walk() if isinstance(op, STORES)}

    def run(self) -> None:
        self._inline_single(self.kernel.body.block)
        self._pipeline_all(self.kernel.body.block)
        _erase_unused(self.kernel)

    def _inline_single(self, block: Block) -> None:
        """Replace loops that run once by their body, and drop those that never do."""
        op = block.first_op
        while op is not None:
            following = op.next_op
            if isinstance(op, scf.ForOp):
                iterations = _iterations(op)
                many = iterations is None or len(iterations) > 1
                if many or not actions.begin("InlineLoop", op):
                    self._inline_single(op.body.block)
                elif iterations:
                    before = op.prev_op
                    self._inline(op, iterations[0], list(op.iter_args))
                    following = block.first_op if before is None else before.next_op
                    actions.end()
                else:
                    Rewriter.replace_op(op, [], list(op.iter_args))
                    actions.end()
            op = following

    def _pipeline_all(self, block: Block) -> None:
        for op in list(block.ops):
            if isinstance(op, scf.ForOp):
                self._pipeline_all(op.body.block)
                iterations = _iterations(op)
                loads = [inner for inner in op.body.block.ops if self._can_run_ahead(inner)]
                if not iterations or len(iterations) < 2 or not loads:
                    continue
                if actions.begin("PipelineLoop", op):
                    actions.end((self._pipeline(op, loads, iterations[0], iterations[-1]),))

    def _can_run_ahead(self, op: Operation) -> bool:
        """Whether `op` is a load whose address is known an iteration before."""
        if not isinstance(op, LOADS):
            return False
        read = {op.source, op.indices} if isinstance(op, gdma.GatherOp) else {op.source}
        body = op.parent_block()
        assert body is not None
        return not read & self.written and all(
            is_known_ahead(operand, body) for operand in op.operands
        )

    def _pipeline(
        self, loop: scf.ForOp, loads: Sequence[Operation], lower: int, last: int
    ) -> scf.ForOp:
        """Loads of the first iteration; all iterations but the last; the last one's compute.

        Returns the loop in the middle.
        """
        body, inits = loop.body.block, list(loop.iter_args)
        values: dict[SSAValue, SSAValue] = {body.args[0]: self.constants.get(lower)}
        values.update(zip(body.args[1:], inits, strict=True))
        first = self._copy_loads(loads, values, InsertPoint.before(loop))

        rotated = self._rotated(loop, loads, [*inits, *first], self.constants.get(last))
        Rewriter.insert_op(rotated, InsertPoint.before(loop))

        for load, tile in zip(loads, rotated.results[len(inits) :], strict=True):
            Rewriter.replace_op(load, [], [tile])
        self._inline(loop, last, rotated.results[: len(inits)])
        return rotated

    def _rotated(
        self,
        loop: scf.ForOp,
        loads: Sequence[Operation],
        inits: Sequence[SSAValue],
        upper: SSAValue,
    ) -> scf.ForOp:
        """The loop up to `upper`, which carries the loaded tiles and loads the next ones."""
        old, new = loop.body.block, Block(arg_types=[_INDEX, *(value.type for value in inits)])
        known_values = (*old.args, *(op.results[0] for op in loads))
        values: dict[SSAValue, SSAValue] = dict(zip(known_values, new.args, strict=True))
        for value, argument in values.items():
            argument.name_hint = value.name_hint
        place = _last_loading_loop(old)
        following = [] if place is not None else self._next_loads(loop, loads, values, new)
        for op in old.ops:
            if isinstance(op, scf.YieldOp):
                carried = [values.get(operand, operand) for operand in op.operands]
                new.add_op(scf.YieldOp(*carried, *following))
            elif op not in loads:
                new.add_op(op.clone(values))
            if op is place:
                following = self._next_loads(loop, loads, values, new)
        rotated = scf.ForOp(loop.lb, upper, loop.step, inits, new)
        rotated.location = loop.location
        return rotated

    def _next_loads(
        self,
        loop: scf.ForOp,
        loads: Sequence[Operation],
        values: dict[SSAValue, SSAValue],
        block: Block,
    ) -> list[SSAValue]:
        """The loads of the iteration after the one of `values`, at the end of `block`."""
        body, point = loop.body.block, InsertPoint.at_end(block)
        terminator = body.last_op
        assert terminator is not None
        advance = arith.AddiOp(values[body.args[0]], loop.step)
        block.add_op(advance)
        following: dict[SSAValue, SSAValue] = {body.args[0]: advance.result}
        for argument, operand in zip(body.args[1:], terminator.operands, strict=True):
            if isinstance(argument.type, IndexType) and is_movable(operand, body):
                following[argument] = copy(operand, body, dict(values), self.constants, point)
        return self._copy_loads(loads, following, point)

    def _copy_loads(
        self, loads: Sequence[Operation], values: dict[SSAValue, SSAValue], point: InsertPoint
    ) -> list[SSAValue]:
        results: list[SSAValue] = []
        for load in loads:
            body = load.parent_block()
            assert body is not None
            for operand in load.operands:
                copy(operand, body, values, self.constants, point)
            clone = load.clone(dict(values))
            Rewriter.insert_op(clone, point)
            results.append(clone.results[0])
        return results

    def _inline(self, loop: scf.ForOp, index: int, carried: Sequence[SSAValue]) -> None:
        """Replace `loop` by one execution of its body, with `index` and the `carried` values."""
        body = loop.body.block
        terminator = body.last_op
        assert terminator is not None
        ops = list(body.ops)
        Rewriter.inline_block(body, InsertPoint.before(loop), [self.constants.get(index), *carried])
        results = list(terminator.operands)
        Rewriter.erase_op(terminator)
        Rewriter.replace_op(loop, [], results)
        for op in ops[:-1]:
            if (constant := folded(op, {}, self.constants)) is not None:
                Rewriter.replace_op(op, [], [constant])


def _iterations(loop: scf.ForOp) -> range | None:
    """The values of the induction variable, if the bounds are constant."""
    lower, upper, step = known(loop.lb), known(loop.ub), known(loop.step)
    if lower is None or upper is None or step is None or step < 1:
        return None
    return range(lower, upper, step)


def _last_loading_loop(block: Block) -> Operation | None:
    """The last loop directly in `block` that loads."""
    found = None
    for op in block.ops:
        if isinstance(op, scf.ForOp) and any(isinstance(inner, LOADS) for inner in op.walk()):
            found = op
    return found


def _erase_unused(kernel: func.FuncOp) -> None:
    """Erase index arithmetic that nothing uses any more."""
    for op in list(kernel.walk(reverse=True)):
        if isinstance(op, (*INDEX_OPS, arith.ConstantOp)) and not op.results[0].uses:
            Rewriter.erase_op(op)
