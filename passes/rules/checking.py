"""From a source to its checked rules, with everything that is wrong said at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType, ModuleType

from tilewright.passes.rules import syntax
from tilewright.passes.rules.check_expressions import check_expression
from tilewright.passes.rules.check_match import check_match
from tilewright.passes.rules.check_replace import check_replace
from tilewright.passes.rules.parser import parse
from tilewright.passes.rules.rule import AttributeTest, Rule, RuleSet
from tilewright.passes.rules.scope import NameKind, Scope, did_you_mean, enum_cases
from tilewright.passes.rules.source import Problem, RuleError, Source
from tilewright.passes.rules.values import FUNCTIONS


def load_rules(source: Source) -> RuleSet:
    """The rules of `source`. Raises `RuleError` with all that is wrong with it."""
    file, problems = parse(source)
    functions = _functions(source, file, problems)
    rules: list[Rule] = []
    names: dict[str, int] = {}
    for written in file.rules:
        name = written.name
        if name.text in names:
            problems.append(
                source.problem(
                    f"there is a rule {name.text} already, in line "
                    f"{names[name.text] + source.first_line - 1}",
                    name.span,
                )
            )
        names.setdefault(name.text, name.span.line)
        scope = Scope(source, functions, written.options is not None)
        rule = check_rule(scope, written)
        if scope.problems:
            problems += scope.problems
        else:
            rules.append(rule)
    if problems:
        raise RuleError(sorted(problems, key=lambda problem: problem.order))
    return RuleSet(
        source,
        tuple(rule for rule in rules if rule.options is None),
        tuple(rule for rule in rules if rule.options is not None),
        MappingProxyType(functions),
    )


def check_rule(scope: Scope, written: syntax.RuleSyntax) -> Rule:
    """The rule that is written; of no use where `scope` has problems afterwards."""
    match = check_match(scope, written.match)
    clauses = tuple(_clause(scope, clause) for clause in written.clauses)
    replacement = check_replace(scope, written.replace, match)
    rule = Rule(
        written.name.text,
        written.doc,
        written.benefit,
        None
        if written.options is None
        else MappingProxyType({name.text: value for name, value in written.options}),
        tuple(match.ops),
        match.root,
        MappingProxyType(match.values),
        clauses,
        replacement,
        scope.source,
        written.span,
    )
    if not scope.problems:
        _require_used(scope, rule)
    return rule


def _clause(scope: Scope, clause: syntax.Where | syntax.Let) -> syntax.Where | syntax.Let:
    if isinstance(clause, syntax.Where):
        return syntax.Where(check_expression(scope, clause.condition), clause.span)
    value = check_expression(scope, clause.value)
    scope.define(clause.name, NameKind.LET)
    return syntax.Let(clause.name, value, clause.span)


def _require_used(scope: Scope, rule: Rule) -> None:
    """A name from `let` that nothing uses is a mistake; so is a capture like an enum's word."""
    for clause in rule.clauses:
        if isinstance(clause, syntax.Let) and not scope.names[clause.name.text].used:
            scope.problem(f"{clause.name.text} is not used", clause.span)
    for op in rule.ops:
        for attribute in op.attributes:
            name = str(attribute.value)
            if attribute.test is not AttributeTest.CAPTURE or scope.names[name].used:
                continue
            cases = (*enum_cases(op.op.get_irdl_definition(), attribute.name), "true", "false")
            near = did_you_mean(name, cases)
            if near is not None:
                scope.problem(f"{name} is bound, but not used", attribute.span, near)


def _functions(
    source: Source, file: syntax.FileSyntax, problems: list[Problem]
) -> dict[str, Callable[..., object]]:
    """What the source imports."""
    found: dict[str, Callable[..., object]] = {}
    for use in file.uses:
        try:
            module = _imported(use.module.text, source)
        except Exception as error:
            # Whatever a module of the user's raises while it is imported is theirs to see.
            why = f"{type(error).__name__}: {error}"
            problems.append(
                source.problem(f"cannot import {use.module.text}: {why}", use.module.span)
            )
            module = None
        for name in use.names:
            function = getattr(module, name.text, None)
            if name.text in FUNCTIONS:
                problems.append(source.problem(f"{name.text} is a builtin function", name.span))
            elif callable(function):
                found[name.text] = function
            elif module is None:
                found[name.text] = _missing
            else:
                known = [key for key, value in vars(module).items() if callable(value)]
                problems.append(
                    source.problem(
                        f"{use.module.text} has no function {name.text}",
                        name.span,
                        did_you_mean(name.text, known),
                    )
                )
                found[name.text] = _missing
    return found


def _imported(name: str, source: Source) -> ModuleType:
    """The module of that name: one that Python finds anyway, or else one beside the rules' file."""
    folder = source.folder
    if folder is None or folder in sys.path:
        return import_module(name)
    sys.path.append(folder)
    try:
        return import_module(name)
    finally:
        sys.path.remove(folder)


def _missing(*arguments: object) -> object:
    """Stands for a function that cannot be imported, so that its calls are no further mistakes."""
    raise AssertionError(arguments)
