"""Automatic bit allocation: the schemes of least predicted error for a size or a speed.

    4.5bpw     bits a weight, on average over the weights that are decided about
    3.2GB      bytes of all weights of the artifact (GB, MB: decimal; GiB, MiB: binary)
    9tok/s     decoded tokens a second on the chip, by the timing model

Decided about are the linear layers (and the head, if `--quant-head`) of which no rule speaks. What
is minimized is the sum of their predicted errors (`layer_error`). One decision is for all weights
of a *kind*, the same weight of every layer, unless each layer is to be decided about by itself:
layers with different schemes have functions and kernels of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.chip import load_chip
from tilewright.compiler.pipeline import CompileOptions, chosen_schemes
from tilewright.compiler.quantization.allocation import Choice, allocate
from tilewright.compiler.quantization.assignment import can_be
from tilewright.compiler.quantization.costs import CandidateCosts, candidate_costs
from tilewright.compiler.quantization.goal import Target, Unit
from tilewright.compiler.quantization.linear_weights import LinearWeight, kind_of
from tilewright.compiler.quantization.rules import canonical
from tilewright.compiler.quantization.sizes import stored_bytes
from tilewright.dialects.errors import OptionError

CANDIDATES = ("w4a16-channel", "w4a16-g128", "w4a16", "w4a16-g32", "w8a16", "f16")
"""What is chosen from if nothing else is given; `f16` stands for the type of activations."""


@dataclass(frozen=True)
class Group:
    """Weights that get one scheme, the schemes that they can have, and what these would do."""

    name: str
    keys: tuple[str, ...]
    candidates: tuple[str, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Allocation:
    """What was chosen: the scheme of every weight, and of each group its choice."""

    assigned: Mapping[str, str]
    groups: tuple[Group, ...]
    chosen: tuple[int, ...]
    reached: float
    """In the unit of the target."""

    @property
    def error(self) -> float:
        """The sum of the predicted relative errors of the layers decided about."""
        return sum(
            group.choices[index].error
            for group, index in zip(self.groups, self.chosen, strict=True)
        )


Errors = Mapping[str, Mapping[str, float]]
"""The predicted error of a weight in each candidate, by key and candidate."""


def undecided(
    weights: Mapping[str, LinearWeight], options: CompileOptions, packed: Mapping[str, str]
) -> dict[str, LinearWeight]:
    """The weights that a target decides about: linear layers, and the head if it is to be
    quantized, of which no rule speaks, and which the checkpoint does not hold quantized (`packed`).

    Raises `OptionError` where there is none.
    """
    rules = options.rules()
    free = {
        key: weight
        for key, weight in weights.items()
        if (weight.is_layer or (weight.is_head and options.quant_head))
        and key not in packed
        and not any(rule.matches(key) for rule in rules)
    }
    if not free:
        raise _nothing_to_decide(weights, packed)
    return free


def _nothing_to_decide(
    weights: Mapping[str, LinearWeight], packed: Mapping[str, str]
) -> OptionError:
    layers = [key for key, weight in weights.items() if weight.is_layer and key not in packed]
    if packed and not layers:
        held = ", ".join(sorted(set(packed.values())))
        return OptionError(
            "there is no weight to decide about",
            why=f"the checkpoint holds all {len(packed)} layers quantized already, as {held}, and "
            "they are compiled as they are",
            hint="--requantize to decide anew (which rounds twice), or give the checkpoint that "
            "this one was made from",
        )
    return OptionError(
        "there is no weight to decide about",
        why="rules speak of all linear layers" if layers else "the model has no linear layers",
        hint="leave out some --quant-rule" if layers else None,
    )


def candidates_of(
    weights: Mapping[str, LinearWeight], names: Sequence[str], options: CompileOptions
) -> dict[str, tuple[str, ...]]:
    """The candidates that each weight can have: groups that divide its inputs, codes that the chip
    can dequantize. Raises `OptionError` where one has none."""
    chip = load_chip(options.chip)
    dense = options.choice.compute
    quants = list(
        dict.fromkeys(dense if name == "f16" else canonical(name) for name in names or CANDIDATES)
    )
    if "int8" in quants:
        raise OptionError(
            "int8 cannot be a candidate",
            why="its errors are those of activations, which a prediction from weights leaves out",
        )
    found: dict[str, tuple[str, ...]] = {}
    for key, weight in weights.items():
        found[key] = tuple(quant for quant in quants if can_be(weight, quant, dense, chip))
        if not found[key]:
            raise OptionError(
                "a weight can have none of the candidates",
                where=key,
                why=f"{', '.join(quants)} for {weight.depth} inputs on {chip.name}",
                hint="add w8a16, w4a16-channel or a dense type",
            )
    return found


def allocate_to(
    target: Target,
    module: ModuleOp,
    weights: Mapping[str, LinearWeight],
    options: CompileOptions,
    errors: Errors,
    *,
    per: str = "kind",
    packed: Mapping[str, str] | None = None,
) -> Allocation:
    """Choose a scheme for each weight in `errors` among those that it has errors for.

    All other weights are stored as the options say, or as they are `packed` in the checkpoint.
    Raises `OptionError` where no choice reaches the target; it says how far the best one comes.
    """
    candidates = {key: list(row) for key, row in errors.items()}
    others = chosen_schemes(weights, options, packed)
    base = {key: quant for key, quant in others.items() if key not in errors}
    costs = (
        CandidateCosts(0, 0, {}, {})  # bits follow from shapes alone
        if target.unit == Unit.BITS
        else candidate_costs(module, options, base, candidates)
    )
    units = _Units(target, options, weights, costs, tuple(errors))
    groups = tuple(
        _group(name, keys, candidates, errors, units)
        for name, keys in _grouped(errors, per).items()
    )
    chosen = allocate([group.choices for group in groups], units.budget)
    if chosen is None:
        least = [min(choice.cost for choice in group.choices) for group in groups]
        raise OptionError(
            f"no choice of schemes reaches {target.text}",
            why=f"the best that the candidates allow is {units.shown(sum(least))}",
            hint="other candidates (--quant-candidates), --quant-head, or another target",
        )
    assigned = dict(base)
    for group, index in zip(groups, chosen, strict=True):
        assigned.update(dict.fromkeys(group.keys, group.candidates[index]))
    spent = sum(group.choices[index].cost for group, index in zip(groups, chosen, strict=True))
    in_order = {key: assigned[key] for key in weights}
    return Allocation(in_order, groups, tuple(chosen), units.amount(spent))


def _grouped(keys: Mapping[str, object], per: str) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for key in keys:
        name = key if per == "layer" else kind_of(key)
        groups[name] = (*groups.get(name, ()), key)
    return groups


def _group(
    name: str,
    keys: tuple[str, ...],
    candidates: Mapping[str, Sequence[str]],
    errors: Errors,
    units: _Units,
) -> Group:
    common = tuple(q for q in candidates[keys[0]] if all(q in candidates[key] for key in keys))
    choices = tuple(
        Choice(sum(units.cost(key, quant) for key in keys), sum(errors[key][quant] for key in keys))
        for quant in common
    )
    return Group(name, keys, common, choices)


@dataclass(frozen=True)
class _Units:
    """Costs and the budget as integers: bits, bytes, or cycles of a token."""

    target: Target
    options: CompileOptions
    weights: Mapping[str, LinearWeight]
    costs: CandidateCosts
    keys: tuple[str, ...]

    def cost(self, key: str, quant: str) -> int:
        """What a weight costs in a scheme."""
        if self.target.unit == Unit.BITS:
            return 8 * stored_bytes(self.weights[key], quant)
        if self.target.unit == Unit.BYTES:
            return self.costs.bytes_of[key][quant]
        return self.costs.cycles_of[key][quant]

    @property
    def budget(self) -> int:
        """What the weights that are decided about may cost."""
        if self.target.unit == Unit.BITS:
            return floor(self.target.amount * self._elements())
        if self.target.unit == Unit.BYTES:
            return floor(self.target.amount) - self.costs.fixed_bytes
        if not self.costs.fixed_cycles:
            raise OptionError(
                "token/s are of models that decode tokens", hint="a target in bpw or GB"
            )
        chip = load_chip(self.options.chip)
        seconds = 1 / self.target.amount - chip.host_launch_s
        return floor(seconds * chip.clock_hz) - self.costs.fixed_cycles

    def amount(self, cost: int) -> float:
        """The cost of the weights that are decided about, in the unit of the target."""
        if self.target.unit == Unit.BITS:
            return cost / self._elements()
        if self.target.unit == Unit.BYTES:
            return cost + self.costs.fixed_bytes
        chip = load_chip(self.options.chip)
        return 1 / ((cost + self.costs.fixed_cycles) / chip.clock_hz + chip.host_launch_s)

    def shown(self, cost: int) -> str:
        """`amount` with its unit, as a user writes it."""
        amount = self.amount(cost)
        if self.target.unit == Unit.BYTES:
            return f"{amount / 1e9:.4g}GB" if amount >= 1e9 else f"{amount / 1e6:.4g}MB"
        return f"{amount:.4g}{self.target.unit}"

    def _elements(self) -> int:
        return sum(self.weights[key].elements for key in self.keys)
