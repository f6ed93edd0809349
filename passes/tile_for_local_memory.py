"""The pass `tile-for-local-memory`: a kernel for every `tpu` op."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.backends.chip import Chip, load_chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.errors import InternalError, TilewrightError
from tilewright.dialects.scopes import where_of
from tilewright.passes import actions
from tilewright.passes.kernels.registry import View, build_kernel
from tilewright.passes.views import needs_kernel, view_of


@dataclass(frozen=True)
class TileForLocalMemoryPass(ModulePass):
    """Replace every `tpu` op that computes or copies by the launch of a kernel over local memory.

    ```mlir
    func.func @f(%x: tensor<1x64xf16>, %w: tensor<128x64xf16>) -> tensor<1x128xf16> {
      %y = tpu.MatMul %x, %w {right_transpose} :
        tensor<1x64xf16>, tensor<128x64xf16> -> tensor<1x128xf16>
      func.return %y : tensor<1x128xf16>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<1x64xf16>, %w: tensor<128x64xf16>) -> tensor<1x128xf16> {
      %y = tpu.Launch @matmul(%x, %w) : (tensor<1x64xf16>, tensor<128x64xf16>) -> tensor<1x128xf16>
      func.return %y : tensor<1x128xf16>
    }
    func.func private @matmul(
        %x : !gdma.global<1x64xf16> {tpu.access = "read"},
        %w : !gdma.global<128x64xf16> {tpu.access = "read"},
        %y : !gdma.global<1x128xf16> {tpu.access = "write"})
        attributes {tpu.kernel, tpu.op = "tpu.MatMul"} {
      %zero = arith.constant 0 : index
      %x0 = gdma.load %x[%zero, %zero] : !gdma.global<1x64xf16> -> !bdc.local<1x64xf16>
      %w0 = gdma.load %w[%zero, %zero] : !gdma.global<128x64xf16> -> !bdc.local<128x64xf16>
      %p = bdc.mm %w0, %x0 {transpose_right} :
        !bdc.local<128x64xf16>, !bdc.local<1x64xf16> -> !bdc.local<128x1xf16>
      %t = bdc.transpose %p : !bdc.local<128x1xf16> -> !bdc.local<1x128xf16>
      gdma.store %t, %y[%zero, %zero] : !bdc.local<1x128xf16>, !gdma.global<1x128xf16>
      func.return
    }
    ```

    Requires `tpu` ops on static tensors. Guarantees that of the `tpu` ops only `Weight`, `State`,
    `Call`, `Launch`, and those `Reshape`s and `Slice`s are left that are views (`passes.views`);
    that equal ops on equally laid out operands share a kernel; and that a launch has the location
    of its op. A kernel's name says op, sizes and type, and ends in a hash of all it depends on;
    its attribute `tpu.op` is the op's name.

    Raises `UnsupportedError` for an op without a kernel and `FitError` where not even the smallest
    tile fits local memory; both name the op's location.

    A step is `BuildKernel`: one op becomes a launch.

    Option `chip`: a chip's name, or the path of a chip file.
    """

    name = "tile-for-local-memory"

    chip: str = "bm1684x"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        chip = load_chip(self.chip)
        kernels: dict[str, func.FuncOp] = {}
        functions = [item for item in op.body.block.ops if isinstance(item, func.FuncOp)]
        for function in functions:
            if "tpu.kernel" in function.attributes:
                kernels[function.sym_name.data] = function
        known = set(kernels)
        for function in functions:
            if function.sym_name.data in known or function.is_declaration:
                continue
            for computing in [item for item in function.walk() if needs_kernel(item)]:
                if actions.begin("BuildKernel", computing):
                    count = len(kernels)
                    launch, kernel = _launch(computing, kernels, chip)
                    if len(kernels) > count:
                        op.body.block.add_op(kernel)
                        actions.end((launch, kernel))
                    else:
                        actions.end((launch,))


def _launch(
    op: Operation, kernels: dict[str, func.FuncOp], chip: Chip
) -> tuple[tpu.LaunchOp, func.FuncOp]:
    """Replace `op` by a launch of its kernel, which is built unless `kernels` has it."""
    operands = [view_of(operand).view for operand in op.operands]
    results = [View.of_type(result.type) for result in op.results]
    alias = 0 if isinstance(op, graph.CacheUpdate) else None
    name = kernel_name(op, operands, results, chip)
    if name not in kernels:
        kernel = _build(op, operands, results, chip)
        expected = len(operands) + len(results) - (alias is not None)
        if len(kernel.body.block.args) != expected:
            raise InternalError(
                f"the kernel of {op.name} has {len(kernel.body.block.args)} arguments, "
                f"not {expected}"
            )
        kernel.sym_name = StringAttr(name)
        kernel.sym_visibility = StringAttr("private")
        kernel.attributes["tpu.op"] = StringAttr(op.name)
        kernels[name] = kernel
    launch = tpu.LaunchOp(name, op.operands, [result.type for result in op.results], alias=alias)
    launch.location = op.location
    Rewriter.replace_op(op, launch)
    return launch, kernels[name]


def _build(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    try:
        return build_kernel(op, operands, results, chip)
    except TilewrightError as error:
        error.where = error.where or where_of(op)
        raise


def kernel_name(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> str:
    """The name of the kernel of `op` on those views, e.g. `w8a16_matmul_1x4096x13696_f16_1f0c9a3b`.

    It ends in a hash of the op's name and attributes, the views and the chip: kernels with one name
    are equal.
    """
    sizes = [*(operands or results)[0].shape]
    if sizes[-1:] != [results[0].cols]:
        sizes.append(results[0].cols)
    parts = (_snake(op.name), "x".join(map(str, sizes)), results[0].element.name)
    attributes = sorted(f"{key}={value}" for key, value in op.properties.items())
    views = [(view.shape, view.element.name, view.pitch_bytes) for view in (*operands, *results)]
    content = repr((op.name, attributes, len(operands), views, replace(chip, sources={})))
    return "_".join((*parts, hashlib.sha256(content.encode()).hexdigest()[:8]))


def _snake(op_name: str) -> str:
    """`tpu.W8A16MatMul` as `w8a16_matmul`."""
    name = op_name.rpartition(".")[2].replace("MatMul", "Matmul")
    return re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()
