"""Checks a rule on instances of its pattern, and finds the smallest on which it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.utils.exceptions import VerifyException

from tilewright.compiler.workbench.rule_checking.choices import Bytes, Picker, search
from tilewright.compiler.workbench.rule_checking.instances import Instance, build
from tilewright.compiler.workbench.rule_checking.lowering import lower
from tilewright.compiler.workbench.rule_checking.plan import Plan
from tilewright.compiler.workbench.rule_checking.planning import make_plan
from tilewright.compiler.workbench.rule_checking.reports import explain
from tilewright.compiler.workbench.rule_checking.trial import Finding, Trial
from tilewright.compiler.workbench.rule_checking.verdicts import Counterexample, RuleReport
from tilewright.dialects.errors import IRError, MiscompileError, TilewrightError
from tilewright.passes.lowerings.from_rules import lowering_of
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.rule import Presence, Rule

EXAMPLES = 100
PLANNING_RUNS = 400
"""How many times choices are turned for one instance before the next is tried."""
HOPELESS = 10
"""So many failures in a row to make a first instance, and it is taken that there is none."""
_FIRST = 3
"""How many plans say how many choices an instance takes."""
_MOST_CHOICES = 128

TOGETHER = 25
"""On how many instances a rule is also applied by the tree of all."""
ATTEMPTS = 12
"""How often a rule that has applied to nothing gets all its examples again."""

_SLOW = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.filter_too_much,
)
"""What Hypothesis would complain of: instances are large, and some take long."""


class _WrongError(Exception):
    """A counterexample: what Hypothesis makes smaller."""


def examine_rule(
    rule: Rule,
    *,
    max_examples: int = EXAMPLES,
    seed: int | None = None,
    among: Sequence[Rule] = (),
) -> RuleReport:
    """Check a rule on up to `max_examples` instances; stops at the first that is wrong.

    Equal seeds give equal instances; the default is 0. With `among`, the rules of a set, it is also
    applied by the merged tree of all of them.
    """
    return _Check(rule, max_examples, seed or 0, among).run()


def check_rule(
    rule: Rule,
    *,
    max_examples: int = EXAMPLES,
    seed: int | None = None,
    among: Sequence[Rule] = (),
) -> RuleReport:
    """`examine_rule`, for tests.

    Raises `MiscompileError` with the smallest counterexample where the rule is wrong, or where it
    applied to no instance.
    """
    report = examine_rule(rule, max_examples=max_examples, seed=seed, among=among)
    if not report.is_right:
        raise error_of(report)
    return report


def error_of(report: RuleReport) -> MiscompileError:
    """The error for a rule that is not right."""
    what = f"rule {report.rule.name} is {report.verdict}"
    return MiscompileError(what, where=report.rule.place, why="\n".join(explain(report)))


class _Check:
    def __init__(self, rule: Rule, max_examples: int, seed_: int, among: Sequence[Rule]) -> None:
        self.rule = rule
        self.max_examples = max_examples
        self.pattern = RulePattern([rule]) if rule.options is None else None
        self.lowering = None
        if rule.options is not None and rule.replacement.results:
            self.lowering = lowering_of(rule)
        self.merged = RulePattern(among) if len(among) > 1 and self.pattern else None
        self.report = RuleReport(rule, seed_)
        self.last: tuple[Plan, Finding, bool] | None = None

    def choices_of_an_instance(self) -> int:
        """How many choices instances take, about; 0 if none is found in a few attempts."""
        random, counts = Random(self.report.seed), list[int]()
        for _ in range(HOPELESS):
            picks: list[int] = []

            def picker(count: int, picks: list[int] = picks) -> int:
                picks.append(count)
                return random.randrange(count)

            if self.plan(picker) is not None:
                counts.append(len(picks))
            if len(counts) == _FIRST:
                break
        return min(max(counts, default=0), _MOST_CHOICES)

    def plan(self, picker: Picker) -> Plan | None:
        """A plan whose first picks are the picker's; None where none is found near them."""
        return search(lambda choices: make_plan(self.rule, choices), picker, limit=PLANNING_RUNS)

    def run(self) -> RuleReport:
        """All instances."""

        try:
            choices = self.choices_of_an_instance()
            for attempt in range(ATTEMPTS if choices else 0):
                if not self.report.applied:
                    self.round(self.report.seed + attempt, 2 * choices)
        except _WrongError:
            assert self.last is not None
            self.report.counterexample = self.counterexample(*self.last)
        except TilewrightError as error:
            self.report.problem = str(error)
        return self.report

    def round(self, seed_: int, size: int) -> None:
        """As many instances as asked for; raises `_WrongError` for the smallest wrong one."""

        @hypothesis.seed(seed_)
        @settings(
            max_examples=self.max_examples,
            database=None,
            deadline=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=_SLOW,
            verbosity=Verbosity.quiet,
        )
        @given(st.binary(min_size=size, max_size=size))
        def run(choices: bytes) -> None:
            self.example(choices)

        run()

    def example(self, choices: bytes) -> None:
        """One instance."""
        counts = self.last is None
        self.report.examples += counts
        plan = self.plan(Bytes(choices))
        if plan is None:
            return
        instance = self.instance(plan)
        if instance is None:
            return
        self.report.instances += counts
        trial = self.trial(instance, plan)
        if not self.apply(instance, plan):
            return
        if counts:
            self.report.applied += 1
            self.report.variants.update(_variants(self.rule, plan))
        self.judge(plan, trial, instance, merged=False)
        if self.merged is not None and self.report.together < TOGETHER:
            self.report.together += counts
            self.together(plan, trial, instance, counts=counts)

    def together(self, plan: Plan, trial: Trial, alone: Instance, *, counts: bool) -> None:
        """The same instance with all rules there."""
        assert self.merged is not None
        instance = build(self.rule, plan)
        self.rewrite(self.merged, instance)
        if self.merged.last_applied != self.rule.name:
            self.report.others[self.merged.last_applied] += counts
        elif not instance.module.is_structurally_equivalent(alone.module):
            self.judge(plan, trial, instance, merged=True)

    def judge(self, plan: Plan, trial: Trial, instance: Instance, *, merged: bool) -> None:
        finding = trial.judge(instance.module, instance.root_name, plan.loose)
        if finding is not None:
            self.last = plan, finding, merged
            raise _WrongError

    def instance(self, plan: Plan) -> Instance | None:
        """The module of a plan; None if the ops of the pattern are not legal after all."""
        instance = build(self.rule, plan)
        try:
            for op in instance.pattern:
                op.verify()
        except (IRError, VerifyException):
            return None
        return instance

    def trial(self, instance: Instance, plan: Plan) -> Trial:
        return Trial(
            instance.module,
            lambda: build(self.rule, plan).module,
            seed=plan.values_seed,
            case=plan.values_case,
            changes_level=self.pattern is None,
        )

    def apply(self, instance: Instance, plan: Plan) -> bool:
        """Apply the rule, and no other of its set, to the root; whether it did."""
        if self.pattern is not None:
            return self.rewrite(self.pattern, instance)
        lowerings = () if self.lowering is None else (self.lowering,)
        return self.rule.name in lower(instance.module, plan.options, lowerings)

    def rewrite(self, pattern: RulePattern, instance: Instance) -> bool:
        """Apply a pattern to the root; whether it did."""
        rewriter = PatternRewriter(instance.root)
        pattern.match_and_rewrite(instance.root, rewriter)
        return rewriter.has_done_action

    def counterexample(self, plan: Plan, finding: Finding, merged: bool) -> Counterexample:
        """The texts before and after, and the numbers."""
        instance = build(self.rule, plan)
        before = module_text(instance.module)
        numbers = self.trial(instance, plan).numbers(instance.module)
        if merged and self.merged is not None:
            self.rewrite(self.merged, instance)
        else:
            self.apply(instance, plan)
        root = self.rule.root_op.results[0]
        after = module_text(instance.module)
        return Counterexample(plan, finding, before, after, root, merged, numbers)


def module_text(module: ModuleOp) -> str:
    """The IR without the marks that a check puts there."""
    return "\n".join(
        line.replace(' {check.mark = "root"}', "").replace('check.mark = "root", ', "")
        for line in str(module).splitlines()
    )


def _variants(rule: Rule, plan: Plan) -> list[str]:
    found = [
        ("without " if name in plan.absent else "with ") + name
        for name, value in rule.values.items()
        if value.presence is Presence.OPTIONAL
    ]
    found += ["operands swapped"] if plan.swapped else []
    found += ["equal operands"] if plan.same else []
    found += (
        ["used elsewhere"] if any(n != rule.root_op.results[0] for n in plan.extra_uses) else []
    )
    return found
