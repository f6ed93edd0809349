"""What values are: their element types by op and by kind, the sizes in `f32[n, 4]`, whether two
are one value, and where each comes from."""

from __future__ import annotations

from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.compiler.workbench.rule_checking.plan import Source
from tilewright.compiler.workbench.rule_checking.sizes import Term
from tilewright.dialects.element_types import ELEMENT_TYPES
from tilewright.dialects.graph import GraphOp
from tilewright.passes.rules.rule import Origin, ValueKind
from tilewright.passes.rules.values import ELEMENTS

_ANY_ELEMENT = ("Gather", "CacheUpdate", "Reshape", "Permute", "Slice", "Concat", "Weight", "State")
"""Ops that take any element where their row has a letter."""

_SOURCES = {
    Origin.WEIGHT: (Source.WEIGHT,),
    Origin.CONSTANT: (Source.WEIGHT, Source.COMPUTED),
    Origin.ARGUMENT: (Source.ARGUMENT,),
    Origin.STATE: (Source.STATE,),
}


def relate_elements(draft: Draft) -> None:
    """What each op says of the element types of its operands and results."""
    for index, row in enumerate(draft.rows):
        op = draft.rule.ops[index].op
        allowed = op.ELEMENTS if issubclass(op, GraphOp) else ELEMENT_TYPES
        floats = [element for element in allowed if element.is_float]
        moves = op.name.rpartition(".")[2] in _ANY_ELEMENT
        for field, name in draft.fields(index):
            asked = row.elements[field]
            draft.elements.restrict(name, allowed)
            if asked in ELEMENTS:
                draft.elements.restrict(name, (ELEMENTS[asked],))
            elif asked.endswith("|f32"):
                letter = f"@{index}:{asked.partition('|')[0]}"
                draft.elements.restrict(letter, floats)
                wide = ELEMENTS["f32"] in allowed and len(floats) > 1
                if wide and draft.choices.pick((False, True)):
                    draft.elements.restrict(name, (ELEMENTS["f32"],))
                else:
                    draft.elements.equal(letter, name)
            elif asked != "?":
                letter = f"@{index}:{asked}"
                draft.elements.restrict(letter, allowed if moves else floats)
                draft.elements.equal(letter, name)


def apply_kinds(draft: Draft) -> None:
    """What the kinds behind a colon say of element types and sizes."""
    for value in draft.rule.values.values():
        if value.name in draft.shapes:
            for kind in value.kinds:
                _apply(draft, value.name, kind)


def _apply(draft: Draft, name: str, kind: ValueKind) -> None:
    if kind.element is not None:
        draft.elements.restrict(name, (kind.element,))
    shape, behind = draft.shapes[name], False
    dims = kind.dims or ()
    for axis, dim in enumerate(dims):
        behind = behind or dim.rest
        place = axis - len(dims) if behind else axis
        if dim.size is not None:
            draft.sizes.equal(shape[place], Term(dim.size))
        if dim.name is not None:
            draft.bind(dim.name, shape[place])


def choose_same(draft: Draft) -> dict[str, str]:
    """Sometimes two inputs are one value."""
    same: dict[str, str] = {}
    inputs = draft.inputs()
    for at, name in enumerate(inputs):
        rank = len(draft.shapes[name])
        others = [
            other for other in inputs[:at] if other not in same and len(draft.shapes[other]) == rank
        ]
        other = draft.choices.pick((None, None, None, *others)) if others else None
        if other is not None:
            draft.elements.equal(name, other)
            draft.sizes.equal_shapes(draft.shapes[name], draft.shapes[other])
            same[name] = other
    return same


def choose_source(draft: Draft, name: str, same: dict[str, str]) -> Source:
    """Where an input comes from, so that its kinds hold, and those of what is the same value."""
    values = draft.rule.values
    names = [name, *(each for each, other in same.items() if other == name)]
    origins = {
        kind.origin
        for each in names
        if each in values
        for kind in values[each].kinds
        if kind.origin is not None
    }
    allowed = [
        source
        for source in Source
        if all(source in _SOURCES[origin] for origin in origins)
        and (source is not Source.STATE or (len(draft.shapes[name]) == 2 and origins))
        and (source is not Source.COMPUTED or origins)
    ]
    if not draft.elements.choose(name).is_float:
        allowed = [each for each in allowed if each is Source.ARGUMENT or origins]
    return draft.choices.pick(allowed)
