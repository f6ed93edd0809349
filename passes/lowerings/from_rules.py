"""Lowerings that are written in the rewrite language.

    lowering LowerLinearGELUToW8A16 for quant = "w8a16" {
      match {
        y = top.MatMul(x, w: weight, b) {right_transpose} [uses = 1]
        z = top.GELU(y)
      }
      replace z with acme.MatMulGELU(x, codes(w), scale(w), bias = b)
    }

The pattern is matched in the model as it was, the replacement made of what has been converted:
floats are read in the compute type; `codes(w)` and `scale(w)` are the int8 codes `[N, K]` and the
scales `[N, 1]` of a weight, whichever way round a matched product takes it. A lowering that needs
another type for an operand, as RoPE does for its tables, is written in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from xdsl.ir import Operation, SSAValue

from tilewright.dialects import graph, top
from tilewright.dialects.graph import shape_of
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.registry import OPTIONS, Lowering, Option, register
from tilewright.passes.rules.building import Builder
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.matching import MatchedRule, Matcher
from tilewright.passes.rules.rule import OpBuild, Rule, RuleSet, TypeOf
from tilewright.passes.rules.source import file_source
from tilewright.passes.rules.syntax import Name
from tilewright.passes.rules.values import NoValueError


def register_rules(rules: Path | RuleSet) -> None:
    """Register the lowerings in a file of rules, or of a set. Its other rules are for passes.

    Raises `RuleError` for what makes no sense, `OptionError` for a name that is taken.
    """
    found = rules if isinstance(rules, RuleSet) else load_rules(file_source(rules))
    for rule in found.lowerings:
        register(lowering_of(rule))


def lowering_of(rule: Rule) -> Lowering:
    """The lowering that a rule says; raises `RuleError` for options that the pass does not have."""
    options: dict[str, tuple[Option, ...]] = {}
    for name, value in (rule.options or {}).items():
        if name not in OPTIONS or not isinstance(value, str | bool):
            raise rule.source.error(
                f"{name} = {value!r} is no option of convert-top-to-tpu",
                rule.span,
                f"its options: {', '.join(OPTIONS)}",
            )
        options[name] = (value,)
    return Lowering(
        rule.name,
        rule.root_op.op,
        _RuleLowering(rule),
        options,
        rule.benefit,
        rule.doc,
        rule.source.name,
    )


class _RuleLowering:
    """Matches a rule in the old function, and builds its replacement in the new one."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.read = _read_by(rule)

    @cached_property
    def matcher(self) -> Matcher:
        return Matcher((self.rule,))

    @cached_property
    def builder(self) -> Builder:
        return Builder(self.rule)

    def __call__(self, op: Operation, convert: Conversion) -> Sequence[SSAValue] | None:
        for match in self.matcher.matches(op):
            mark = convert.mark()
            results = self._build(match, op, convert)
            if results is not None:
                return results
            convert.take_back(mark)
        return None

    def _build(
        self, match: MatchedRule, op: Operation, convert: Conversion
    ) -> Sequence[SSAValue] | None:
        """What replaces the results of `op`; None where it cannot be made, or has other shapes."""
        names: dict[str, object] = dict(match.names)
        old: dict[SSAValue, SSAValue] = {}
        for name in self.read:
            names[name] = _converted(names.get(name), convert, old)

        def form_of(form: int) -> Callable[[SSAValue], SSAValue]:
            return lambda value: _codes_and_scale(old.get(value, value), match, convert)[form]

        built = self.builder.build(names, {"codes": form_of(0), "scale": form_of(1)})
        if built is None:
            return None
        if list(map(shape_of, built.results)) != list(map(shape_of, op.results)):
            built.discard()
            return None
        for new in built.ops:
            convert.append(new, op)
        return built.results


def _converted(value: object, convert: Conversion, old: dict[SSAValue, SSAValue]) -> object:
    """A matched value, or several, as converted; `old` learns where they come from."""
    if isinstance(value, tuple):
        return tuple(_converted(each, convert, old) for each in value)
    if not isinstance(value, SSAValue):
        return value
    new = convert.read(value, convert.compute)
    old[new] = value
    return new


def _codes_and_scale(
    value: SSAValue, match: MatchedRule, convert: Conversion
) -> tuple[SSAValue, SSAValue]:
    weight = value.owner
    if not isinstance(weight, top.WeightOp):
        raise NoValueError  # the rule does not apply
    transposed = any(
        isinstance(op, graph.MatMul) and op.right is value and op.right_transpose is None
        for op in match.ops
    )
    return convert.codes_and_scale(weight, transposed=transposed)


def _read_by(rule: Rule) -> list[str]:
    """The matched values that the replacement reads, but for those of which it takes codes only."""
    replacement = rule.replacement
    found = dict.fromkeys(replacement.results)
    for step in replacement.steps:
        if isinstance(step, OpBuild):
            for argument in step.operands:
                names = argument.value if isinstance(argument.value, tuple) else (argument.value,)
                found.update(dict.fromkeys(name for name in names if name is not None))
            if isinstance(step.result_type, TypeOf):
                found[step.result_type.name] = None
        elif step.call.target is not None:
            names = (each.name for each in step.call.arguments if isinstance(each, Name))
            found.update(dict.fromkeys(names))
    return [name for name in found if name in rule.values]
