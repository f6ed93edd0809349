"""Examples in docstrings of the kernel passes: what is before the arrow becomes what follows."""

from __future__ import annotations

import re

import pytest
from tests.passes.lowering import PASSES
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.bdc.program import ProgramOp, RecordsAttr
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.dominance import verify_module

SHORTENED_BYTES = 4
"""As many bytes as examples show of records."""


def shorten(module: ModuleOp) -> None:
    for op in module.walk():
        if isinstance(op, ProgramOp):
            op.gdma = RecordsAttr(op.gdma.data[:SHORTENED_BYTES])
            op.bdc = RecordsAttr(op.bdc.data[:SHORTENED_BYTES])


@pytest.mark.parametrize("kernel_pass", PASSES, ids=lambda each: each.name)
def test_example(kernel_pass: ModulePass):
    assert kernel_pass.__doc__ is not None
    texts = re.findall(r"```mlir\n(.*?)```", kernel_pass.__doc__, re.DOTALL)
    assert len(texts) == 2
    before, after = (parse_module(text, kernel_pass.name) for text in texts)
    verify_module(before)
    kernel_pass.apply(make_context(), before)
    shorten(before)
    verify_module(after)
    assert before.is_structurally_equivalent(after), f"{before}\n{after}"
