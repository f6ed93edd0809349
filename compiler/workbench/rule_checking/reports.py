"""What a check has found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.compiler.workbench.rule_checking.verdicts import Counterexample, RuleReport

_SHOWN = 12
"""Elements of an array."""


def explain(report: RuleReport) -> Iterator[str]:
    """Why a rule is not right, line by line; nothing where it is."""
    if report.problem:
        yield report.problem
    elif report.counterexample is not None:
        yield from _explain(report.counterexample)
    elif not report.applied:
        yield (
            f"it applied to none of {report.instances} instances of its pattern "
            f"({report.examples} tried)"
        )
        yield (
            "its conditions contradict each other, or what replaces the root has another type"
            if report.instances
            else "no instance of its pattern was found: its conditions contradict each other, or "
            "hold too rarely to be met by chance"
        )


def _explain(example: Counterexample) -> Iterator[str]:
    plan = example.plan
    yield example.finding.message
    if example.merged:
        yield "only with the other rules of the set"
    shown = [name for name in plan.sources if not name.startswith("@")]
    yield "smallest instance: " + ", ".join(f"{name} {plan.tensors[name]}" for name in shown)
    variants = plan.variants(example.root)
    if variants:
        yield "with: " + ", ".join(variants)
    for name, array in example.numbers.items():
        if array.size <= _SHOWN:
            yield f"{name} = {array.tolist()}"
        else:
            yield f"{name} = {array.flat[:_SHOWN].tolist()} and {array.size - _SHOWN} more"
    yield "before:"
    yield from (f"  {line}" for line in body(example.before))
    yield "after:"
    yield from (f"  {line}" for line in body(example.after))


def body(text: str) -> list[str]:
    """The lines of the function in a module's text."""
    lines = text.splitlines()
    kept = [line[2:] for line in lines[1:-1]] if lines[:1] == ["builtin.module {"] else lines
    return [line for line in kept if line.strip()]


def to_json(report: RuleReport) -> dict[str, object]:
    """As `tw rules check --json` prints it."""
    found = report.counterexample
    return {
        "rule": report.rule.name,
        "place": report.rule.place,
        "verdict": report.verdict,
        "seed": report.seed,
        "examples": report.examples,
        "instances": report.instances,
        "applied": report.applied,
        "variants": dict(sorted(report.variants.items())),
        "not_covered": list(report.uncovered),
        "shadowed_by": report.shadowed_by,
        "problem": report.problem,
        "counterexample": None if found is None else _example_json(found),
    }


def _example_json(example: Counterexample) -> dict[str, object]:
    plan, difference = example.plan, example.finding.difference
    return {
        "kind": example.finding.kind,
        "message": example.finding.message,
        "shapes": {
            name: {"shape": list(tensor.shape), "element": tensor.element.name}
            for name, tensor in plan.tensors.items()
        },
        "attributes": plan.attributes,
        "variants": plan.variants(example.root),
        "inputs": {"case": plan.values_case, "seed": plan.values_seed},
        "numbers": {name: array.tolist() for name, array in example.numbers.items()},
        "before": example.before,
        "after": example.after,
        "only_with_other_rules": example.merged,
        "difference": None
        if difference is None
        else {
            "result": difference.what,
            "index": list(difference.index),
            "before": difference.before,
            "after": difference.after,
            "bound": difference.bound,
            "wrong_elements": difference.wrong_elements,
            "elements": difference.elements,
        },
    }
