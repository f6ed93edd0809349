"""Models with what the passes over the graph recognize: everything spelled out as exporters write
it, and casts as mixed precision leaves them."""

from __future__ import annotations

from tests.compiler.workbench.building import Builder, finished
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F16, F32, I32, tensor_type
from tilewright.dialects.graph import ReduceMode

ROWS, WIDTH, HEADS = 12, 48, 4
HALF = WIDTH // 2
ENTRIES = 32
"""Rows of the cache."""
GELU_SCALE = 0.5**0.5


def spelled_out() -> ModuleOp:
    """100 ops: linear layers, activations, norms, attention, RoPE, and a layer called twice."""
    matrix = tensor_type((ROWS, WIDTH), F32)
    square, places = tensor_type((ROWS, ROWS), F32), tensor_type((ROWS,), I32)
    block = Block(arg_types=[*([matrix] * 5), square, places])
    x, q, k, cos, sin, mask, positions = block.args
    b = Builder(block)
    called = b(top.CallOp("layer", [x], [matrix], scopes=["first.", "second."]))
    results = [
        called,
        *_linear(b, x),
        *_arithmetic(b, x, q),
        *_activations(b, x, q),
        *_softmaxes(b, x),
        _rms_norm(b, x),
        _layer_norm(b, q),
        _rope(b, x, cos, sin),
        b(top.AddOp(b(top.MulOp(x, cos)), b(top.MulOp(q, sin)))),
        _attention(b, x, k, q, mask),
        _scaled_attention(b, q, cos, sin, mask),
        *_moves(b, x),
    ]
    cache = b(top.StateOp("cache", [ENTRIES, WIDTH]))
    b(top.CacheUpdateOp(cache, x, positions))
    main = finished("main", block, results)
    return ModuleOp([main, _layer()])


def _layer() -> FuncOp:
    block = Block(arg_types=[tensor_type((ROWS, WIDTH), F32)])
    b = Builder(block)
    h = b(top.MulOp(block.args[0], b.weight("gain", WIDTH)))
    layer = finished("layer", block, [b(top.TanhOp(h))])
    layer.sym_visibility = StringAttr("private")
    return layer


def _linear(b: Builder, x: SSAValue) -> list[SSAValue]:
    """Two square layers, by the transposes of their weights; one of them without a bias."""
    first = b(top.PermuteOp(b.weight("first.weight", WIDTH, WIDTH), [1, 0]))
    second = b(top.PermuteOp(b.weight("second.weight", WIDTH, WIDTH), [1, 0]))
    h = b(top.AddOp(b(top.MatMulOp(x, first)), b.weight("first.bias", WIDTH)))
    return [h, b(top.MatMulOp(x, second))]


def _arithmetic(b: Builder, x: SSAValue, z: SSAValue) -> list[SSAValue]:
    """Signs and reciprocals that can go, and a difference either way round."""
    h = b(top.NegOp(b(top.SubOp(x, z))))
    h = b(top.SubOp(h, b(top.NegOp(z))))
    divisor = b(top.AddConstOp(b(top.SigmoidOp(x)), 1.0))
    quotient = b(top.MulOp(h, b(top.ReciprocalOp(divisor))))
    return [quotient, b(top.SubOp(x, z))]


def _activations(b: Builder, x: SSAValue, z: SSAValue) -> list[SSAValue]:
    """SwiGLU with a SiLU in small ops, GELU in small ops, and what looks like them and is not."""
    gated = b(top.MulOp(b(top.MulOp(x, b(top.SigmoidOp(x)))), z))
    gate = b(top.MulOp(z, b(top.SigmoidOp(x))))
    return [gated, gate, _gelu(b, x, GELU_SCALE), _gelu(b, z, 0.75)]


def _gelu(b: Builder, x: SSAValue, scale: float) -> SSAValue:
    one_more = b(top.AddConstOp(b(top.ErfOp(b(top.MulConstOp(x, scale)))), 1.0))
    return b(top.MulConstOp(b(top.MulOp(x, one_more)), 0.5))


def _softmaxes(b: Builder, x: SSAValue) -> list[SSAValue]:
    """Powers over their sum, and over their mean."""
    powers = b(top.ExpOp(b(top.SubOp(x, b(top.ReduceOp(x, ReduceMode.MAX))))))
    return [
        b(top.DivOp(powers, b(top.ReduceOp(powers, mode))))
        for mode in (ReduceMode.SUM, ReduceMode.MEAN)
    ]


