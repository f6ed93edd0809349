"""The first bad pass of a pipeline, and the first bad step of that pass.

A pipeline is walked with the check after each pass. The pass found is then run again on what it was
given, held back after its nth step: by halves, until n - 1 steps are good and n are bad.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.baseline import Baseline
from tilewright.compiler.workbench.equivalence import (
    CheckOptions,
    EquivalenceCheck,
    chip_of,
    module_before,
)
from tilewright.compiler.workbench.failures import Failure, failure_of
from tilewright.compiler.workbench.runner import Instrument, PassRun, run_pipeline
from tilewright.compiler.workbench.same_bits import promises_same_bits
from tilewright.compiler.workbench.steps import (
    Step,
    StepCounter,
    apply_steps,
    count_steps,
    show_step,
)
from tilewright.dialects.dominance import verify_module


@dataclass(frozen=True)
class Bisection:
    """The first bad pass with its first bad step.

    `step` is None where the pass does not say its steps, or fails with all of them held back.
    """

    failure: Failure
    step: Step | None
    steps: int
    """How many steps the pass takes."""
    runs: int
    """How often the pass was run to find the step."""

    def to_json(self) -> dict[str, object]:
        """The document of `tw bisect --json`."""
        step = self.step
        return {
            **self.failure.to_json(),
            "runs": self.runs,
            "before": "" if step is None else step.before,
            "after": "" if step is None else step.after,
        }


def find_failure(
    module: ModuleOp,
    passes: Sequence[ModulePass],
    options: CheckOptions | None = None,
    *,
    only: int | None = None,
    inputs_of: ModuleOp | None = None,
    numerics: bool = True,
) -> Failure | None:
    """Run `passes` on a copy of `module` under the check; the first failure, if any.

    Its pattern is known here if the failing pass has used no other.

    `only` is the number of the one pass that is checked by running the model; with `numerics` off
    none is.
    """
    found = _Last()
    instruments: list[Instrument] = [found]
    if numerics:
        chosen = None if only is None else frozenset((only,))
        check = EquivalenceCheck(options or CheckOptions(), only=chosen, inputs_of=inputs_of)
        instruments.append(check)
    try:
        run_pipeline(module.clone(), passes, instruments)
    except Exception as error:
        # Whatever a pass raises is what is looked for.
        if found.run is None:
            raise
        failure = failure_of(error, found.run.pass_, found.run.number)
        patterns = found.steps.patterns
        return replace(failure, pattern=next(iter(patterns))) if len(patterns) == 1 else failure
    return None


@dataclass
class _Last(Instrument):
    """Remembers the pass that runs, and its patterns."""

    run: PassRun | None = None

    def __post_init__(self) -> None:
        self.steps = StepCounter()
        self.watcher = self.steps

    def before_pass(self, run: PassRun) -> None:
        self.run = run
        self.steps = StepCounter()
        self.watcher = self.steps


def bisect(
    module: ModuleOp, passes: Sequence[ModulePass], options: CheckOptions | None = None
) -> Bisection | None:
    """The first bad pass and its first bad step; None if nothing fails."""
    options = options or CheckOptions()
    failure = find_failure(module, passes, options)
    if failure is None:
        return None
    before = module_before(module, passes, failure.pass_number)
    pass_ = passes[failure.pass_number - 1]
    return bisect_steps(failure, pass_, before, options, inputs_of=module)


def bisect_steps(
    failure: Failure,
    pass_: ModulePass,
    before: ModuleOp,
    options: CheckOptions,
    *,
    inputs_of: ModuleOp,
) -> Bisection:
    """The first step of `pass_` on `before` with which it fails as `failure` says."""
    steps = count_steps(pass_, before)
    test = _StepTest(failure, pass_, before, options, inputs_of)
    number = first_bad_step(test, steps)
    if number is None:
        return Bisection(replace(failure, steps=steps), None, steps, test.runs)
    step = show_step(pass_, before, number)
    found = replace(failure, step=number, steps=steps)
    if step is not None:
        found = replace(found, pattern=step.pattern, op=step.op)
    return Bisection(found, step, steps, test.runs)


def first_bad_step(fails: Callable[[int], bool], steps: int) -> int | None:
    """An n (from 1) so that a pass held back after n steps fails, and not after n - 1.

    None where it does not fail with all, or fails with none.

    Where good and bad alternate it is not always the least.
    """
    if steps == 0 or fails(0) or not fails(steps):
        return None
    good, bad = 0, steps
    while bad - good > 1:
        middle = (good + bad) // 2
        if fails(middle):
            bad = middle
        else:
            good = middle
    return bad


class _StepTest:
    """Whether a pass fails as before when it is held back after so many steps."""

    def __init__(
        self,
        failure: Failure,
        pass_: ModulePass,
        before: ModuleOp,
        options: CheckOptions,
        inputs_of: ModuleOp,
    ) -> None:
        self._failure, self._pass, self._before = failure, pass_, before
        self._baseline: Baseline | None = None
        if failure.kind == "miscompilation":
            inputs = options.inputs(inputs_of)
            self._baseline = Baseline(before, inputs, chip_of([pass_]))
            self._baseline.expect_bits(before if promises_same_bits(pass_) else None)
        self.runs = 0

    def __call__(self, limit: int) -> bool:
        self.runs += 1
        module = self._before.clone()
        try:
            apply_steps(self._pass, module, limit)
            verify_module(module)
            if self._baseline is not None:
                self._baseline.check(module, self._pass.name, again=self._before.clone)
        except Exception as error:
            # A pass held back may fail in another way: that is not the failure.
            found = failure_of(error, self._pass, self._failure.pass_number)
            return found.is_like(self._failure)
        return False
