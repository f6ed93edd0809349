"""What a compiled model has lost, op by op: its values on the simulated machine against those of a
reference on the same inputs. Errors accumulate through the model.

For each linear layer there is also the error that it makes by itself: the layer with float weights
is computed on the inputs that the machine gave it. The shares of a function's error are of these.
The prediction is the closed formula for each layer (`sensitivity`), composed along the graph
(`prediction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.compiler.compare import Execution, observe
from tilewright.compiler.reports.figures import ChannelSums, decibels, finite
from tilewright.compiler.reports.reference_runs import (
    OpCounter,
    OpKey,
    Reference,
    ReferenceRun,
)
from tilewright.compiler.runtime import Session
from tilewright.dialects import tpu
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import storage_of
from tilewright.dialects.scopes import source_of
from tilewright.dialects.tpu.structure import WeightForm

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """One run of a function; of tensors with `positions` rows only the first `tokens` count."""

    function: str
    inputs: Mapping[str, Array]
    positions: int = 0
    tokens: int = 0

    def rows(self, array: Array) -> Array:
        """The rows that stand for tokens."""
        if array.ndim and 0 < self.tokens < self.positions == len(array):
            return array[: self.tokens]
        return array


@dataclass
class OpError:
    """One op of the compiled model against the reference, over all runs."""

    key: OpKey
    op: str
    scheme: str
    """What its weight is stored as, or the type of its result."""
    source: str
    order: int
    sums: ChannelSums
    own: ChannelSums | None = None
    """The error that a linear layer adds to that of its inputs."""
    predicted: float | None = None
    """The predicted energy of the error over that of the signal."""
    share: float | None = None
    """Of the errors that the function's linear layers add."""
    squares: Array | None = None
    """Of a linear layer's inputs in the reference: sums by input, and how many rows."""
    rows: int = 0
    activations: tuple[float, float] | None = None
    """The scales of the input and output of an int8 layer."""

    def to_json(self) -> dict[str, object]:
        """A row of `tw compare --source --json` (docs/json.md); infinities become null."""
        worst = self.sums.worst_channel
        predicted = None if self.predicted is None else decibels(self.predicted)
        return {
            "function": self.key.function,
            "name": self.key.name,
            "op": self.op,
            "scheme": self.scheme,
            "source": self.source,
            "snr_db": finite(self.sums.snr_db),
            "cosine": finite(self.sums.cosine),
            "predicted_snr_db": finite(predicted),
            "own_snr_db": None if self.own is None else finite(self.own.snr_db),
            "share": self.share,
            "worst_channel": worst,
            "worst_channel_snr_db": finite(float(self.sums.channel_snr_db[worst])),
        }


@dataclass
class ModelErrors:
    """All ops that have a counterpart, in order of execution, and those that have none."""

    rows: dict[OpKey, OpError] = field(default_factory=dict[OpKey, OpError])
    outputs: dict[tuple[str, str], ChannelSums] = field(
        default_factory=dict[tuple[str, str], ChannelSums]
    )
    """By function and name of the output."""
    without: set[OpKey] = field(default_factory=set[OpKey])
    last: dict[str, ReferenceRun] = field(default_factory=dict[str, ReferenceRun])
    """The last run of each function, for the prediction."""
    squares: dict[OpKey, tuple[float, int]] = field(default_factory=dict[OpKey, tuple[float, int]])
    """Of every value of the reference: the sum of squares, and how many elements."""


def model_errors(
    session: Session,
    module: ModuleOp,
    reference: Reference,
    runs: Iterable[Run],
    *,
    on_op: Callable[[Execution], None] = lambda execution: None,
) -> ModelErrors:
    """Run each of `runs` on the machine and on the reference, and compare every op; `on_op` sees
    each execution, too. States of the reference and of the session go on from where they are.

    Raises what both runs raise, and `OptionError` where the two have no op in common.
    """
    errors = ModelErrors()
    for run in runs:
        expected = reference.run(run.function, run.inputs)
        watcher = _Watcher(errors, run, expected)

        def both(execution: Execution, watcher: _Watcher = watcher) -> None:
            watcher(execution)
            on_op(execution)

        outputs = observe(session, module, run.function, run.inputs, both)
        for (name, made), exact in zip(outputs.items(), expected.outputs, strict=False):
            if made.shape == exact.shape and exact.dtype.kind == "f":
                sums = ChannelSums.of(run.rows(exact), run.rows(made))
                at = (run.function, name)
                errors.outputs[at] = errors.outputs[at] + sums if at in errors.outputs else sums
        _count_squares(errors, run, expected)
        errors.last[run.function] = expected
    if not errors.rows:
        raise OptionError(
            f"no op of the artifact is in {reference.what}",
            why="ops are matched by their names in the source model",
            hint="give the checkpoint that the artifact was compiled from",
        )
    _set_shares(errors)
    return errors


