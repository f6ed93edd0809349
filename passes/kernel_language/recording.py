"""What records a kernel while its Python function runs: one builder, the loops that are open, and
the user's line of each op."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.dialects.arith import ConstantOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import Rewriter

from tilewright.backends.chip import Chip
from tilewright.backends.program import Access
from tilewright.dialects.errors import FitError, IRError
from tilewright.dialects.memory_types import GlobalType
from tilewright.dialects.source_lines import named_location, readable_place, user_frame
from tilewright.passes.kernels.builder import KernelBuilder

_HERE = Path(__file__).parent
_OURS = (
    str(_HERE),
    *(str(_HERE.parent / "kernels" / f"{name}.py") for name in ("builder", "elementwise")),
    str(_HERE.parent / "kernels" / "matmul.py"),
)
"""Files that stand between the user's line and what it records."""


@dataclass(eq=False)
class Scope:
    """The kernel's body or the body of a loop. What is made in it is known while it is open."""

    place: str
    """Where the loop begins in the user's file."""
    is_open: bool = True
    locals: list[object] = field(default_factory=list[object])


class Recording(KernelBuilder):
    """The builder behind the kernel that is being traced."""

    def __init__(
        self, name: str, arguments: Sequence[tuple[GlobalType, Access]], chip: Chip
    ) -> None:
        super().__init__(arguments)
        self.name = name
        self.chip = chip
        self.scopes = [Scope("the kernel")]
        self.abandoned: list[str] = []
        """Where the loops stand whose bodies were left by `break` or `return`."""
        self._made_in: dict[SSAValue, Scope] = {}
        self._overwritten: dict[SSAValue, str] = {}

    def insert(self, op: Operation) -> Operation:
        op.location = named_location(self.name, user_frame(*_OURS))
        super().insert(op)
        self.remember(op.results)
        return op

    def remember(self, values: Sequence[SSAValue]) -> None:
        """Note that `values` are made in the innermost scope."""
        for value in values:
            self._made_in[value] = self.scopes[-1]

    def overwrite(self, value: SSAValue) -> None:
        """Note that the memory of the tile `value` is another's from here on."""
        self._overwritten[value] = here()

    def require_visible(self, value: SSAValue, what: str) -> None:
        """Raise `IRError` where `value` belongs to a loop that has ended, or is overwritten."""
        if value in self._overwritten:
            raise kernel_error(
                f"{what} is used after tk.accumulate has added to it, in place",
                why=f"that was at {self._overwritten[value]}",
                hint="use what tk.accumulate returns",
            )
        scope = self._made_in.get(value)
        if scope is not None and not scope.is_open:
            raise kernel_error(
                f"{what} is used outside of the loop that makes it",
                why=f"the loop at {scope.place} runs many times, and it is made in each",
                hint="carry it: loop = tk.range(..., carry=(first,)); loop.values; "
                "loop.carry(next), or keep it in a tk.local",
            )

    def retype_argument(self, number: int, view: GlobalType) -> None:
        """View argument `number`, which nothing uses yet, as `view`."""
        Rewriter.replace_value_with_new_type(self._entry.args[number], view)

    def recorded(self) -> list[Operation]:
        """The ops of the kernel's body so far, index constants aside."""
        return [op for op in self._entry.ops if not isinstance(op, ConstantOp)]

    @contextmanager
    def inside(self, body: Block, place: str) -> Generator[Scope]:
        """Append to `body`, the body of the loop at `place`, in a scope of its own."""
        scope, outer = Scope(place), self._block
        self.scopes.append(scope)
        self._block = body
        self.remember(body.args)
        try:
            yield scope
        finally:
            scope.is_open = False
            self.scopes.pop()
            self._block = outer


_RECORDING: ContextVar[Recording | None] = ContextVar("recording", default=None)


@contextmanager
def recording_of(recording: Recording) -> Generator[None]:
    """Make `recording` the current one."""
    token = _RECORDING.set(recording)
    try:
        yield
    finally:
        _RECORDING.reset(token)


def current() -> Recording:
    """The recording of the kernel that is being traced; raises `IRError` where none is."""
    recording = _RECORDING.get()
    if recording is None:
        raise kernel_error(
            "a kernel function was called, but no kernel is being traced",
            hint="attach it to an op with @tk.kernel(Op); the compiler calls it",
        )
    return recording


def here() -> str:
    """The user's line that runs now: `file.py:line:column`."""
    return readable_place(user_frame(*_OURS))


def kernel_error(what: str, *, why: str | None = None, hint: str | None = None) -> IRError:
    """An error about the kernel, at the user's line."""
    return IRError(what, where=here(), why=why, hint=hint)


def fit_error(what: str, *, why: str | None = None, hint: str | None = None) -> FitError:
    """An error about tiles that are too large, at the user's line."""
    return FitError(what, where=here(), why=why, hint=hint)
