"""What the constructors of ops take: operands, attributes, and what the result's type gives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache

from xdsl.irdl import IRDLOperation, OptPropertyDef

from tilewright.passes.rules.rule import Making
from tilewright.passes.rules.scope import SEGMENTS

FROM_TYPE = ("shape", "sizes", "element", "result_types", "result_type")
"""Parameters of constructors that `-> like y` gives: sizes, element type, or the type itself."""
_OF_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@cache
def making_of(op: type[IRDLOperation]) -> Making:
    """How the constructor of `op` takes its operands."""
    parameters = inspect.signature(op).parameters
    if "operands" in parameters and "result_types" in parameters:
        return Making.GENERIC
    if all(name in parameters for name, _ in op.get_irdl_definition().operands):
        return Making.BY_NAME
    return Making.IN_ORDER


@cache
def arguments_of(op: type[IRDLOperation]) -> Mapping[str, bool]:
    """What the constructor of `op` takes besides operands, and whether it must be given."""
    definition, making = op.get_irdl_definition(), making_of(op)
    fields = dict(definition.operands)
    parameters = inspect.signature(op).parameters
    named = {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in parameters.items()
        if name not in fields and parameter.kind not in _OF_ANY_NUMBER
    }
    if making is Making.BY_NAME:
        return named
    properties = {
        name: not isinstance(kind, OptPropertyDef)
        for name, kind in definition.properties.items()
        if name not in SEGMENTS
    }
    return properties if making is Making.GENERIC else {**named, **properties}


def takes_type(op: type[IRDLOperation]) -> tuple[str, ...]:
    """Parameters of the constructor of `op` that follow from the type of its result."""
    if making_of(op) is Making.GENERIC:
        return ()
    parameters = inspect.signature(op).parameters
    return tuple(name for name in FROM_TYPE if name in parameters)
