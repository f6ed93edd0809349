"""Whether a smaller module still fails in the same way: each candidate is tried once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.bisect import bisect_steps, find_failure
from tilewright.compiler.workbench.equivalence import CheckOptions, module_before
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.fingerprints import fingerprint
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import TilewrightError
from tilewright.dialects.scopes import functions_of


class Trial:
    """Tries candidates, and remembers the smallest module that failed.

    A candidate counts if it is legal and fails as `failure` says: the same kind, pass and detail,
    and where the pattern is known, the same pattern.
    """

    def __init__(
        self,
        module: ModuleOp,
        passes: Sequence[ModulePass],
        failure: Failure,
        options: CheckOptions,
    ) -> None:
        self.module = module
        self.failure = failure
        self.tries = 0
        self._passes = passes[: failure.pass_number]
        self._options = options
        self._seen: set[int] = {fingerprint(module)}

    def first(self, candidates: Iterable[ModuleOp | None]) -> bool:
        """Take the first candidate that fails; whether there is one."""
        return any(candidate is not None and self.take(candidate) for candidate in candidates)

    def take(self, candidate: ModuleOp) -> bool:
        """Take `candidate` for the module if it fails in the same way."""
        print_ = fingerprint(candidate)
        if print_ in self._seen:
            return False
        self._seen.add(print_)
        if not self._fails(candidate):
            return False
        self.module = candidate
        return True

    def _fails(self, candidate: ModuleOp) -> bool:
        try:
            verify_module(candidate)
        except TilewrightError:
            return False
        self.tries += 1
        number = self.failure.pass_number
        try:
            found = find_failure(
                candidate,
                self._passes,
                self._options,
                only=number,
                numerics=self.failure.kind == "miscompilation",
            )
        except TilewrightError:
            # There are no inputs for it.
            return False
        if found is None or not self.failure.is_like(found) or found.pass_number != number:
            return False
        known = bool(found.pattern) or not self.failure.pattern
        return known or self._same_pattern(candidate, found)

    def _same_pattern(self, candidate: ModuleOp, found: Failure) -> bool:
        before = module_before(candidate, self._passes, found.pass_number)
        pass_ = self._passes[found.pass_number - 1]
        bisection = bisect_steps(found, pass_, before, self._options, inputs_of=candidate)
        return bisection.failure.pattern == self.failure.pattern


def count_ops(module: ModuleOp) -> int:
    """The ops of all functions, without the functions themselves and their returns."""
    return sum(
        sum(1 for _ in function.walk()) - 1 - len(function.body.blocks)
        for function in functions_of(module).values()
        if not function.is_declaration
    )
