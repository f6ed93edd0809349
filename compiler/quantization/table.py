"""Quantization tables: which weight of a model is stored in which scheme, as text to edit.

    # tiny: 15 weights, 4.68 bits a weight
    encoder.layers.0.mlp.dense_4h_to_h.weight = w8a16  # 64 x 96, 6.27 kB
    encoder.layers.0.mlp.dense_h_to_4h.weight = w4a16  # 192 x 64, 6.72 kB

A line for each weight of linear layers, head and embedding, by resolved key (TPU-MLIR's "qtable" is
such a list, too: the name of an op and its mode). What stands behind `#` is for the reader. A key
with a blank, `#`, `=` or `"` in it is written as a JSON string.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from tilewright.compiler.output import write_atomically
from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.compiler.quantization.rules import canonical
from tilewright.compiler.quantization.sizes import stored_bytes
from tilewright.dialects.errors import OptionError

_LINE = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"|[^\s"#=]+)\s*=\s*(?P<quant>[^\s#=]+)\s*(?:#.*)?')
_PLAIN_KEY = re.compile(r'[^\s"#=]+')


def format_table(
    weights: Mapping[str, LinearWeight], assigned: Mapping[str, str], *, title: str = ""
) -> str:
    """The text of a table for the weights of a model, in their order."""
    lines = [f"# {line}" for line in title.splitlines()]
    for key, quant in assigned.items():
        weight = weights[key]
        name = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)
        size = stored_bytes(weight, quant)
        lines.append(f"{name} = {quant}  # {weight.channels} x {weight.depth}, {size:,} bytes")
    return "\n".join(lines) + "\n"


def write_table(
    path: Path,
    weights: Mapping[str, LinearWeight],
    assigned: Mapping[str, str],
    *,
    title: str = "",
) -> None:
    """Write a table; raises `StorageError`."""
    write_atomically(path, format_table(weights, assigned, title=title))


def read_table(path: Path, weights: Mapping[str, LinearWeight]) -> dict[str, str]:
    """The scheme (or dense type) of each of `weights`, as a table has it.

    Raises `OptionError`, with file and line, for a line that is none, a key that the model does not
    have or that stands there twice, an unknown scheme; and for keys that are missing.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            "the quantization table cannot be read", where=str(path), why=str(error)
        ) from error
    lines: dict[str, int] = {}
    table: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.split("#", 1)[0].strip() and not line.lstrip().startswith('"'):
            continue
        key, quant = _entry(line.strip(), f"{path}:{number}")
        if key in lines:
            raise OptionError(
                f"the key {key!r} stands here twice",
                where=f"{path}:{number}",
                why=f"it stands in line {lines[key]}, too",
            )
        if key not in weights:
            near = difflib.get_close_matches(key, weights, n=3)
            raise OptionError(
                f"the model has no weight {key!r} that can be quantized",
                where=f"{path}:{number}",
                hint=f"did you mean {' or '.join(near)}?" if near else "tw quant-table writes them",
            )
        lines[key], table[key] = number, quant
    missing = [key for key in weights if key not in table]
    if missing:
        raise OptionError(
            f"the quantization table lacks {len(missing)} weights",
            where=str(path),
            why="\n".join(missing),
            hint="a table has a line for each weight; tw quant-table writes one, --quant-rule is "
            "for single weights",
        )
    return {key: table[key] for key in weights}


def _entry(line: str, where: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise OptionError(
            "this is no line of a quantization table", where=where, hint="KEY = SCHEME  # comment"
        )
    key = found["key"]
    try:
        name = json.loads(key) if key.startswith('"') else key
        return name, canonical(found["quant"])
    except json.JSONDecodeError as error:
        raise OptionError("the key is no JSON string", where=where, why=str(error)) from error
    except OptionError as error:
        raise error.placed(where) from error
