"""Every op on the simulator against float64, with the error bound of NUMERICS.md.

Each op is judged on its own: the float64 reference gets the very inputs that the simulated op had, so that an error shows at the op that
makes it and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.program import Launch
from tilewright.backends.reference.bounds import bound
from tilewright.backends.reference.float64 import evaluate
from tilewright.compiler.runtime import Session
from tilewright.dialects.errors import InternalError
from tilewright.dialects.scopes import op_name, source_of, walk_calls
from tilewright.dialects.tpu import CacheUpdateOp
from tilewright.passes.kernels.registry import View
from tilewright.passes.views import needs_kernel, view_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OpComparison:
    """How one executed op compares with float64."""

    function: str
    name: str
    """In the words of the source model."""
    op: str
    source: str
    cosine: float
    snr_db: float
    worst_error: float
    worst_bound: float
    """The bound where error / bound is largest."""
    ratio: float
    """Largest error / bound; at most 1 if the op is within its bound."""

    @property
    def in_bound(self) -> bool:
        return self.ratio <= 1

    def to_json(self) -> dict[str, object]:
        """A row of `tw compare --json` (docs/json.md); infinities become null."""
        return {
            "function": self.function,
            "name": self.name,
            "op": self.op,
            "source": self.source,
            "cosine": _finite(self.cosine),
            "snr_db": _finite(self.snr_db),
            "worst_error": _finite(self.worst_error),
            "worst_bound": _finite(self.worst_bound),
            "ratio": _finite(self.ratio),
            "in_bound": self.in_bound,
        }


def compare_function(
    session: Session, module: ModuleOp, name: str, inputs: Mapping[str, Array]
) -> tuple[dict[str, Array], list[OpComparison]]:
    """Run an entry function and compare each of its ops; returns outputs and comparisons in order."""
    executed = list(_executed_ops(module, name))
    launches = session.function(name).launches
    if len(executed) != len(launches):
        raise InternalError(
            f"@{name} has {len(launches)} launches for {len(executed)} ops",
            hint="the artifact's module and commands are not of one compilation",
        )
    rows: list[OpComparison] = []

    def around(index: int, launch: Launch, execute: Callable[[], None]) -> None:
        op, scope = executed[index]
        views = [view_of(operand).view for operand in op.operands]
        operands = _read(session, launch.addresses[: len(views)], views)
        execute()
        if isinstance(op, CacheUpdateOp):
            results = _read(session, launch.addresses[:1], views[:1])
        else:
            result_views = [View.of_type(result.type) for result in op.results]
            results = _read(session, launch.addresses[len(views) :], result_views)
        rows.append(_compare(name, scope, op, operands, results[0]))

    outputs = session.run(name, inputs, around=around)
    return outputs, rows


def first_out_of_bound(rows: Sequence[OpComparison]) -> OpComparison | None:
    """The first op, in order of execution, that leaves its bound."""
    return next((row for row in rows if not row.in_bound), None)


def metrics(value: Array, exact: Array) -> tuple[float, float]:
    """Cosine similarity and signal-to-noise ratio in dB of `value` against `exact`, in float64."""
    x, y = value.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    cosine = float(x @ y) / norms if norms else float(np.array_equal(x, y))
    noise = float(np.sum((x - y) ** 2))
    signal = float(np.sum(y**2))
    snr = 10 * np.log10(signal / noise) if noise and signal else float("inf")
    return cosine, float(snr)


def _executed_ops(module: ModuleOp, name: str) -> Iterator[tuple[Operation, str]]:
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    for op, scope in walk_calls(module, functions[name]):
        if needs_kernel(op):
            yield op, scope


def _read(session: Session, addresses: Sequence[int], views: Sequence[View]) -> list[Array]:
    return [
        session.tensor(address, view.shape, view.element, view.pitch_bytes)
        for address, view in zip(addresses, views, strict=True)
    ]


def _compare(
    function: str, scope: str, op: Operation, operands: Sequence[Array], result: Array
) -> OpComparison:
    exact = evaluate(op, operands)[0]
    limit = bound(op, operands, exact)
    value = result.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(value - exact)
        same = (value == exact) | (np.isnan(value) & np.isnan(exact))
        error = np.where(same, 0.0, error)
        limits = np.zeros_like(error) if limit is None else np.broadcast_to(limit, error.shape)
        ratio = np.where(same, 0.0, error / limits)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    worst = int(np.argmax(ratio)) if ratio.size else 0
    cosine, snr = metrics(value, exact)
    return OpComparison(
        function,
        scope + op_name(op),
        op.name,
        source_of(op),
        cosine,
        snr,
        float(error.ravel()[worst]),
        float(limits.ravel()[worst]),
        float(ratio.ravel()[worst]),
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
