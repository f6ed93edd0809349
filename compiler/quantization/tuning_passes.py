"""Which passes `--tune` takes."""

from __future__ import annotations

from xdsl.passes import ModulePass

from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.dialects.errors import OptionError

TUNING_PASSES = ("smooth-quant", "awq-scale", "gptq")
"""All of them, in the order in which they make sense."""


def tuning_passes(text: str) -> tuple[ModulePass, ...]:
    """The passes of `awq-scale,gptq{percdamp=0.05}`; raises `OptionError` for anything else."""
    where = f"--tune {text!r}"
    hint = f"one or more of {', '.join(TUNING_PASSES)}; --top-passes takes others"
    try:
        chosen = tuple(passes_from_text(text))
    except OptionError as error:
        own = hint if error.what.startswith("unknown pass") else error.hint
        raise OptionError(error.what, where=where, why=error.why, hint=own) from error
    other = [each.name for each in chosen if each.name not in TUNING_PASSES]
    if other:
        raise OptionError(f"{other[0]} does not tune weights", where=where, hint=hint)
    return chosen
