"""ONNX Runtime: the op QuantizeLinear, the routine of its tool, the packers of MatMulNBits."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from peers.peer import (
    PER_CHANNEL,
    SIGNED_SCALE,
    ZERO_SCALE,
    Array,
    Peer,
    Quantize,
    conventions_of,
    int4,
    int8,
    uint4,
)
from tilewright.testing import Quantizer

_BLOCK = 32
_OPSET = 21
_HALF_UP = {"ties": "x / s + zero point is rounded half up: ties of negative weights go to zero"}
_CLIPPED = conventions_of(("small-weights", "subnormal-scales"), SIGNED_SCALE["error-bound"])
_GIVEN_IN_F16 = conventions_of(
    ("error-bound", "small-weights", "subnormal-scales", "symmetric-codes"),
    "the op takes the scale that it is given: f16, to nearest, without a guard",
)


def peers() -> list[Peer]:
    """int8 per channel, and blocks of 32 of 4 and 8 bits."""
    onnx, runtime = import_module("onnx"), import_module("onnxruntime")
    tool = import_module("onnxruntime.quantization.quant_utils")
    native = import_module("onnxruntime.capi._pybind_state")
    per_channel = [
        Peer(
            f"ORT QuantizeLinear, {name}",
            "onnxruntime",
            f"absmax / 127 in {name} (1 for zeros) is given, half to even",
            PER_CHANNEL,
            Quantizer(quantize_linear(onnx, runtime, kind)),
            kind,
            _GIVEN_IN_F16 if name == "f16" else {},
        )
        for name, kind in (("f32", np.dtype(np.float32)), ("f16", np.dtype(np.float16)))
    ]
    return [
        *per_channel,
        Peer(
            "ORT quantize_data",
            "onnxruntime",
            "quant_utils.quantize_data a channel: absmax / 127, half to even, f32 scales",
            PER_CHANNEL,
            Quantizer(quantize_data(onnx, tool)),
        ),
        Peer(
            "ORT MatMulNBits 8 g32",
            "onnxruntime",
            "quantize_matmul_8bits: range with 0 / 255, zero points, scales f32, blocks of 32",
            int8(_BLOCK, zero_point=True),
            Quantizer(matmul_nbits(native.quantize_matmul_8bits, 8)),
            conventions=ZERO_SCALE | _HALF_UP,
        ),
        Peer(
            "ORT MatMulNBits 4 g32",
            "onnxruntime",
            "quantize_matmul_4bits: range with 0 / 15, zero points, scales f32, blocks of 32",
            uint4(_BLOCK),
            Quantizer(matmul_nbits(native.quantize_matmul_4bits, 4)),
            conventions=ZERO_SCALE | _HALF_UP,
        ),
        Peer(
            "ORT MatMulNBits 4 sym",
            "onnxruntime",
            "quantize_matmul_4bits, symmetric: largest weight / -8, scales f32, blocks of 32",
            int4(_BLOCK),
            Quantizer(symmetric_nibbles(native.quantize_matmul_4bits)),
            conventions=SIGNED_SCALE | _CLIPPED | _HALF_UP,
        ),
    ]


def quantize_linear(onnx: Any, runtime: Any, dtype: np.dtype[Any]) -> Quantize:
    """The op with a scale a row, in a session."""
    helper, kinds = onnx.helper, onnx.TensorProto
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    inputs = [
        helper.make_tensor_value_info("w", kind, ["n", "k"]),
        helper.make_tensor_value_info("s", kind, ["n"]),
        helper.make_tensor_value_info("z", kinds.INT8, ["n"]),
    ]
    node = helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0)
    output = helper.make_tensor_value_info("q", kinds.INT8, ["n", "k"])
    graph = helper.make_graph([node], "quantize", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def quantize(weight: Array) -> tuple[Array, ...]:
        scale = np.abs(weight).max(axis=1) / dtype.type(127)
        scale[scale == 0] = 1
        zero = np.zeros(len(weight), np.int8)
        (codes,) = session.run(None, {"w": weight, "s": scale, "z": zero})
        return codes, scale

    return quantize


def quantize_data(onnx: Any, tool: Any) -> Quantize:
    """What `quantize_dynamic` and `quantize_static` do to each channel of a weight."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        made = [tool.quantize_data(row, onnx.TensorProto.INT8, symmetric=True) for row in weight]
        scale = np.array([scale for _, scale, _ in made])
        return np.stack([np.asarray(codes, np.int8) for _, _, codes in made]), scale

    return quantize


def _blocks(
    pack: Callable[..., None], bits: int, weight: Array, symmetric: bool
) -> tuple[Array, ...]:
    """Codes and zero points from 0, and scales, of a weight `[N, K]`."""
    rows, depth = weight.shape
    count, a_byte = depth // _BLOCK, 8 // bits
    packed = np.zeros((rows, count, _BLOCK // a_byte), np.uint8)
    scale = np.zeros((rows, count), weight.dtype)
    zero = np.zeros((rows, -(-count // a_byte)), np.uint8)
    pack(packed, np.ascontiguousarray(weight.T), scale, zero, _BLOCK, rows, depth, symmetric)
    if bits == 4:
        packed, zero = _nibbles(packed), _nibbles(zero)
    return packed.reshape(weight.shape), scale, zero[:, :count]


def _nibbles(packed: Array) -> Array:
    """Two codes of each byte, the low one first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def matmul_nbits(pack: Callable[..., None], bits: int) -> Quantize:
    """Blocks with zero points; those of 8 bits are 0..255 there, and -128..127 here."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        codes, scale, zero = _blocks(pack, bits, weight, symmetric=False)
        if bits == 8:
            codes, zero = (codes ^ 128).view(np.int8), (zero ^ 128).view(np.int8)
        return codes, scale, zero

    return quantize


def symmetric_nibbles(pack: Callable[..., None]) -> Quantize:
    """Blocks whose zero point is 8."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        codes, scale, _ = _blocks(pack, 4, weight, symmetric=True)
        return codes.view(np.int8) - 8, scale

    return quantize
