"""What a module computes on generated inputs, for what a pass makes of it to be checked against."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.backends.program import Kernel
from tilewright.backends.reference.kernels.running import Kernel as CompiledKernel
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.compiler.workbench.evaluation import (
    Launched,
    Outcome,
    Recorder,
    SignatureError,
    chains_of,
    evaluate,
    first_difference,
    single_calls,
)
from tilewright.compiler.workbench.fingerprints import fingerprint, split_fingerprint, symbol_of
from tilewright.compiler.workbench.inputs import GeneratedInputs, public_functions
from tilewright.compiler.workbench.kernel_checks import (
    check_commands,
    check_numbers,
    check_waits,
    has_waits,
    kernel_text,
)
from tilewright.compiler.workbench.linked_check import check_linked
from tilewright.compiler.workbench.same_bits import Bits
from tilewright.compiler.workbench.simulation import Simulation
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.errors import MiscompileError, TilewrightError

_TIMING = frozenset(("waits",))
"""Attributes that change when something happens, and not what."""


class Baseline:
    """A module's functions and kernels by fingerprint, what the functions compute, and the first
    launch of each kernel.

    Chains of calls are run for their first call only, unless `whole`.
    """

    def __init__(
        self,
        module: ModuleOp,
        inputs: Sequence[GeneratedInputs],
        chip: Chip,
        *,
        whole: bool = False,
        simulation: Simulation | None = None,
    ) -> None:
        self._inputs, self._chip, self._whole = inputs, chip, whole
        self._simulation = Simulation(chip) if simulation is None else simulation
        self._launches: dict[str, Launched] = {}
        self._bits: Bits | None = None
        self.unchecked: list[str] = []
        """What has been run and could not be judged."""
        self._encoded: dict[str, Kernel] = {}
        self._compiled: dict[str, CompiledKernel] = {}
        self._graph, self._kernels = _prints(module)
        self._chains = chains_of(module)
        for op in module.ops:
            if isinstance(op, FuncOp) and _is_kernel(op) and has_waits(op):
                self._compiled[symbol_of(op)] = CompiledKernel(op)
        cut = nullcontext() if whole else single_calls(module)
        with threads_for(module), cut:
            self._outcomes: dict[tuple[str, str], Outcome] = {
                (name, each.case): evaluate(
                    module,
                    name,
                    each,
                    run_program=self._simulation.run_program,
                    on_op=Recorder(name, each.case, self._launches),
                )
                for each in inputs
                for name in public_functions(module)
            }

    def expect_bits(self, module: ModuleOp | None) -> None:
        """The next pass promises the same bits; `module` is still that of this baseline. None: it
        promises nothing."""
        self._bits = None if module is None else Bits.of(module, self._inputs)

    def check(self, module: ModuleOp, pass_name: str, *, again: Callable[[], ModuleOp]) -> Baseline:
        """The baseline of `module`, which `pass_name` has made of the module of this one.

        `again` makes the module of this one anew. Raises `MiscompileError` where the new module
        computes something else, races, or cannot be executed.
        """
        with threads_for(module):
            return self._checked(module, pass_name, again)

    def _checked(self, module: ModuleOp, pass_name: str, again: Callable[[], ModuleOp]) -> Baseline:
        graph, kernels = _prints(module)
        if graph == self._graph and kernels.keys() == self._kernels.keys():
            changed = [
                op
                for op in module.ops
                if _is_kernel(op) and kernels[symbol_of(op)] != self._kernels[symbol_of(op)]
            ]
            if changed:
                self._check_kernels(module, changed, kernels, pass_name)
            return self
        before = self
        if not self._whole and chains_of(module) != self._chains:
            inputs, chip = self._inputs, self._chip
            before = Baseline(again(), inputs, chip, whole=True, simulation=self._simulation)
        after = before._check_functions(module, pass_name)
        if self._bits is not None:
            with _executing(pass_name, "the module"):
                self._bits.check(module, pass_name, again)
        return after

    def _check_kernels(
        self,
        module: ModuleOp,
        changed: Sequence[Operation],
        prints: Mapping[str, tuple[int, int]],
        pass_name: str,
    ) -> None:
        for op in changed:
            name = symbol_of(op)
            with _executing(pass_name, kernel_text(op)):
                same_numbers = prints[name][0] == self._kernels[name][0]
                self._check_kernel(op, name, pass_name, same_numbers=same_numbers)
            # Only what has been found right counts as known: a bisection comes here again.
            self._kernels[name] = prints[name]
        if all(isinstance(op, ProgramOp) for op in module.ops if _is_kernel(op)):
            with _executing(pass_name, "the linked program"):
                for each in self._inputs:
                    check_linked(module, each, self._simulation, self._chip, pass_name)

    def _check_kernel(
        self, op: Operation, name: str, pass_name: str, *, same_numbers: bool
    ) -> None:
        launched = self._launches.get(name)
        if isinstance(op, ProgramOp):
            if launched is not None and name in self._compiled:
                kernel, planned = self._compiled[name], self._encoded.get(name)
                self.unchecked += check_commands(
                    op, kernel, planned, launched, self._simulation, pass_name
                )
            else:
                self.unchecked.append(f"{kernel_text(op)}: nothing launches it")
            return
        assert isinstance(op, FuncOp)
        if name not in self._compiled or not same_numbers:
            compiled = CompiledKernel(op)
            if launched is not None:
                check_numbers(op, compiled, launched, pass_name)
            self._compiled[name] = compiled
        if has_waits(op):
            self._encoded[name] = check_waits(op, launched, self._chip, pass_name)

    def _check_functions(self, module: ModuleOp, pass_name: str) -> Baseline:
        with _executing(pass_name, "the module"):
            after = Baseline(
                module,
                self._inputs,
                self._chip,
                whole=self._whole,
                simulation=self._simulation,
            )
        if list(self._outcomes) != list(after._outcomes):
            names = sorted({name for name, _ in self._outcomes.keys() ^ after._outcomes.keys()})
            raise MiscompileError(
                f"pass {pass_name} changes which functions there are",
                why=f"only before or after it there is {', '.join(f'@{name}' for name in names)}",
            )
        for (name, case), outcome in self._outcomes.items():
            _compare(name, case, outcome, after._outcomes[name, case], pass_name)
        return after


def _prints(module: ModuleOp) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """The fingerprints of what launches kernels, and of the kernels: what happens, and when."""
    graph: dict[str, int] = {}
    kernels: dict[str, tuple[int, int]] = {}
    for op in module.ops:
        if _is_kernel(op):
            kernels[symbol_of(op)] = split_fingerprint(op, _TIMING)
        else:
            graph[symbol_of(op)] = fingerprint(op)
    return graph, kernels


def _is_kernel(op: Operation) -> bool:
    return isinstance(op, ProgramOp) or "tpu.kernel" in op.attributes


@contextmanager
def _executing(pass_name: str, what: str) -> Generator[None]:
    """Turn what the reference or the simulator objects to into a miscompilation."""
    try:
        yield
    except MiscompileError:
        raise
    except TilewrightError as error:
        raise MiscompileError(
            f"after pass {pass_name} {what} cannot be executed",
            where=error.where,
            why=error.what + (f": {error.why}" if error.why else ""),
        ) from error


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
