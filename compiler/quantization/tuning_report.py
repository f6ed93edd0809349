"""What tuning passes have done to a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tilewright.compiler.calibration.calibration import LayerRange
from tilewright.passes.tuning.report import LayerReport


@dataclass(frozen=True)
class TuningReport:
    """Each layer's error before and after each pass, in the order in which they ran."""

    passes: str
    layers: tuple[LayerReport, ...]
    ranges: Mapping[str, LayerRange]
    """The calibration's ranges as they are now that inputs have been divided."""

    def lines(self) -> list[str]:
        """A line of text for each layer and pass."""
        return [layer.line() for layer in self.layers]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "passes": self.passes,
            "layers": [layer.to_json() for layer in self.layers],
            "ranges": {key: asdict(each) for key, each in self.ranges.items()},
        }
