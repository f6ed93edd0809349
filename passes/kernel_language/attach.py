"""`@tk.kernel(Op)`: a Python function becomes the kernel of an op."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import IRDLOperation, OptionalDef, VariadicDef
from xdsl.utils.exceptions import VerifyException

from tilewright.backends.chip import Chip
from tilewright.backends.program import Access
from tilewright.dialects.errors import IRError, TilewrightError
from tilewright.dialects.source_lines import readable_file
from tilewright.passes.kernel_language.finishing import check_coverage, erase_unused, fuse_casts
from tilewright.passes.kernel_language.recording import Recording, recording_of
from tilewright.passes.kernel_language.tensors import Argument, Tensor
from tilewright.passes.kernels.registry import View, register

Body = Callable[..., None]


@dataclass(frozen=True)
class Kernel:
    """A kernel function and the op that it computes.

    The function is called with the op, a `Tensor` for each operand in the order of the op's
    definition (`None` for one that is left out, a list for a variadic one), one for each result,
    and the chip.
    """

    body: Body
    op_class: type[IRDLOperation]

    @property
    def name(self) -> str:
        return self.body.__name__

    @property
    def place(self) -> str:
        """Where the function stands: `file.py:line`."""
        code = inspect.unwrap(self.body).__code__
        return f"{readable_file(code.co_filename)}:{code.co_firstlineno}"

    def build(
        self, op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
    ) -> func.FuncOp:
        """Trace the function: the kernel of `op` on those views of global memory.

        Raises `IRError` and `FitError` with the line of the function that is wrong.
        """
        pairs = [*_accessed(operands, "read"), *_accessed(results, "write")]
        recording = Recording(self.name, [(view.global_type(), mode) for view, mode in pairs], chip)
        tensors = [
            Tensor(Argument(recording, number, view, mode))
            for number, (view, mode) in enumerate(pairs)
        ]
        grouped = list(_grouped(op, tensors))
        self._name_arguments(recording, grouped)
        with recording_of(recording):
            self._run(op, *grouped, chip)
        if recording.abandoned:
            raise IRError(
                "the body of a tk.range is left by break or return",
                where=recording.abandoned[0],
                why="it is traced once, for all iterations",
            )
        kernel = recording.finish(op.name)
        fuse_casts(kernel)
        erase_unused(kernel)
        names = self._result_names(len(results))
        try:
            first = len(operands)
            check_coverage(kernel, {first + number: name for number, name in enumerate(names)})
        except TilewrightError as error:
            error.where = f"{self.place} (kernel of {op.name})"
            raise
        return kernel

    def _run(self, *arguments: object) -> None:
        """Call the function; what it raises of itself is said with its line."""
        try:
            self.body(*arguments)
        except (TilewrightError, VerifyException):
            raise
        except Exception as error:
            file = inspect.unwrap(self.body).__code__.co_filename
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == file]
            raise IRError(
                f"the kernel {self.name} cannot be traced",
                where=f"{readable_file(file)}:{lines[-1]}" if lines else self.place,
                why=f"{type(error).__name__}: {error}",
            ) from error

    def _name_arguments(
        self, recording: Recording, grouped: Sequence[Tensor | list[Tensor] | None]
    ) -> None:
        """IR text calls tensors as the function does."""
        names = list(inspect.signature(self.body).parameters)[1:-1]
        for name, tensor in zip(names, grouped, strict=True):
            if isinstance(tensor, Tensor) and SSAValue.is_valid_name(name):
                recording.arguments[tensor.argument.number].name_hint = name

    def _result_names(self, count: int) -> list[str]:
        return list(inspect.signature(self.body).parameters)[-1 - count : -1]


def _accessed(views: Sequence[View], access: Access) -> list[tuple[View, Access]]:
    return [(view, access) for view in views]


def kernel(op_class: type[IRDLOperation]) -> Callable[[Body], Kernel]:
    """Decorator: the function is the kernel of `op_class`, a `tpu`-level op.

        @tk.kernel(GatedRMSNormOp)
        def gated_rms_norm(op, x, gate, weight, y, chip): ...

    Raises `IRError` where the function does not take op, operands, results and chip.
    """

    def decorate(body: Body) -> Kernel:
        made = Kernel(body, op_class)
        definition = op_class.get_irdl_definition()
        wanted = [
            "op",
            *(name for name, _ in definition.operands),
            *(name for name, _ in definition.results),
            "chip",
        ]
        given = list(inspect.signature(body).parameters)
        if len(given) != len(wanted):
            raise IRError(
                f"the kernel of {op_class.name} takes {len(given)} parameters, not {len(wanted)}",
                where=made.place,
                hint=f"def {body.__name__}({', '.join(wanted)}): ...",
            )
        register(op_class)(made.build)
        return made

    return decorate


def _grouped(op: Operation, tensors: Sequence[Tensor]) -> Iterator[Tensor | list[Tensor] | None]:
    """Tensors as the definition of `op` groups its operands and results."""
    assert isinstance(op, IRDLOperation)
    definition = type(op).get_irdl_definition()
    left = iter(tensors)
    for name, kind in (*definition.operands, *definition.results):
        value: object = getattr(op, name)
        if isinstance(kind, OptionalDef):
            yield None if value is None else next(left)
        elif isinstance(kind, VariadicDef):
            count = len(value) if isinstance(value, Sequence) else 0
            yield [next(left) for _ in range(count)]
        else:
            assert isinstance(value, SSAValue)
            yield next(left)
