"""What a pass has done to a layer, in numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Error:
    """A layer's quantization error: signal to noise in dB, higher is better, infinite if exact."""

    output_db: float
    """`tr(W H W^T) / tr(dW H dW^T)`: of the output on calibration inputs."""
    weight_db: float
    """`|W|^2 / |dW|^2`."""


@dataclass(frozen=True)
class LayerReport:
    """A layer before and after a pass. One that is not `changed` is as it was, and `why` says why.

    `before` and `after` are missing where nothing was measured; `after` of a layer that is kept is
    what the pass would have made of it.
    """

    pass_name: str
    key: str
    scheme: str
    changed: bool
    before: Error | None = None
    after: Error | None = None
    why: str = ""
    details: tuple[tuple[str, float], ...] = ()

    def line(self) -> str:
        """The report as one line of text."""
        parts = [f"{self.pass_name}: {self.key} ({self.scheme})"]
        if self.before is not None and self.after is not None:
            parts.append(
                f"output {self.before.output_db:.2f} -> {self.after.output_db:.2f} dB, "
                f"weight {self.before.weight_db:.2f} -> {self.after.weight_db:.2f} dB"
            )
        parts += [f"{name} {value:g}" for name, value in self.details]
        if not self.changed:
            parts.append(f"kept as it was: {self.why}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; an infinite figure is null."""
        values = asdict(self)
        values["details"] = dict(self.details)
        for name in ("before", "after"):
            if values[name] is not None:
                values[name] = {k: v if math.isfinite(v) else None for k, v in values[name].items()}
        return values


def decibels(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)`; infinite without noise."""
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
