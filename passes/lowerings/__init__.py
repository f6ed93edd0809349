"""How each `top` op becomes `tpu` ops: one function, or one rule, for each case.

    @lowering(top.MatMulOp, quant="w8a16")
    def lower_matmul_to_w8a16(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
        ...

`convert-top-to-tpu` asks the lowerings of an op in turn: those of its class before those of a base,
then by `benefit`, then those that name more options, then the later registered. The first that does
not answer None gives what stands for the op's results. Packages outside this one register theirs in
the same way, from a module that their `Plugin.modules` names.
"""

from importlib import import_module

from tilewright.passes.lowerings.conversion import Conversion, ConversionOptions, is_head, role_of
from tilewright.passes.lowerings.registry import (
    Lowering,
    lowering,
    lowerings_of,
    register,
    registered_lowerings,
    temporarily,
)

__all__ = [
    "Conversion",
    "ConversionOptions",
    "Lowering",
    "is_head",
    "lowering",
    "lowerings_of",
    "register",
    "registered_lowerings",
    "role_of",
    "temporarily",
]

for _family in ("linear", "int8", "gather", "moves", "rope", "composite", "same"):
    import_module(f"{__name__}.{_family}")
