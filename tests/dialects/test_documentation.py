"""How ops are documented, and how examples are read."""

from __future__ import annotations

import pytest

from tilewright.dialects.documentation import (
    document_op,
    mlir_blocks,
    op_reference,
    parse_example,
)
from tilewright.dialects.errors import ModelReadError
from tilewright.dialects.tpu import MatMulOp, WeightOp


def test_names_are_unique_and_documented() -> None:
    docs = op_reference()
    assert len({doc.name for doc in docs}) == len(docs)
    assert all(doc.example and doc.summary for doc in docs)
    assert all(doc.invariants for doc in docs if doc.dialect in ("top", "tpu"))


def test_an_op_has_the_meaning_of_its_shared_base() -> None:
    doc = document_op(MatMulOp)
    assert doc.name == "tpu.MatMul"
    assert doc.operands == ("x", "right", "bias?")
    assert doc.properties == ("right_transpose?",)
    assert "sum_k" in doc.description
    assert "`x has depth K, right has depth K'`" in doc.invariants
    assert doc.pure


def test_own_rules_come_before_shared_ones() -> None:
    invariants = document_op(WeightOp).invariants
    assert invariants[0].startswith("`codes are i8")
    assert invariants[-1] == "`the key is empty`"


def test_blocks_of_a_docstring() -> None:
    text = """Summary.

    ```mlir
    a
      b
    ```

    ```python
    c
    ```

    ```mlir
    d
    ```
    """
    assert mlir_blocks(text) == ["a\n  b\n", "d\n"]


def test_undefined_values_of_an_example_become_arguments() -> None:
    module = parse_example("%y = top.Neg %x : tensor<4xf32> -> tensor<4xf32>")
    assert "func.func @example(%x: tensor<4xf32>)" in str(module)


@pytest.mark.parametrize("text", ["", "%y = top.Neg %x : tensor<4xf32> -> tensor<4xf32> }"])
def test_an_example_is_a_list_of_ops(text: str) -> None:
    with pytest.raises(ModelReadError, match="not a list of ops"):
        parse_example(text)
