"""Pipelines as text: `pass{option=value},pipeline{option=value},...`.

A named pipeline stands for its passes; an option given to it goes to each of them that has it. A
later option takes the place of an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from tilewright.dialects.errors import OptionError
from tilewright.passes.registry import (
    PASSES,
    find_pass,
    find_pipeline,
    pass_names,
    pipeline_names,
)

ANCHOR = "builtin.module"

ELSEWHERE: Mapping[str, str] = {
    "canonicalize": "canonicalize-top",
    "cse": "eliminate-common-subexpressions",
    "dce": "eliminate-dead-ops",
    "inline": "inline-calls",
}
"""What mlir-opt and xDSL call passes that have other names here."""

_SPACED_COMMA = re.compile(r"(\{[^}]*\})|\s*,\s*")
"""Options, which stay as they are, or a comma with the space around it, which xDSL refuses."""


def passes_from_text(pipeline: str) -> list[ModulePass]:
    """The passes that `pipeline` names, with or without `builtin.module(...)` around it.

    Raises `OptionError` for an unknown pass, pipeline or option, naming the known ones.
    """
    text = _without_anchor(pipeline.strip())
    return [each for spec in _specs(text) for each in _expand(spec, ())] if text else []


def pipeline_text(passes: Iterable[ModulePass], *, all_options: bool = False) -> str:
    """The passes as `passes_from_text` takes them; options that have their default are left out
    unless `all_options`."""
    return ",".join(str(each.spec(include_default=all_options)) for each in passes)


def part_of(
    passes: Sequence[ModulePass], start_from: str | None, stop_after: str | None
) -> list[ModulePass]:
    """The passes from one to another, both included; see `position_of` for what names one.

    Raises `OptionError` where one is not in the pipeline, or they are the wrong way round.
    """
    first = 0 if start_from is None else position_of(start_from, passes)
    last = len(passes) - 1 if stop_after is None else position_of(stop_after, passes)
    if first > last and passes:
        raise OptionError(
            f"--stop-after={stop_after} comes before --start-from={start_from}",
            hint=f"the pipeline is {_numbered(passes)}",
        )
    return list(passes[first : last + 1])


def position_of(name: str, passes: Sequence[ModulePass]) -> int:
    """The index of a pass named `double-buffer`, `double-buffer:2` (the second of that name) or `3`
    (the third of all); raises `OptionError`."""
    wanted, _, occurrence = name.partition(":")
    places = [i for i, each in enumerate(passes) if each.name == wanted]
    if wanted.isdecimal() and not occurrence:
        places, occurrence = list(range(len(passes))), wanted
    number = int(occurrence) if occurrence.isdecimal() else 0 if occurrence else 1
    if not 1 <= number <= len(places):
        raise OptionError(
            f"the pipeline has no pass {name!r}",
            hint=f"it is {_numbered(passes)}; a pass is named by its name, NAME:2 or its number",
        )
    return places[number - 1]


def require_names(names: Iterable[str], option: str) -> None:
    """Check that each of `names` is a registered pass; raises `OptionError`."""
    for name in names:
        if name not in PASSES and name not in pass_names():
            raise _unknown(name, f"unknown pass {name!r} for {option}", pass_names())


def _numbered(passes: Sequence[ModulePass]) -> str:
    return ", ".join(f"{i} {each.name}" for i, each in enumerate(passes, start=1)) or "empty"


def _without_anchor(text: str) -> str:
    if not text.endswith(")"):
        return text
    anchor, _, inside = text[:-1].partition("(")
    if anchor.strip() != ANCHOR:
        raise OptionError(
            f"passes cannot be run on {anchor.strip()!r}",
            why="every pass takes the whole module",
            hint=f"{ANCHOR}(a,b{{x=1}}), or the passes alone",
        )
    return inside.strip()


def _specs(text: str) -> list[ArgSpec]:
    try:
        return list(parse_pipeline(_SPACED_COMMA.sub(lambda at: at[1] or ",", text)))
    except ArgSpecParseError as error:
        raise OptionError(
            "the pass pipeline cannot be parsed", where=text, why=str(error).strip()
        ) from error


def _expand(spec: ArgSpec, outer: tuple[str, ...]) -> list[ModulePass]:
    """The passes of a spec; `outer` are the named pipelines that it stands in."""
    if spec.name in PASSES:
        return [_build(find_pass(spec.name), spec)]
    text = find_pipeline(spec.name)
    if text is None:
        known = (*pass_names(), *pipeline_names())
        if spec.name not in known:
            raise _unknown(spec.name, f"unknown pass {spec.name!r}", known)
        return [_build(find_pass(spec.name), spec)]
    if spec.name in outer:
        path = " -> ".join((*outer, spec.name))
        raise OptionError(f"pipeline {spec.name!r} contains itself", why=path)
    passes = [each for inner in _specs(text) for each in _expand(inner, (*outer, spec.name))]
    return _with_options(passes, spec)


def _with_options(passes: list[ModulePass], spec: ArgSpec) -> list[ModulePass]:
    """The passes of the pipeline `spec.name`, with its options given to those that have them."""
    given = spec.normalize_parameter_names().parameters
    of_each = [_options(type(each)) for each in passes]
    known = sorted({name for names in of_each for name in names})
    for name in given:
        if name not in known:
            raise OptionError(
                f"no pass of pipeline {spec.name!r} has an option {name.replace('_', '-')!r}",
                hint=f"its options: {', '.join(k.replace('_', '-') for k in known) or 'none'}",
            )
    built: list[ModulePass] = []
    for each, names in zip(passes, of_each, strict=True):
        mine = {name: value for name, value in given.items() if name in names}
        own = each.spec().normalize_parameter_names().parameters
        built.append(_build(type(each), ArgSpec(each.name, {**own, **mine})) if mine else each)
    return built


def _build(pass_class: type[ModulePass], spec: ArgSpec) -> ModulePass:
    try:
        return pass_class.from_spec(spec)
    except (ValueError, TypeError) as error:
        known = [name.replace("_", "-") for name in _options(pass_class)]
        raise OptionError(
            f"wrong option for pass {spec.name!r}",
            why=str(error),
            hint=f"its options: {', '.join(known) or 'none'}",
        ) from error


def _options(pass_class: type[ModulePass]) -> list[str]:
    return [field.name for field in fields(pass_class) if field.name != "name"]


def _unknown(name: str, what: str, known: Iterable[str]) -> OptionError:
    known = sorted(known)
    elsewhere = ELSEWHERE.get(name)
    meant = [elsewhere] if elsewhere in known else get_close_matches(name, known, n=1)
    guess = f"did you mean {meant[0]!r}? " if meant else ""
    return OptionError(what, hint=f"{guess}one of {', '.join(known)}")