def _count_squares(errors: ModelErrors, run: Run, expected: ReferenceRun) -> None:
    for key, value in expected.values.items():
        if value.dtype.kind == "f":
            held = run.rows(value).astype(np.float64)
            held = held[np.isfinite(held)]
            total, count = errors.squares.get(key, (0.0, 0))
            errors.squares[key] = (total + float(np.vdot(held, held)), count + held.size)


def _set_shares(errors: ModelErrors) -> None:
    totals: dict[str, float] = {}
    for row in errors.rows.values():
        if row.own is not None:
            name = row.key.function
            totals[name] = totals.get(name, 0.0) + row.own.noise_share
    for row in errors.rows.values():
        total = totals.get(row.key.function, 0.0)
        if row.own is not None:
            row.share = row.own.noise_share / total if row.own.noise_share else 0.0


class _Watcher:
    """Sees every executed op of one run."""

    def __init__(self, errors: ModelErrors, run: Run, expected: ReferenceRun) -> None:
        self._errors, self._run, self._expected = errors, run, expected
        self._counter = OpCounter(run.function)
        self._inputs: dict[tuple[str, SSAValue], tuple[Array, float]] = {}
        """What int8 codes stand for: the values before they were quantized, and their scale."""

    def __call__(self, execution: Execution) -> None:
        op, scope = execution.op, execution.scope
        key = self._counter.key(op, scope)
        if isinstance(op, tpu.QuantizeOp):
            self._inputs[scope, op.result] = (execution.operands[0], _scalar(execution.operands[1]))
        elif isinstance(op, tpu.Int8MatMulOp):
            self._inputs[scope, op.result] = self._inputs[scope, op.operands[0]]
        if key is None or not storage_of(op.results[0]).is_float:
            return
        exact = self._expected.values.get(key)
        if exact is None or exact.shape != execution.result.shape:
            self._errors.without.add(key)
            return
        self._add(key, op, execution, exact)

    def _add(self, key: OpKey, op: Operation, execution: Execution, exact: Array) -> None:
        run, rows = self._run, self._errors.rows
        sums = ChannelSums.of(run.rows(exact), run.rows(execution.result))
        row = rows.get(key)
        if row is None:
            name = "tpu.Int8MatMul" if isinstance(op, tpu.DequantizeOp) else op.name
            scheme = scheme_of_op(op)
            row = rows[key] = OpError(key, name, scheme, source_of(op), len(rows), sums)
        else:
            row.sums = row.sums + sums
        linear = self._expected.linear.get(key)
        if linear is None:
            return
        x = execution.operands[0]
        if isinstance(op, tpu.DequantizeOp):
            x, input_scale = self._inputs[execution.scope, op.operands[0]]
            row.activations = (input_scale, _scalar(execution.operands[1]))
        wide = x.astype(np.float32) @ linear.weight.astype(np.float32).T
        if linear.bias is not None:
            wide = wide + linear.bias.astype(np.float32)
        own = ChannelSums.of(run.rows(wide), run.rows(execution.result))
        row.own = own if row.own is None else row.own + own
        inputs = run.rows(self._expected.inputs[key]).astype(np.float64)
        inputs = inputs.reshape(-1, inputs.shape[-1])
        squares = (inputs**2).sum(axis=0)
        row.squares = squares if row.squares is None else row.squares + squares
        row.rows += len(inputs)


def _scalar(array: Array) -> float:
    return float(array.reshape(-1)[0])


def scheme_of_op(op: Operation) -> str:
    """The scheme of the weight that an op reads, or the type of its result."""
    if isinstance(op, tpu.DequantizeOp):
        return "int8"
    schemes = [
        each.owner.scheme_name
        for each in op.operands
        if isinstance(each.owner, tpu.WeightOp) and each.owner.form.data is not WeightForm.DENSE
    ]
    return schemes[0] if schemes else storage_of(op.results[0]).name
