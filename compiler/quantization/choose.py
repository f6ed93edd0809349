"""The schemes that a `--quant-target` chooses for a model, by what is known of it: its weights if
there are any, and of their inputs what a calibration has kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf, log10
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.calibration import load_calibration
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.quantization.goal import Target
from tilewright.compiler.quantization.layer_error import DenseMatrices, LayerErrors, Statistics
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.quantization.sizes import bits_per_weight
from tilewright.compiler.quantization.targets import (
    Allocation,
    allocate_to,
    candidates_of,
    undecided,
)
from tilewright.dialects.errors import OptionError


@dataclass(frozen=True)
class ChosenRow:
    """What was chosen for weights that are decided about together."""

    name: str
    count: int
    quant: str
    bits: float
    """Bits a weight, scales and zero points included."""
    error: float
    """The sum of their predicted relative errors."""
    share: float
    """Of the error of all weights that were decided about."""

    @property
    def snr_db(self) -> float:
        """The predicted signal to noise of an output of one of them."""
        return -10 * log10(self.error / self.count) if self.error else inf


@dataclass(frozen=True)
class ChosenSchemes:
    """The scheme of each weight of a model, chosen for a target."""

    target: Target
    per: str
    weights: Mapping[str, LinearWeight]
    allocation: Allocation

    @property
    def assigned(self) -> Mapping[str, str]:
        """The scheme (or dense type) of every weight, by resolved key."""
        return self.allocation.assigned

    def rows(self) -> list[ChosenRow]:
        """Of all weights that were decided about, in the order of the model."""
        rows: list[ChosenRow] = []
        total = self.allocation.error
        for group, index in zip(self.allocation.groups, self.allocation.chosen, strict=True):
            quant, error = group.candidates[index], group.choices[index].error
            bits = bits_per_weight(self.weights, dict.fromkeys(group.keys, quant))
            share = error / total if total else 0.0
            rows.append(ChosenRow(group.name, len(group.keys), quant, bits, error, share))
        return rows

    def groups_json(self) -> list[dict[str, Any]]:
        """The rows as JSON values."""
        return [
            {
                "weights": row.name,
                "count": row.count,
                "scheme": row.quant,
                "predicted_error": row.error,
            }
            for row in self.rows()
        ]

    def to_json(self) -> dict[str, Any]:
        """What the manifest of an artifact says of the choice."""
        return {
            "target": self.target.text,
            "per": self.per,
            "reached": self.allocation.reached,
            "predicted_error": self.allocation.error,
            "groups": self.groups_json(),
        }

    def lines(self) -> list[str]:
        """The choice as text."""
        bits = bits_per_weight(self.weights, self.assigned)
        return [
            f"chosen for {self.target.text}: {bits:.2f} bits a weight",
            *(
                f"  {row.name} ({row.count}): {row.quant}, {row.snr_db:.1f} dB, "
                f"{row.share:.1%} of the error"
                for row in self.rows()
            ),
        ]


def choose_schemes(
    model: ImportedModel,
    options: CompileOptions,
    *,
    module: ModuleOp | None = None,
    source: DenseMatrices | None = None,
) -> ChosenSchemes:
    """The schemes of least predicted error for the target of `options`.

    `module` stands for the model's where passes have changed it, and `source` for its checkpoint;
    a model whose checkpoint holds no weights is one of Gaussian weights. Raises `OptionError` where
    no choice reaches the target, nothing is left to decide, a weight can have none of the
    candidates, or the calibration kept no statistics; `ModelReadError` for what cannot be read.
    """
    top = model.module if module is None else module
    target, packed = Target.parse(options.quant_target), model.kept_as_packed(options.requantize)
    weights = linear_weights(top)
    free = undecided(weights, options, packed)
    possible = candidates_of(free, options.quant_candidates, options)
    statistics = _statistics(options.calibration, free)
    with _opened(model, source) as matrices:
        predicted = LayerErrors(matrices, options.choice.compute)
        errors = {
            key: dict(
                zip(quants, predicted.of(free[key], list(quants), statistics(key)), strict=True)
            )
            for key, quants in possible.items()
        }
    per = options.quant_target_per
    allocation = allocate_to(target, top, weights, options, errors, per=per, packed=packed)
    return ChosenSchemes(target, per, weights, allocation)


def _opened(
    model: ImportedModel, source: DenseMatrices | None
) -> AbstractContextManager[DenseMatrices | None]:
    if source is not None:
        return nullcontext(source)
    has_weights = any(model.weights.glob("*.safetensors")) or model.weights.is_file()
    return model.open_weights() if has_weights else nullcontext()


def _statistics(path: str, keys: Iterable[str]) -> Callable[[str], Statistics | None]:
    """What is known of the inputs of a layer, by the key of its weight; nothing if no calibration
    is given. Raises `OptionError` for one that kept no statistics of a layer."""
    if not path:
        return lambda key: None
    calibration = load_calibration(Path(path))
    lacking = next((key for key in keys if calibration.statistics(key) is None), None)
    if lacking is not None:
        raise OptionError(
            f"the calibration has no statistics of the inputs of {lacking}",
            where=path,
            hint="run tw calibrate with --statistics or --hessian",
        )
    return calibration.statistics
