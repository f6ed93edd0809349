"""Rules of the user's on how single tensors are quantized: `layers.*.mlp.down_proj=w8a16`.

A rule is a pattern and a scheme (or a dense element type). A pattern is a glob, in which `*` stands
for any characters, dots too, `?` for one and `[0-3]` for one of a set; it matches a weight if it
matches the whole resolved key, or the key without `.weight`, or what is left of either behind a
dot: `layers.*.mlp.down_proj` matches `model.layers.3.mlp.down_proj.weight`. Behind `re:` it is a
regular expression, which matches a weight if it is found anywhere in the resolved key.

Where several rules match a weight, the last one holds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate

from tilewright.compiler.quantization.linear_weights import kind_of, listed_kinds
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import DENSE, check_quant, parse_scheme

REGEX_PREFIX = "re:"
_SUFFIX = ".weight"
_FORM = "PATTERN=SCHEME, e.g. 'layers.*.mlp.down_proj=w8a16' or 're:layers\\.[0-3]\\.=f16'"


@dataclass(frozen=True)
class QuantRule:
    """One rule. `quant` is a dense element type, or a scheme by its canonical name."""

    text: str
    pattern: re.Pattern[str]
    is_regex: bool
    quant: str

    @staticmethod
    def parse(text: str) -> QuantRule:
        """Read `PATTERN=SCHEME`; raises `OptionError` where it is none."""
        pattern, equals, quant = (part.strip() for part in text.rpartition("="))
        where = f"--quant-rule {text!r}"
        if not (equals and pattern and quant):
            raise OptionError("this is no rule", where=where, hint=_FORM)
        try:
            name = canonical(quant)
        except OptionError as error:
            raise error.placed(where) from error
        is_regex = pattern.startswith(REGEX_PREFIX)
        source = pattern.removeprefix(REGEX_PREFIX) if is_regex else translate(pattern)
        try:
            compiled = re.compile(source)
        except re.error as error:
            raise OptionError(
                "the pattern is not a regular expression", where=where, why=str(error)
            ) from error
        return QuantRule(text, compiled, is_regex, name)

    def matches(self, key: str) -> bool:
        """Whether the rule is for the weight with the resolved key `key`."""
        if self.is_regex:
            return self.pattern.search(key) is not None
        return any(self.pattern.match(name) for name in names_of(key))


def canonical(quant: str) -> str:
    """The one name of a scheme or dense type; raises `OptionError` for anything else."""
    check_quant(quant)
    return quant if quant in DENSE else parse_scheme(quant).name


def names_of(key: str) -> list[str]:
    """What a glob may match to match `key`: `a.b.weight`, `b.weight`, `weight`, `a.b` and `b`."""
    names: list[str] = []
    for whole in dict.fromkeys((key, key.removesuffix(_SUFFIX))):
        parts = whole.split(".")
        names += [".".join(parts[start:]) for start in range(len(parts))]
    return names


def assign(keys: Iterable[str], default: str, rules: Sequence[QuantRule]) -> dict[str, str]:
    """The scheme (or dense type) of each of `keys`: that of the last rule that matches.

    Raises `OptionError` for a rule that matches none of them.
    """
    assigned = dict.fromkeys(keys, default)
    for rule in rules:
        matched = [key for key in assigned if rule.matches(key)]
        if not matched:
            raise _matches_nothing(rule, list(assigned))
        assigned.update(dict.fromkeys(matched, rule.quant))
    return assigned


def _matches_nothing(rule: QuantRule, keys: Sequence[str]) -> OptionError:
    pattern = rule.text.rpartition("=")[0].strip()
    why = "weights that can be quantized:\n" + "\n".join(listed_kinds(keys) or ["none"])
    near = near_misses(pattern, keys)
    return OptionError(
        "the rule matches no weight",
        where=f"--quant-rule {rule.text!r}",
        why=why,
        hint=f"did you mean {' or '.join(near)}?" if near and not rule.is_regex else None,
    )


def near_misses(pattern: str, keys: Iterable[str]) -> list[str]:
    """Up to three patterns like `pattern` that match something, nearest first."""
    suffix = "" if pattern.endswith(_SUFFIX) else _SUFFIX
    names = {name for key in keys for name in names_of(kind_of(key).removesuffix(suffix))}
    return difflib.get_close_matches(pattern, sorted(names), n=3, cutoff=0.6)
