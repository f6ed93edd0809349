"""Text in and out: locations survive, errors say where."""

from __future__ import annotations

import pytest
from xdsl.dialects.arith import ConstantOp
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp, TensorType, f32

from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.errors import InternalError, IRError, ModelReadError, UnsupportedError

MODULE = """builtin.module {
  func.func private @f(%x: tensor<4x8xf32> loc("x"), %y: tensor<8xf32>) -> tensor<4x8xf32> {
    %0 = top.RMSNorm %x weight %y {eps = 9.99999974E-6 : f32} : tensor<4x8xf32>, tensor<8xf32> -> \
tensor<4x8xf32> loc("norm"("model.py":12:5))
    func.return %0 : tensor<4x8xf32>
  } loc("layer"("model.py":10:1))
}
"""


def test_locations_round_trip() -> None:
    text = print_module(parse_module(MODULE, "a.mlir"))
    assert print_module(parse_module(text, "b.mlir")) == text
    for location in ('loc("x")', 'loc("norm"("model.py":12:5))', 'loc("layer"("model.py":10:1))'):
        assert text.count(location) == 1


def test_unknown_locations_are_not_printed() -> None:
    assert "unknown" not in print_module(parse_module(MODULE, "a.mlir"))


def test_locations_are_left_out_on_request() -> None:
    text = print_module(parse_module(MODULE, "a.mlir"), locations=False)
    assert "loc(" not in text
    parse_module(text, "a.mlir")


@pytest.mark.parametrize(
    ("text", "error", "where", "why"),
    [
        (
            "func.func @f() {\n  foo.bar\n}",
            UnsupportedError,
            "m.mlir:3:1",
            "foo.bar is not registered",
        ),
        ('"', ModelReadError, "m.mlir:1:1", "before closing string literal"),
        ("", ModelReadError, "m.mlir:1:1", "Could not parse entire input"),
        ("func.func @f() {\n func.return %x : f32 }", ModelReadError, "m.mlir:2:24", "not defined"),
        ("%q = top.Reduce most %x : f32", ModelReadError, "m.mlir:1:17", "Expected `sum`"),
        ("builtin.module {" * 3000, ModelReadError, "m.mlir:1:", "recursion"),
        ('%q = bdc.foo {a = #bdc.records<"0">}', UnsupportedError, "m.mlir:1:", "not registered"),
        (
            'bdc.program @p {gdma = #bdc.records<"0">}',
            ModelReadError,
            "m.mlir:1:40",
            "records are not pairs of hexadecimal digits",
        ),
        (
            "bdc.program @p {arguments = [#bdc.argument<read, f32>]}",
            ModelReadError,
            "m.mlir:1:",
            "expected a view of global memory",
        ),
        (
            "\n%y = top.SiLU %x : f32 -> f32",
            IRError,
            "m.mlir:2:",
            "f32 should be of base attribute tensor",
        ),
        (
            "func.func @f(%x : !bdc.local<0x4xf32>) { func.return }",
            IRError,
            "m.mlir:1:",
            "needs at least one row",
        ),
    ],
)
def test_errors_say_where(text: str, error: type[Exception], where: str, why: str) -> None:
    with pytest.raises(error) as caught:
        parse_module(text, "m.mlir")
    assert isinstance(caught.value, ModelReadError | IRError | UnsupportedError)
    assert (caught.value.where or "").startswith(where)
    assert why in (caught.value.why or "")


def test_unsupported_element_types_say_where() -> None:
    with pytest.raises(UnsupportedError, match="element type f64") as caught:
        parse_module("func.func @f(%x : !gdma.global<4x4xf64>) { func.return }", "m.mlir")
    assert (caught.value.where or "").startswith("m.mlir:1:")


def _constant(values: list[float]) -> ModuleOp:
    kind = TensorType(f32, [len(values)])
    return ModuleOp([ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, values))])


def test_dense_constants_that_do_not_read_back_are_refused() -> None:
    with pytest.raises(InternalError, match="not finite"):
        print_module(_constant([1.0, float("-inf")]))


def test_dense_constants_read_back() -> None:
    for values in ([1.0, 0.1], [float("nan")] * 50 + [float("inf")] * 51):
        text = print_module(_constant(values))
        assert print_module(parse_module(text, "m.mlir")) == text
