"""The quantizer of this compiler, with all that it can do, as the suite takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.passes.kernels.checking import Lowered, element_of, lowered

from tilewright.backends.reference import numerics, requant
from tilewright.compiler.calibration.histogram import MagnitudeHistogram
from tilewright.compiler.calibration.methods import Method, MethodName
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.dialects import tpu
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing import Quantizer
from tilewright.testing.strategies import TopGraph

Array = npt.NDArray[Any]

CHIP, FLOATS_CHIP = "bm1684x", "bm1690"
"""The second one dequantizes 8-bit floats."""


def quantizer(scheme: Scheme, element: ElementType, method: MethodName = "minmax") -> Quantizer:
    """Rounding to nearest by `scheme` with scales of type `element`, products by the reference."""

    def quantize(weight: Array, by: Scheme = scheme) -> Sequence[Array]:
        made = quantize_weight(weight, by, element)
        codes = numerics.plain_codes(made.codes, by.format, weight.shape[1])
        return (codes, made.scale) if made.zero is None else (codes, made.scale, made.zero)

    def dequantize(codes: Array, scale: Array, zero: Array | None = None) -> Array:
        return numerics.dequantize(codes, scale, element, zero, scheme.format)

    def matmul(x: Array, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        # Every product and sum is taken in turn: the order does not depend on the shapes.
        sums = np.zeros((len(x), len(codes)), np.float32)
        for left, right in zip(x.T, dequantize(codes, scale, zero).T, strict=True):
            sums += left.astype(np.float32)[:, None] * right.astype(np.float32)[None, :]
        return sums.astype(element.dtype)

    def lowered_graph(graph: TopGraph) -> Sequence[Array]:
        return run_lowered(graph, scheme, element)

    return Quantizer(
        quantize,
        with_scheme=lambda by: lambda weight: quantize(weight, by),
        dequantize=dequantize,
        pack=numerics.pack_nibbles,
        unpack=lambda packed, depth: numerics.unpack_nibbles(
            packed, depth, signed=scheme.format is CodeFormat.I4
        ),
        matmul=matmul,
        activations=element.dtype,
        int_matmul=lambda x, codes, bias: requant.add_bias(
            x.astype(np.int32) @ codes.astype(np.int32).T, bias
        ),
        requantize=requantize,
        calibrate=lambda batches: calibrate(batches, method),
        run_lowered=None if scheme.int8_activations else lowered_graph,
    )


def run_lowered(graph: TopGraph, scheme: Scheme, element: ElementType) -> Sequence[Array]:
    """The results of a graph, compiled and run on the simulated machine."""
    chip = FLOATS_CHIP if scheme.format.is_float else CHIP
    options = CompileOptions(quant=scheme.name, act=element.name, chip=chip)
    executable = compile_module(graph.module.clone(), graph.weights, options)
    (port,) = executable.program.functions[0].inputs
    return executable.run("main", x=graph.x.astype(port.element.dtype))


def requantize(sums: Array, factor: float) -> Array:
    """By multiplier and shift."""
    return requant.requantize(sums, *requant.requant_parameters(factor))


def calibrate(batches: Sequence[Array], method: MethodName) -> float:
    """The clip for all batches, each in a histogram of its own, merged."""
    whole = MagnitudeHistogram()
    for batch in batches:
        one = MagnitudeHistogram()
        one.add(np.abs(batch))
        whole.merge(one)
    return Method(method).clip(whole)


def on_the_machine(scheme: Scheme, element: ElementType) -> Quantizer:
    """As `quantizer`, with products of the simulated machine."""

    def matmul(x: Array, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        stored = numerics.stored_codes(codes, scheme.format).astype(np.int8)
        operands = (x, stored, scale) if zero is None else (x, stored, scale, zero)
        kernel = _kernel(scheme.format, *[(o.shape, element_of(o)) for o in operands])
        return replace(kernel, operands=operands).run()

    return replace(quantizer(scheme, element), matmul=matmul)


@cache
def _kernel(code: CodeFormat, *operands: tuple[tuple[int, ...], ElementType]) -> Lowered:
    """The kernel for operands of these shapes and types."""
    arrays = [np.zeros(shape, element.dtype) for shape, element in operands]
    classes = {CodeFormat.I4: tpu.W4A16MatMulOp, CodeFormat.U4: tpu.W4A16MatMulOp}
    op_class = tpu.F8A16MatMulOp if code.is_float else classes.get(code, tpu.W8A16MatMulOp)
    properties = {"format": tpu.CodeFormatAttr(code)} if code.is_float else {}
    return lowered(
        lambda x, codes, scale, zero=None: op_class(
            x, codes, scale, zero=zero, properties=properties
        ),
        *arrays,
        chip=FLOATS_CHIP if code.is_float else CHIP,
    )
