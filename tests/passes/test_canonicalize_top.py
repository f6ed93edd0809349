"""`canonicalize-top` computes what was there before, on chains of the ops that it is about."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.rules.support import function, names

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.passes.canonicalize_top import CanonicalizeTopPass
from tilewright.passes.rewriting import apply_patterns

SHAPES = ((2, 3, 4), (6, 4), (24,), (1, 24), (4, 1, 6))


def tensor(shape: tuple[int, ...]) -> str:
    return f"tensor<{'x'.join(map(str, shape))}xf32>"


@st.composite
def chains(draw: st.DrawFn) -> str:
    """A chain of ops of which many do nothing, or undo each other."""
    shape, value, lines = (2, 3, 4), "%x", ""
    for number in range(draw(st.integers(1, 8))):
        op = draw(st.sampled_from(("Neg", "Abs", "Relu", "Cast", "Max", "Min", "Concat", "Reshape",
                                   "Permute", "Slice", "MulConst", "AddConst")))  # fmt: skip
        after, attributes, operands = shape, "", value
        if op in ("Max", "Min"):
            operands = f"{value}, {value}"
        elif op == "Concat":
            attributes = " {axis = 0 : i64}"
        elif op in ("MulConst", "AddConst"):
            number_text = draw(st.sampled_from(("0.0", "1.0", "0.5", "3.0", "0.1")))
            attributes = f" {{value = {number_text} : f32}}"
        elif op == "Reshape":
            after = draw(
                st.sampled_from([each for each in SHAPES if prod(each) == prod(shape)] or [shape])
            )
        elif op == "Permute":
            order = draw(st.permutations(range(len(shape))))
            after = tuple(shape[axis] for axis in order)
            attributes = f" {{order = array<i64: {', '.join(map(str, order))}>}}"
        elif op == "Slice":
            offsets = [draw(st.integers(0, min(1, size - 1))) for size in shape]
            after = tuple(
                draw(st.integers(max(1, size - offset - 1), size - offset))
                for size, offset in zip(shape, offsets, strict=True)
            )
            attributes = f" {{offsets = array<i64: {', '.join(map(str, offsets))}>}}"
        types = ", ".join([tensor(shape)] * operands.count("%"))
        lines += f"%v{number} = top.{op} {operands}{attributes} : {types} -> {tensor(after)}\n"
        shape, value = after, f"%v{number}"
    return lines


@given(chains(), st.integers(0, 1000))
def test_the_values_stay(body: str, seed: int):
    before = function(body, f"%x: {tensor((2, 3, 4))}")
    after = parse_module(print_module(before), "again")
    CanonicalizeTopPass().apply(make_context(), after)
    verify_module(after)
    x = np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32)
    expected, actual = (
        run_function(module, "f", [x], weights=lambda key, op: x, states={}, semantics="float64")[0]
        for module in (before, after)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-14)
    assert apply_patterns(after, [CanonicalizeTopPass.pattern()]) == 0
    assert len(names(after)) <= len(names(before))


def test_every_rule_applies_somewhere():
    """Over the chains above each rule has its turn, but for those written out here."""
    seen: set[str] = set()
    for body in (
        "%a = top.Neg %x : T -> T\n%y = top.Neg %a : T -> T",
        "%a = top.Neg %x : T -> T\n%y = top.Abs %a : T -> T",
        "%a = top.Abs %x : T -> T\n%y = top.Abs %a : T -> T",
        "%a = top.Relu %x : T -> T\n%y = top.Relu %a : T -> T",
        "%y = top.Max %x, %x : T, T -> T",
        "%y = top.Min %x, %x : T, T -> T",
        "%y = top.MulConst %x {value = 1.0 : f32} : T -> T",
        "%y = top.AddConst %x {value = 0.0 : f32} : T -> T",
        "%a = top.MulConst %x {value = 2.0 : f32} : T -> T\n"
        "%y = top.MulConst %a {value = 3.0 : f32} : T -> T",
        "%a = top.AddConst %x {value = 2.0 : f32} : T -> T\n"
        "%y = top.AddConst %a {value = 3.0 : f32} : T -> T",
        "%y = top.Reshape %x : T -> T",
        "%a = top.Reshape %x : T -> tensor<24xf32>\n"
        "%y = top.Reshape %a : tensor<24xf32> -> tensor<6x4xf32>",
        "%y = top.Permute %x {order = array<i64: 0, 1, 2>} : T -> T",
        "%a = top.Permute %x {order = array<i64: 1, 2, 0>} : T -> tensor<3x4x2xf32>\n"
        "%y = top.Permute %a {order = array<i64: 1, 0, 2>} : "
        "tensor<3x4x2xf32> -> tensor<4x3x2xf32>",
        "%y = top.Slice %x {offsets = array<i64: 0, 0, 0>} : T -> T",
        "%a = top.Slice %x {offsets = array<i64: 0, 1, 0>} : T -> tensor<2x2x4xf32>\n"
        "%y = top.Slice %a {offsets = array<i64: 0, 0, 2>} : "
        "tensor<2x2x4xf32> -> tensor<2x2x2xf32>",
        "%y = top.Cast %x : T -> T",
        "%y = top.Concat %x {axis = 2 : i64} : T -> T",
    ):
        module = function(body.replace("T", tensor((2, 3, 4))), f"%x: {tensor((2, 3, 4))}")
        pattern = CanonicalizeTopPass.pattern()
        apply_patterns(module, [pattern])
        seen.add(pattern.last_applied)
    assert seen == {rule.name for rule in CanonicalizeTopPass.rules().rules}
