"""What stands around a pattern: the order of operands, other uses of values, conversion options."""

from __future__ import annotations

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.compiler.workbench.rule_checking.plan import Tensor
from tilewright.passes.lowerings.conversion import ACTIVATIONS, QUANT_MODES, ConversionOptions
from tilewright.passes.lowerings.int8 import INT8
from tilewright.passes.rules.plan import is_commutative


def choose_swaps(draft: Draft, tensors: dict[str, Tensor]) -> frozenset[int]:
    """Ops whose two operands change places: commutative ones, with operands of one type."""
    found: set[int] = set()
    for index, op in enumerate(draft.rule.ops):
        if is_commutative(op.op):
            first, second = (names[0] for names in draft.operands[index].values())
            one_type = tensors[first] == tensors[second]
            if first != second and one_type and draft.choices.pick((False, True)):
                found.add(index)
    return frozenset(found)


def choose_uses(draft: Draft) -> dict[str, int]:
    """How often each value is returned: as often as `[uses = n]` asks for; else sometimes, so that
    a rule that changes a value for its other users is found out."""
    extra: dict[str, int] = {}
    inside = [name for fields in draft.operands for names in fields.values() for name in names]
    written = {name for fields in draft.operands for name in fields.get("cache", ())}
    root = draft.rule.root
    for index, op in enumerate(draft.rule.ops):
        for at, name in enumerate(op.results):
            count = 1 if index == root else 0
            if op.uses is not None:
                count = op.uses - sum(inside.count(each) for each in op.results) if not at else 0
                if count < 0 or (index == root and count == 0 and not at):
                    raise ConflictError
            elif index != root and name not in written:
                count = draft.choices.pick((0, 0, 1))
            if count:
                extra[name] = count
    for name in draft.inputs():
        if name not in written and draft.choices.pick((False, False, False, True)):
            extra[name] = 1
    return extra


def choose_options(draft: Draft) -> ConversionOptions:
    """For a lowering: the options of the conversion, those that it names as it names them."""
    options = draft.rule.options
    if options is None:
        return ConversionOptions()
    given = {name: str(value) for name, value in options.items()}
    flags = {name: bool(value) for name, value in options.items()}
    pick = draft.choices.pick
    return ConversionOptions(
        given.get("quant") or pick((*QUANT_MODES, INT8)),
        given.get("act") or pick(ACTIVATIONS),
        flags["quant_head"] if "quant_head" in flags else pick((False, True)),
        flags["quant_embedding"] if "quant_embedding" in flags else pick((False, True)),
    )
