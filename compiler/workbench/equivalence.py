"""Every pass is checked by running the model before and after it.

`EquivalenceCheck` looks on while a pipeline runs. What the public functions compute on generated
inputs is known before the first pass, and computed again after each pass that has changed anything;
the two must agree within the radii of both (docs/workbench.md says what that means at each stage).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.compiler.workbench.baseline import Baseline
from tilewright.compiler.workbench.inputs import CASES, GeneratedInputs, InputCase
from tilewright.compiler.workbench.runner import Instrument, PassRun, run_pipeline
from tilewright.compiler.workbench.same_bits import promises_same_bits
from tilewright.dialects.errors import OptionError

DEFAULT_CHIP = "bm1684x"


@dataclass(frozen=True)
class CheckOptions:
    """How passes are checked: the seed and the cases of the generated inputs."""

    seed: int = 0
    cases: tuple[InputCase, ...] = ("random",)

    def inputs(self, module: ModuleOp) -> list[GeneratedInputs]:
        """The generated inputs of `module`, for each case."""
        return [GeneratedInputs(module, seed=self.seed, case=case) for case in self.cases]


def cases_of(names: Sequence[str]) -> tuple[InputCase, ...]:
    """The cases of these names; raises `OptionError` for one that there is not, or for none."""
    known: dict[str, InputCase] = {case: case for case in CASES}
    for name in names or ("",):
        if name not in known:
            raise OptionError(f"unknown case of inputs {name!r}", hint=f"one of {', '.join(CASES)}")
    return tuple(known[name] for name in names)


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
        self.unchecked: list[str] = []
        """What could not be judged, and after which pass."""
        self._known: Baseline | None = None
        self._first: ModuleOp | None = None
        self._passes: tuple[ModulePass, ...] = ()

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        self._first, self._passes = module.clone(), tuple(passes)
        self._inputs = self.options.inputs(module if self.inputs_of is None else self.inputs_of)
        self._known = None

    def before_pass(self, run: PassRun) -> None:
        if not self._is_wanted(run):
            return
        if self._known is None:
            self._known = Baseline(run.module, self._inputs, chip_of(self._passes))
        self._known.expect_bits(run.module if promises_same_bits(run.pass_) else None)

    def after_pass(self, run: PassRun) -> None:
        before, self._known = self._known, None
        if before is not None and self._is_wanted(run):
            self._known = before.check(run.module, run.name, again=self._before(run.number))
            self.unchecked += [f"after pass {run.name}: {each}" for each in before.unchecked]
            before.unchecked.clear()

    def finish(self) -> None:
        for each in self.unchecked:
            print(f"not checked {each}", file=sys.stderr)

    def _is_wanted(self, run: PassRun) -> bool:
        return self.only is None or run.number in self.only

    def _before(self, number: int) -> Callable[[], ModuleOp]:
        def again() -> ModuleOp:
            assert self._first is not None
            return module_before(self._first, self._passes, number)

        return again


def module_before(module: ModuleOp, passes: Sequence[ModulePass], pass_number: int) -> ModuleOp:
    """What pass number `pass_number` (from 1) is given: the passes before it, run on a copy."""
    before = module.clone()
    run_pipeline(before, passes[: pass_number - 1])
    return before


def chip_of(passes: Sequence[ModulePass]) -> Chip:
    """The chip that a pipeline is for: the option `chip` of the first pass that has one."""
    names = (getattr(each, "chip", None) for each in passes)
    return load_chip(next((name for name in names if isinstance(name, str)), DEFAULT_CHIP))
