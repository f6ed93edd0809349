"""What a quantization is to come to, as the user writes it: `4.5bpw`, `3.2GB` or `9tok/s`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tilewright.dialects.errors import OptionError

PER = ("kind", "layer")
"""Decide once for all weights of a kind, or for each weight of each layer."""


class Unit(StrEnum):
    """What a target is measured in."""

    BITS = "bpw"
    BYTES = "bytes"
    TOKENS = "tok/s"


_BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_TARGET = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z/]+)")


@dataclass(frozen=True)
class Target:
    """A budget: at most so many bits a weight or bytes, or at least so many tokens a second."""

    text: str
    amount: float
    unit: Unit

    @staticmethod
    def parse(text: str) -> Target:
        """Read `4.5bpw`, `3.2GB` or `9tok/s`; raises `OptionError` for anything else."""
        found = _TARGET.fullmatch(text.strip())
        amount, unit = (float(found[1]), found[2]) if found else (0.0, "")
        if amount > 0 and unit.lower() in (Unit.BITS, Unit.TOKENS):
            return Target(text, amount, Unit(unit.lower()))
        if amount > 0 and unit.upper() in _BYTES:
            return Target(text, amount * _BYTES[unit.upper()], Unit.BYTES)
        raise OptionError(
            f"{text!r} is no target of quantization", hint="4.5bpw, 3.2GB, 900MiB or 9tok/s"
        )
