"""Every op has an example in its docstring, and the example is real."""

from __future__ import annotations

from io import StringIO

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer

from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.documentation import OpDoc, op_reference, parse_example
from tilewright.dialects.dominance import verify_dominance

DOCS = op_reference()


def _generic(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream, print_generic_format=True).print_op(module)
    return stream.getvalue()


def test_every_op_of_the_table_is_there() -> None:
    names = {doc.name for doc in DOCS}
    shared = [
        *("Weight", "State", "Call", "Gather", "CacheUpdate", "MatMul", "BatchMatMul", "RMSNorm"),
        *("LayerNorm", "Rope", "Attention", "Softmax", "SiLU", "GELU", "Tanh", "Sigmoid", "Exp"),
        *("Sqrt", "Rsqrt", "Reciprocal", "Neg", "Abs", "Erf", "Relu", "Add", "Sub", "Mul", "Div"),
        *("Max", "Min", "AddConst", "MulConst", "Reduce", "Reshape", "Permute", "Slice", "Concat"),
        *("Cast", "SwiGLU"),
    ]
    assert {f"top.{name}" for name in shared} == {n for n in names if n.startswith("top.")}
    lowered = [
        *("W8A16MatMul", "W4A16MatMul", "F8A16MatMul", "W8A16Gather"),
        *("Quantize", "Int8MatMul", "Dequantize"),
        *("Quantize", "Int8MatMul", "Dequantize", "Launch"),
    ]
    assert {f"tpu.{name}" for name in [*shared, *lowered]} == {
        n for n in names if n.startswith("tpu.")
    }


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_example(doc: OpDoc) -> None:
    assert doc.summary
    assert doc.summary.endswith(".")
    module = parse_example(doc.example, doc.name)
    module.verify()
    verify_dominance(module)
    assert doc.name in {op.name for op in module.walk()}

    text = print_module(module)
    assert print_module(parse_module(text, "custom")) == text
    generic = _generic(module)
    assert f'"{doc.name}"' in generic
    again = parse_module(generic, "generic")
    again.verify()
    assert again.is_structurally_equivalent(module)
    assert parse_module(text, "custom").is_structurally_equivalent(module)