def _rms_norm(b: Builder, x: SSAValue) -> SSAValue:
    """One in small ops, then one with its weight behind it."""
    mean = b(top.ReduceOp(b(top.MulOp(x, x)), ReduceMode.MEAN))
    norm = b(top.MulOp(x, b(top.RsqrtOp(b(top.AddConstOp(mean, 1e-3))))))
    norm = b(top.RMSNormOp(norm, eps=1e-5))
    return b(top.MulOp(norm, b.weight("rms.weight", WIDTH)))


def _layer_norm(b: Builder, x: SSAValue) -> SSAValue:
    """One with its weight and bias behind it, then one in small ops."""
    scaled = b(top.MulOp(b(top.LayerNormOp(x, eps=1e-5)), b.weight("norm.weight", WIDTH)))
    x = b(top.AddOp(scaled, b.weight("norm.bias", WIDTH)))
    centred = b(top.SubOp(x, b(top.ReduceOp(x, ReduceMode.MEAN))))
    variance = b(top.ReduceOp(b(top.MulOp(centred, centred)), ReduceMode.MEAN))
    return b(top.MulOp(centred, b(top.RsqrtOp(b(top.AddConstOp(variance, 1e-3))))))


def _rope(b: Builder, x: SSAValue, cos: SSAValue, sin: SSAValue) -> SSAValue:
    low = b(top.SliceOp(x, [0, 0], [ROWS, HALF]))
    high = b(top.SliceOp(x, [0, HALF], [ROWS, HALF]))
    turned = b(top.ConcatOp([b(top.NegOp(high)), low], 1))
    return b(top.AddOp(b(top.MulOp(x, cos)), b(top.MulOp(turned, sin))))


def _attention(b: Builder, q: SSAValue, k: SSAValue, v: SSAValue, mask: SSAValue) -> SSAValue:
    def heads(x: SSAValue) -> SSAValue:
        return b(top.PermuteOp(b(top.ReshapeOp(x, [ROWS, HEADS, WIDTH // HEADS])), [1, 0, 2]))

    scores = b(top.BatchMatMulOp(heads(q), heads(k), right_transpose=True))
    scores = b(top.AddOp(b(top.MulConstOp(scores, 0.25)), mask))
    mixed = b(top.BatchMatMulOp(b(top.SoftmaxOp(scores)), heads(v)))
    return b(top.ReshapeOp(b(top.PermuteOp(mixed, [1, 0, 2])), [ROWS, WIDTH]))


def _scaled_attention(
    b: Builder, q: SSAValue, k: SSAValue, v: SSAValue, mask: SSAValue
) -> SSAValue:
    """Attention with a factor on its queries."""
    q = b(top.MulConstOp(q, 0.5))
    return b(top.AttentionOp(q, k, v, mask, num_heads=HEADS, num_kv_heads=HEADS, scale=0.5))


def _moves(b: Builder, x: SSAValue) -> list[SSAValue]:
    """Slices of slices, permutes of permutes, and the same computed twice."""
    part = b(top.SliceOp(b(top.SliceOp(x, [2, 8], [10, 40])), [1, 0], [8, 32]))
    cube = b(top.ReshapeOp(b(top.SliceOp(x, [0, 0], [4, 16])), [4, 4, 4]))
    turned = b(top.PermuteOp(b(top.PermuteOp(cube, [1, 2, 0])), [0, 2, 1]))
    twice = [b(top.MulConstOp(b(top.ReluOp(x)), factor)) for factor in (3.0, 5.0)]
    return [part, turned, *twice]


def mixed_precision() -> ModuleOp:
    """50 ops of `tpu`: four layers with norms in f32 and products in f16, casts between them."""
    block = Block(arg_types=[tensor_type((ROWS, WIDTH), F16)])
    (h,) = block.args
    b = Builder(block)
    for name in ("one", "two", "three", "four"):
        wide = b(tpu.CastOp(h, F32))
        gain = b(tpu.WeightOp(f"{name}.gain", [WIDTH], F32))
        norm = b(tpu.CastOp(b(tpu.RMSNormOp(wide, gain, eps=1e-5)), F16))
        weight = b(tpu.WeightOp(f"{name}.weight", [WIDTH, WIDTH], F16))
        product = b(tpu.MatMulOp(norm, weight, right_transpose=True))
        there_and_back = b(tpu.CastOp(b(tpu.CastOp(product, F32)), F16))
        rounded = b(tpu.CastOp(b(tpu.CastOp(b(tpu.TanhOp(wide)), F16)), F32))
        h = b(tpu.AddOp(there_and_back, b(tpu.CastOp(b(tpu.MulConstOp(rounded, 0.75)), F16))))
    return ModuleOp([finished("main", block, [h])])
