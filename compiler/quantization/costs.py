"""What a weight costs in each scheme on a chip: bytes of the artifact, cycles of a decoded token.

The program is built once for each candidate, with all weights in it that it fits (and all layers
sharing their functions, so that this is quick). A launch belongs to the weight that it reads. As
launches do not overlap, costs add up: those of a mixture are the sums of what its weights cost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.pipeline import NO_CALIBRATION, Built, CompileOptions, build_program, lower

DECODE = "decode"
"""The function whose runs are a token each."""


@dataclass(frozen=True)
class ModelCost:
    """Bytes of weights and cycles of a token, in all and by weight."""

    total_bytes: int
    total_cycles: int
    bytes_of: Mapping[str, int]
    cycles_of: Mapping[str, int]
    tokens_per_s: float | None = None
    """Predicted; none where the model does not decode tokens."""


@dataclass(frozen=True)
class CandidateCosts:
    """The costs of each candidate by weight, and those of everything else."""

    fixed_bytes: int
    fixed_cycles: int
    bytes_of: Mapping[str, Mapping[str, int]]
    """By key, then by candidate."""
    cycles_of: Mapping[str, Mapping[str, int]]


def candidate_costs(
    module: ModuleOp,
    options: CompileOptions,
    base: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
) -> CandidateCosts:
    """Build `module` for each of the `candidates` of its weights (by key; those they have in
    common are built together). `base` says what all other weights are stored in."""
    bytes_of: dict[str, dict[str, int]] = {key: {} for key in candidates}
    cycles_of: dict[str, dict[str, int]] = {key: {} for key in candidates}
    fixed = (0, 0)
    for quant in dict.fromkeys(quant for quants in candidates.values() for quant in quants):
        chosen = {
            key: quant if quant in quants else quants[0] for key, quants in candidates.items()
        }
        cost = model_cost(module, options, {**base, **chosen})
        for key, name in chosen.items():
            bytes_of[key][name] = cost.bytes_of.get(key, 0)
            cycles_of[key][name] = cost.cycles_of.get(key, 0)
        fixed = (
            cost.total_bytes - sum(cost.bytes_of.get(key, 0) for key in candidates),
            cost.total_cycles - sum(cost.cycles_of.get(key, 0) for key in candidates),
        )
    return CandidateCosts(*fixed, bytes_of, cycles_of)


def model_cost(module: ModuleOp, options: CompileOptions, assigned: Mapping[str, str]) -> ModelCost:
    """What a top module costs with each weight stored as `assigned`."""
    plain = replace(options, quant_rules=(), quant_table="", quant_target="", quant_candidates=())
    lowered = lower(module, plain, assigned=assigned, calibration=NO_CALIBRATION)
    return cost_of(build_program(lowered, options.chip, check_fit=False))


def cost_of(built: Built) -> ModelCost:
    """The costs of a program by weight; no cycles where it does not decode tokens."""
    slots = sorted(built.plan.weights.values(), key=lambda slot: slot.address)
    starts = [slot.address for slot in slots]
    bytes_of: dict[str, int] = {}
    for slot in slots:
        bytes_of[slot.key] = bytes_of.get(slot.key, 0) + slot.size_bytes
    decode = next((each for each in built.program.functions if each.name == DECODE), None)
    if decode is None:
        return ModelCost(sum(bytes_of.values()), 0, bytes_of, {})
    times = ProgramTimes(built.program, built.chip)
    cycles_of: dict[str, int] = {}
    for launch in decode.launches:
        keys = {
            slots[index].key
            for address in launch.addresses
            if (index := bisect_right(starts, address) - 1) >= 0
            and address < slots[index].address + slots[index].size_bytes
        }
        for key in keys:
            cycles_of[key] = cycles_of.get(key, 0) + times.kernels[launch.kernel].cycles
    time = times.function(decode)
    return ModelCost(
        sum(bytes_of.values()), time.cycles, bytes_of, cycles_of, tokens_per_s=1 / time.seconds
    )
