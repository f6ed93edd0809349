"""Passes of the user's around the conversion: order, level, messages, and what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.compiler.small_models import TINY_LLAMA, model_of, random_weights
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions, lower, lowering_passes
from tilewright.compiler.workbench import pipelines
from tilewright.dialects import top, tpu
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.levels import level_of
from tilewright.passes import registry

SEQ = 8


@dataclass(frozen=True)
class NotePass(ModulePass):
    """Notes which levels the ops of the module have."""

    name = "note"
    seen: ClassVar[list[tuple[str, set[str]]]] = []

    label: str = ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        levels = {level_of(each) for each in op.walk()} - {"builtin", "func"}
        NotePass.seen.append((self.label, levels))


@dataclass(frozen=True)
class ReplaceSiLUPass(ModulePass):
    """Put the `tpu.SiLU` or `top.SiLU` in the place of one of the other level."""

    name = "replace-silu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for silu in list(op.walk()):
            if isinstance(silu, top.SiLUOp):
                Rewriter.replace_op(silu, tpu.SiLUOp(silu.x))
            elif isinstance(silu, tpu.SiLUOp):
                Rewriter.replace_op(silu, top.SiLUOp(silu.x))


@pytest.fixture(autouse=True)
def known_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        **registry.PASSES,
        "note": lambda: NotePass,
        "replace-silu": lambda: ReplaceSiLUPass,
    }
    monkeypatch.setattr(registry, "PASSES", known)
    monkeypatch.setattr(pipelines, "PASSES", known)
    monkeypatch.setattr(NotePass, "seen", [])


def module() -> ModuleOp:
    return model_of(TINY_LLAMA, SEQ).trace()


def options(**passes: Any) -> CompileOptions:
    return CompileOptions("f32", **passes)


def test_they_run_in_order_on_both_sides_of_the_conversion() -> None:
    chosen = options(top_passes="note{label=a},note{label=b}", tpu_passes="note{label=c}")
    lowered = lower(module(), chosen)
    assert NotePass.seen == [("a", {"top"}), ("b", {"top"}), ("c", {"tpu"})]
    assert str(lowered) == str(lower(module(), options()))


def test_they_run_again_where_scales_turn_out_to_be_f32() -> None:
    model = model_of(TINY_LLAMA, SEQ)
    weights = random_weights(model)
    key = next(key for key in weights if "up_proj" in key)
    weights[key] = weights[key] * np.float32(1e-6)
    chosen = CompileOptions("w8a16", top_passes="note{label=a}", tpu_passes="note{label=b}")
    compile_module(model.trace(), weights, chosen)
    assert [label for label, _ in NotePass.seen] == ["a", "b", "a", "b"]


def test_they_are_listed_with_their_options() -> None:
    chosen = lowering_passes(options(top_passes="note{label=a},note", tpu_passes="replace-silu"))
    assert chosen.names() == ['note{label="a"}', "note", "convert-top-to-tpu", "replace-silu"]


@pytest.mark.parametrize("field", ["top_passes", "tpu_passes"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fuse-everything", "unknown pass 'fuse-everything'"),
        ("note{labels=a}", "wrong option for pass 'note'"),
        ("note{", "cannot be parsed"),
        ("convert-top-to-tpu", "convert-top-to-tpu cannot be among"),
        ("note,kernels", "tile-for-local-memory cannot be among"),
    ],
)
def test_wrong_passes_are_refused_before_anything_is_read(field: str, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        options(**{field: text})
    assert caught.value.where == f"--{field.replace('_', '-')} {text!r}"


def test_a_pass_that_leaves_another_level_is_named_with_the_op() -> None:
    with pytest.raises(IRError, match=r"tpu\.SiLU may not remain after --top-passes") as caught:
        lower(module(), options(top_passes="replace-silu"))
    assert str(caught.value.where).endswith("in @prefill_decoder_layer")
    with pytest.raises(IRError, match=r"top\.SiLU may not remain after --tpu-passes"):
        lower(module(), options(tpu_passes="replace-silu"))
