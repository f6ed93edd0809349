"""Mistakes in the passes that lower the graph and that work on kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tests.compiler.workbench.mutation import Function, Mutation
from xdsl.dialects import arith, scf
from xdsl.ir import Operation

from tilewright.dialects import graph, tpu

# convert-top-to-tpu


def _drop_bias(append: Function) -> Function:
    def wrong(self: Any, new: Operation, source: Operation) -> Any:
        if isinstance(new, tpu.W8A16MatMulOp) and new.bias is not None:
            new = tpu.W8A16MatMulOp(
                new.x, new.codes, new.scale, element=graph.storage_of(new.result)
            )
        return append(self, new, source)

    return wrong


def _swap_operands_of_sub(append: Function) -> Function:
    def wrong(self: Any, new: Operation, source: Operation) -> Any:
        if isinstance(new, tpu.SubOp) and new.a.type == new.b.type:
            new.operands = [new.b, new.a]
        return append(self, new, source)

    return wrong


def _transpose_square_weights(quantized: Function) -> Function:
    def wrong(self: Any, weight: Any, scheme: Any, *, transposed: bool = False) -> Any:
        rows, cols = graph.shape_of(weight.result)
        return quantized(self, weight, scheme, transposed=transposed != (rows == cols))

    return wrong


# tile-for-local-memory


def _swap_cosines_and_sines(launch: Function) -> Function:
    def wrong(op: Operation, *rest: Any) -> Any:
        launched, kernel = launch(op, *rest)
        if isinstance(op, graph.Rope):
            x, cos, sin = launched.operands
            launched.operands = [x, sin, cos]
        return launched, kernel

    return wrong


def _leave_out_a_tile(build_kernel: Function) -> Function:
    """The outermost loop of a product begins with its second tile."""

    def wrong(op: Operation, *rest: Any) -> Any:
        kernel = build_kernel(op, *rest)
        if isinstance(op, tpu.W8A16MatMulOp):
            for loop in kernel.walk():
                if isinstance(loop, scf.ForOp) and len(loop.results) == 0:
                    loop.operands[0] = loop.step
                    break
        return kernel

    return wrong


# double-buffer


def _load_the_same_tile_again(next_loads: Function) -> Function:
    def wrong(self: Any, loop: Any, loads: Any, values: Any, block: Any) -> Any:
        following = next_loads(self, loop, loads, values, block)
        for op in block.ops:
            if isinstance(op, arith.AddiOp) and op.rhs is loop.step:
                op.operands[1] = self.constants.get(0)
        return following

    return wrong


# allocate-local-memory


def _overlap_two_rings(place: Function) -> Function:
    def wrong(kernel: Any, rings: Any, *rest: Any) -> Any:
        places = list(place(kernel, rings, *rest))
        if len(places) > 2 and len(places[-1]) <= len(places[0]):
            places[-1] = list(places[0])[: len(places[-1])]
        return places

    return wrong


# insert-waits


def _wait_for_one_less(derive_waits: Function) -> Function:
    def wrong(*arguments: Any) -> Any:
        gdma, bdc = derive_waits(*arguments)
        waiting = np.flatnonzero(bdc)
        if len(waiting):
            bdc[waiting[-1]] -= 1
        return gdma, bdc

    return wrong


# emit-commands


def _encode_multiplication_as_addition(expand: Function) -> Function:
    def wrong(kernel: Any) -> Any:
        expansion = expand(kernel)
        products = (expansion.bdc["opcode"] == 4) & (expansion.bdc["function"] == 2)
        expansion.bdc["function"][products] = 0
        return expansion

    return wrong


def _emit(field: str) -> Callable[[Function], Function]:
    """One element too far in the global address of the last store."""

    def make(expand: Function) -> Function:
        def wrong(kernel: Any) -> Any:
            expansion = expand(kernel)
            stores = np.flatnonzero(expansion.gdma["opcode"] == 2)
            if len(stores) > 1:
                expansion.gdma[field][stores[-1]] = expansion.gdma[field][stores[0]]
            return expansion

        return wrong

    return make


_CONVERSION = "passes.lowerings.conversion"

OF_LOWERINGS: tuple[Mutation, ...] = (
    Mutation(
        "convert-top-to-tpu",
        "LowerMatMulToW8A16",
        "drops biases",
        _CONVERSION,
        "Conversion.append",
        _drop_bias,
    ),
    Mutation(
        "convert-top-to-tpu",
        "LowerToSameOp",
        "swaps the operands of Sub",
        _CONVERSION,
        "Conversion.append",
        _swap_operands_of_sub,
        model="mixture",
    ),
    Mutation(
        "convert-top-to-tpu",
        "LowerMatMulToW8A16",
        "transposes square weights",
        _CONVERSION,
        "Conversion.quantized",
        _transpose_square_weights,
    ),
    Mutation(
        "tile-for-local-memory",
        "BuildKernel",
        "swaps cosines and sines",
        "passes.tile_for_local_memory",
        "_launch",
        _swap_cosines_and_sines,
    ),
    Mutation(
        "tile-for-local-memory",
        "BuildKernel",
        "leaves out a tile",
        "passes.tile_for_local_memory",
        "build_kernel",
        _leave_out_a_tile,
    ),
    Mutation(
        "double-buffer",
        "PipelineLoop",
        "loads tile i instead of i + 1",
        "passes.double_buffer",
        "_Pipeliner._next_loads",
        _load_the_same_tile_again,
    ),
    Mutation(
        "allocate-local-memory",
        "PlaceTiles",
        "lays one ring over another",
        "passes.allocate_local_memory",
        "_place",
        _overlap_two_rings,
    ),
    Mutation(
        "insert-waits",
        "InsertWaits",
        "waits for one command less",
        "passes.insert_waits",
        "derive_waits",
        _wait_for_one_less,
    ),
    Mutation(
        "emit-commands",
        "EncodeKernel",
        "encodes products as sums",
        "passes.emit_commands",
        "expand",
        _encode_multiplication_as_addition,
    ),
    Mutation(
        "emit-commands",
        "EncodeKernel",
        "stores the last tile in the place of the first",
        "passes.emit_commands",
        "expand",
        _emit("global_offset"),
    ),
)
