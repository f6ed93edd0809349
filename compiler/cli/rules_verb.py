"""`tw rules`: lists rewrite rules, shows one, and checks each on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from tempfile import TemporaryDirectory
from time import perf_counter

from hypothesis.configuration import set_hypothesis_home_dir

from tilewright.compiler.cli.output import print_json, print_table
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.rule_checking import (
    RuleGroup,
    RuleReport,
    examine_rule,
    registered_groups,
    rule_groups,
)
from tilewright.compiler.workbench.rule_checking.finding import is_made_of_rules
from tilewright.compiler.workbench.rule_checking.reports import explain, to_json
from tilewright.compiler.workbench.rule_checking.texts import first_line, rule_text
from tilewright.dialects.errors import MiscompileError, OptionError
from tilewright.passes.registry import pipeline_names
from tilewright.passes.rules.rule import Rule

ACTIONS = ("check", "list", "show")


def run_rules(words: Sequence[str], rule: str, *, examples: int, seed: int, json: bool) -> None:
    """`words` are an action and what it is about; without an action, files to list.

    Raises `OptionError` for words that make no sense, `MiscompileError` for rules that are not
    right.
    """
    action, about = (words[0], words[1:]) if words and words[0] in ACTIONS else ("list", words)
    if action == "show":
        if not about:
            raise OptionError(
                "tw rules show takes the name of one rule, behind the files or passes to look in",
                hint="tw rules list",
            )
        _show(about[-1], _groups(about[:-1]), json=json)
        return
    groups = _groups(about)
    if action == "list":
        _list(groups, json=json)
        return
    if not about:
        raise OptionError(
            "tw rules check takes a *.rules file, a .py file with passes, a pass, or a pipeline",
            hint="tw rules list says which there are",
        )
    _check(groups, about, rule, examples=examples, seed=seed, json=json)


def _groups(about: Sequence[str]) -> list[RuleGroup]:
    """The rules of what is named, those of a pipeline pass by pass; all, if nothing is."""
    if not about:
        return list(registered_groups())
    return [
        group
        for name in about
        for each in (_passes_with_rules(name) if name in pipeline_names() else [name])
        for group in rule_groups(each)
    ]


def _passes_with_rules(pipeline: str) -> list[str]:
    """The passes of a pipeline that are made of rules, each once; raises `OptionError` if none
    is."""
    names = list(dict.fromkeys(each.name for each in passes_from_text(pipeline)))
    found = [name for name in names if is_made_of_rules(name)]
    if not found:
        raise OptionError(
            f"no pass of the pipeline {pipeline} is made of rules",
            why=f"it is {', '.join(names)}",
            hint="tw rules list",
        )
    return found


def _list(groups: Sequence[RuleGroup], *, json: bool) -> None:
    rules = list(_distinct(groups))
    if json:
        print_json([_rule_json(group, rule) for group, rule in rules])
        return
    print_table(
        ("rule", "of", "at", "benefit", "what it does"),
        [
            (rule.name, group.name, rule.root_op.op.name, rule.benefit, first_line(rule))
            for group, rule in rules
        ],
    )


def _distinct(groups: Sequence[RuleGroup]) -> Iterator[tuple[RuleGroup, Rule]]:
    """Each rule once: a lowering in Python is checked for each of its ops, and the rules of a
    plugin's file are those of a pass, too."""
    seen: set[tuple[str, str]] = set()
    for group in groups:
        for rule in group.rules:
            if (rule.place, rule.name) not in seen:
                seen.add((rule.place, rule.name))
                yield group, rule


def _rule_json(group: RuleGroup, rule: Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "of": group.name,
        "kind": "rule" if rule.options is None else "lowering",
        "op": rule.root_op.op.name,
        "benefit": rule.benefit,
        "documentation": rule.doc,
        "place": rule.place,
        "text": rule_text(rule),
    }


def _show(name: str, groups: Sequence[RuleGroup], *, json: bool) -> None:
    rules = list(_distinct(groups))
    found = [pair for pair in rules if pair[1].name == name]
    if not found:
        meant = get_close_matches(name, [rule.name for _, rule in rules], n=1)
        guess = f"did you mean {meant[0]}? " if meant else ""
        raise OptionError(f"there is no rule {name}", hint=f"{guess}tw rules list")
    if json:
        print_json([_rule_json(group, rule) for group, rule in found])
        return
    for group, rule in found:
        print(f"{rule.name}, of {group.name}, benefit {rule.benefit}: {rule.place}")
        if rule.doc and not rule_text(rule):
            print(f"\n{rule.doc}")
        if rule_text(rule):
            print(f"\n{rule_text(rule)}")


def _check(
    groups: Sequence[RuleGroup],
    about: Sequence[str],
    rule: str,
    *,
    examples: int,
    seed: int,
    json: bool,
) -> None:
    start = perf_counter()
    wanted = [(group, each) for group in groups for each in group.rules if rule in ("", each.name)]
    if not wanted:
        named = f"no rule {rule}" if rule else "no rule"
        raise OptionError(f"there is {named} in {', '.join(group.name for group in groups)}")
    with TemporaryDirectory() as folder:
        # Hypothesis would keep notes on constants in the user's folder.
        set_hypothesis_home_dir(folder)
        reports = [
            examine_rule(each, max_examples=examples, seed=seed, among=group.among)
            for group, each in wanted
        ]
    if json:
        print_json([to_json(report) for report in reports])
    else:
        again = f"tw rules check {' '.join(about)} --examples {examples} --seed {seed}"
        _print_reports(reports, again, perf_counter() - start)
    wrong = [report for report in reports if not report.is_right]
    if wrong:
        names = dict.fromkeys(f"{report.rule.name} ({report.verdict})" for report in wrong)
        raise MiscompileError(
            f"{len(wrong)} of {len(reports)} rules {'are' if len(wrong) > 1 else 'is'} not right",
            where=wrong[0].rule.place,
            why=", ".join(names),
            hint=None if json else "the counterexamples are above",
        )


def _print_reports(reports: Sequence[RuleReport], again: str, seconds: float) -> None:
    print_table(
        ("rule", "at", "verdict", "instances", "applied", "not covered"),
        [
            (
                report.rule.name,
                report.rule.root_op.op.name,
                report.verdict,
                report.instances,
                report.applied,
                ", ".join(_remarks(report)),
            )
            for report in reports
        ],
    )
    for report in reports:
        lines = list(explain(report))
        if lines:
            print(f"\n{report.rule.place}: {report.rule.name} is {report.verdict}")
            print("\n".join(f"  {line}" for line in lines))
            print(f"  again: {again} --rule {report.rule.name}")
    instances = sum(report.instances for report in reports)
    right = sum(report.is_right for report in reports)
    print(
        f"\n{right} of {len(reports)} rules are right, on {instances:,} instances; {seconds:.1f} s"
    )


def _remarks(report: RuleReport) -> Iterator[str]:
    if report.applied and report.is_right:
        yield from report.uncovered
    if report.shadowed_by:
        yield f"its turn: {report.shadowed_by} always comes first"
