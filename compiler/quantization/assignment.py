"""Which scheme each weight of a model gets: options, then the table, then the rules, in this order;
and whether the chip, the shapes and the ops allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.backends.chip import Chip, chip_names, load_chip
from tilewright.compiler.quantization.linear_weights import (
    LinearWeight,
    kind_of,
    listed_kinds,
)
from tilewright.compiler.quantization.rules import QuantRule, assign
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.dialects.quantization import DEFAULT_SCHEME, DENSE, Scheme, parse_scheme
from tilewright.passes.lowerings.conversion import suggestion

EMBEDDING_SCHEME = DEFAULT_SCHEME
"""What a table of embeddings is quantized in, if at all: rows of it are looked up."""


@dataclass(frozen=True)
class QuantChoice:
    """What the user says of the quantization of a model as a whole.

    `quant` and `compute` are the name of a scheme or dense type, and the type of activations.
    """

    quant: str
    compute: str
    quant_head: bool = False
    quant_embedding: bool = False

    def default_of(self, weight: LinearWeight) -> str:
        """What a weight is stored in that no table and no rule speaks of.

        The head is dense unless `quant_head`; under `int8` it is `w8a16` then, as logits of 8 bits
        would tie. The embedding is dense or `w8a16`. Of tied weights, this is the head's; the
        lookup reads them as `w8a16` or dense.
        """
        if self.quant in DENSE:
            return self.quant
        if weight.is_layer:
            return self.quant
        if weight.is_embedding and not weight.is_head:
            return EMBEDDING_SCHEME if self.quant_embedding else self.compute
        if weight.is_head and self.quant_head:
            return DEFAULT_SCHEME if parse_scheme(self.quant).int8_activations else self.quant
        return self.compute


def assign_schemes(
    weights: Mapping[str, LinearWeight],
    choice: QuantChoice,
    *,
    table: Mapping[str, str] | None = None,
    rules: Sequence[QuantRule] = (),
) -> dict[str, str]:
    """The scheme (or dense type) of each weight, by resolved key.

    Raises `OptionError` for a rule that matches nothing.
    """
    assigned = {key: choice.default_of(weight) for key, weight in weights.items()}
    assigned.update(table or {})
    for rule in rules:
        assigned.update(
            (key, rule.quant) for key, quant in assign(weights, "", [rule]).items() if quant
        )
    return assigned


def explicit_marks(
    weights: Mapping[str, LinearWeight], assigned: Mapping[str, str], choice: QuantChoice
) -> dict[str, str]:
    """Those of `assigned` that are not what the options say by themselves."""
    return {
        key: quant for key, quant in assigned.items() if quant != choice.default_of(weights[key])
    }


def can_be(weight: LinearWeight, quant: str, compute: str, chip: Chip) -> bool:
    """Whether a linear layer's weight can be stored in a scheme (or dense type) on a chip."""
    if quant in DENSE:
        return quant == compute
    scheme = parse_scheme(quant)
    return (
        scheme.fits(weight.depth)
        and scheme.format in chip.code_formats
        and not (weight.is_head and scheme.int8_activations)
    )


def check_schemes(
    weights: Mapping[str, LinearWeight], assigned: Mapping[str, str], choice: QuantChoice, chip: str
) -> None:
    """Raises where weights cannot be stored as `assigned`, and says so of all of them.

    `OptionError` where groups do not divide the inputs, where the head or the embedding would get a
    scheme that they cannot have, or a layer another dense type than activations have;
    `UnsupportedError` where the chip lacks the scheme.
    """
    schemes = {key: parse_scheme(quant) for key, quant in assigned.items() if quant not in DENSE}
    _check_dense(assigned, choice)
    _check_compute(schemes, choice)
    _check_roles(weights, assigned, schemes)
    _check_chip(schemes, load_chip(chip))
    _check_groups(weights, schemes)


def _check_dense(assigned: Mapping[str, str], choice: QuantChoice) -> None:
    other = [key for key, quant in assigned.items() if quant in DENSE and quant != choice.compute]
    if other:
        raise OptionError(
            f"a weight cannot be {assigned[other[0]]} where activations are {choice.compute}",
            where=_some(other),
            why="both operands of a matrix product have one type",
            hint=f"={choice.compute} in the rule or table, or another --act",
        )


def _check_compute(schemes: Mapping[str, Scheme], choice: QuantChoice) -> None:
    if schemes and choice.compute == "f32":
        raise OptionError(
            "quantized weights need 16-bit activations, not f32",
            where=_some(schemes),
            hint="--quant f16 or bf16 with rules for what is to be quantized",
        )


def _check_roles(
    weights: Mapping[str, LinearWeight], assigned: Mapping[str, str], schemes: Mapping[str, Scheme]
) -> None:
    for key, scheme in schemes.items():
        weight = weights[key]
        if weight.is_embedding and not weight.is_head and scheme.name != EMBEDDING_SCHEME:
            raise OptionError(
                f"the embedding cannot be {assigned[key]}",
                where=key,
                why="rows of it are looked up, which int8 codes with a scale a row allow",
                hint=f"{EMBEDDING_SCHEME}, or a dense type",
            )
        if weight.is_head and scheme.int8_activations:
            raise OptionError(
                "the head cannot be int8",
                where=key,
                why="logits of 8 bits would tie",
                hint="w8a16 or another scheme with 16-bit activations",
            )


def _check_chip(schemes: Mapping[str, Scheme], chip: Chip) -> None:
    for key, scheme in schemes.items():
        if scheme.format in chip.code_formats:
            continue
        able = [name for name in chip_names() if scheme.format in load_chip(name).code_formats]
        raise UnsupportedError(
            f"{chip.name} cannot dequantize {scheme.format} codes",
            where=f"{key}, which is to be {scheme.name}",
            why=f"it has {', '.join(chip.code_formats)}",
            hint=f"--chip {' or '.join(able)}" if able else None,
        )


def _check_groups(weights: Mapping[str, LinearWeight], schemes: Mapping[str, Scheme]) -> None:
    bad = [key for key, scheme in schemes.items() if not scheme.fits(weights[key].depth)]
    if not bad:
        return
    rows: dict[tuple[int, str], list[str]] = {}
    for key in bad:
        rows.setdefault((weights[key].depth, schemes[key].name), []).append(key)
    lines = [
        f"{name} for {kind}: {depth} inputs; {suggestion(parse_scheme(name), depth)}"
        for (depth, name), keys in rows.items()
        for kind in listed_kinds(keys)
    ]
    raise OptionError(
        f"groups do not divide the inputs of {len(bad)} weights",
        where="\n".join(lines),
        hint="another --quant, or a --quant-rule for each of these, e.g. "
        f"'{_rule_for(bad[0])}={_first_choice(schemes[bad[0]], weights[bad[0]].depth)}'",
    )


def _rule_for(key: str) -> str:
    return kind_of(key).removesuffix(".weight")


def _first_choice(scheme: Scheme, depth: int) -> str:
    return suggestion(scheme, depth).removeprefix("use ").split(" or ")[0]


def _some(keys: Mapping[str, object] | Sequence[str]) -> str:
    """The kinds of `keys`, as an error says where."""
    return "\n".join(listed_kinds(keys))
