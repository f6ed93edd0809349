"""What a model will cost on a chip, from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.chip import load_chip
from tilewright.compiler.performance import FunctionTime, ProgramTimes
from tilewright.compiler.pipeline import NO_CALIBRATION, CompileOptions, build_program, lower


@dataclass(frozen=True)
class Estimate:
    """A prediction of the timing model; nothing is executed and no weight is read."""

    model: str
    quant: str
    seq: int
    chip: str
    weight_bytes: int
    memory_bytes: int
    global_bytes: int
    prefill: FunctionTime
    decode: FunctionTime

    @property
    def fits(self) -> bool:
        """Whether everything has room in the chip's global memory."""
        return self.memory_bytes <= self.global_bytes

    @property
    def decode_tokens_per_s(self) -> float:
        return 1 / self.decode.seconds

    def to_json(self) -> dict[str, object]:
        """The row that `tw estimate --json` prints (docs/json.md)."""
        return {
            "model": self.model,
            "quant": self.quant,
            "seq": self.seq,
            "chip": self.chip,
            "weight_bytes": self.weight_bytes,
            "memory_bytes": self.memory_bytes,
            "global_bytes": self.global_bytes,
            "fits": self.fits,
            "prefill_s": self.prefill.seconds,
            "prefill_cycles": self.prefill.cycles,
            "prefill_gdma_busy": self.prefill.gdma_busy,
            "prefill_bdc_busy": self.prefill.bdc_busy,
            "prefill_bound": self.prefill.bound,
            "decode_tokens_per_s": self.decode_tokens_per_s,
            "decode_cycles_per_token": self.decode.cycles,
            "gdma_busy": self.decode.gdma_busy,
            "bdc_busy": self.decode.bdc_busy,
            "bound": self.decode.bound,
        }


def estimate(
    name: str,
    module: ModuleOp,
    seq: int,
    options: CompileOptions,
    packed: Mapping[str, str] | None = None,
) -> Estimate:
    """Predict one way of compiling the top module of the language model `name`.

    `packed` are the schemes of the weights that its checkpoint holds quantized already.

    A model that does not fit is timed all the same: `fits` says so.
    """
    chip = load_chip(options.chip)
    lowered = lower(module, options, packed=packed, calibration=NO_CALIBRATION)
    built = build_program(lowered, options.chip, check_fit=False)
    times = ProgramTimes(built.program, chip).by_name()
    return Estimate(
        name,
        _label(options, packed),
        seq,
        chip.name,
        sum(slot.size_bytes for slot in built.plan.weights.values()),
        built.plan.used_bytes,
        chip.global_bytes,
        times["prefill"],
        times["decode"],
    )


def _label(options: CompileOptions, packed: Mapping[str, str] | None) -> str:
    """What a row is called: by what decides the schemes of most weights."""
    if packed:
        return ", ".join(sorted(set(packed.values())))
    if options.quant_table:
        return Path(options.quant_table).name
    return f"{options.quant} + rules" if options.quant_rules else options.quant
