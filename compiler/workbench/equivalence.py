"""Every pass is checked by running the model before and after it.

`EquivalenceCheck` looks on while a pipeline runs. What the public functions compute on generated
inputs is known before the first pass, and computed again after each pass that has changed anything;
the two must agree within the radii of both (docs/workbench.md says what that means at each stage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.evaluation import (
    Outcome,
    SignatureError,
    evaluate,
    first_difference,
)
from tilewright.compiler.workbench.fingerprints import fingerprints
from tilewright.compiler.workbench.inputs import GeneratedInputs, InputCase, public_functions
from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.dialects.errors import MiscompileError


@dataclass(frozen=True)
class CheckOptions:
    """How passes are checked: the seed and the cases of the generated inputs."""

    seed: int = 0
    cases: tuple[InputCase, ...] = ("random",)

    def inputs(self, module: ModuleOp) -> list[GeneratedInputs]:
        """The generated inputs of `module`, for each case."""
        return [GeneratedInputs(module, seed=self.seed, case=case) for case in self.cases]


@dataclass
class EquivalenceCheck(Instrument):
    """Raises `MiscompileError` after the first pass that changes what the module computes.

    `only`: the numbers (from 1) of the passes to check; all if it is None. `inputs_of`: the module
    that says which inputs there are, if not the one that the pipeline begins with.
    """

    options: CheckOptions = field(default_factory=CheckOptions)
    only: frozenset[int] | None = None
    inputs_of: ModuleOp | None = None

    def __post_init__(self) -> None:
        self._inputs: list[GeneratedInputs] = []
        self._known: Baseline | None = None

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        del passes
        self._inputs = self.options.inputs(module if self.inputs_of is None else self.inputs_of)
        self._known = None

    def before_pass(self, run: PassRun) -> None:
        if self._is_wanted(run) and self._known is None:
            self._known = Baseline(run.module, self._inputs)

    def after_pass(self, run: PassRun) -> None:
        before, self._known = self._known, None
        if before is not None and self._is_wanted(run):
            self._known = before.check(run.module, run.name)

    def _is_wanted(self, run: PassRun) -> bool:
        return self.only is None or run.number in self.only


class Baseline:
    """What a module computes on generated inputs, for others to be checked against."""

    def __init__(self, module: ModuleOp, inputs: Sequence[GeneratedInputs]) -> None:
        self._inputs = inputs
        self._prints = fingerprints(module)
        self._outcomes = {
            (name, each.case): evaluate(module, name, each)
            for each in inputs
            for name in public_functions(module)
        }

    def check(self, module: ModuleOp, pass_name: str) -> Baseline:
        """The baseline of `module`, which `pass_name` has made of the module of this one.

        Raises `MiscompileError` where it computes something else.
        """
        if fingerprints(module) == self._prints:
            return self
        after = Baseline(module, self._inputs)
        if list(self._outcomes) != list(after._outcomes):
            names = sorted({name for name, _ in self._outcomes.keys() ^ after._outcomes.keys()})
            raise MiscompileError(
                f"pass {pass_name} changes which functions there are",
                why=f"only before or after it there is {', '.join(f'@{name}' for name in names)}",
            )
        for (name, case), outcome in self._outcomes.items():
            _compare(name, case, outcome, after._outcomes[name, case], pass_name)
        return after


def _compare(name: str, case: str, before: Outcome, after: Outcome, pass_name: str) -> None:
    try:
        found = first_difference(before, after)
    except SignatureError as error:
        raise MiscompileError(
            f"pass {pass_name} changes what @{name} returns", why=str(error)
        ) from error
    if found is not None:
        raise MiscompileError(
            f"pass {pass_name} changes what @{name} computes on {case} inputs", why=str(found)
        )
