"""Which properties of `tilewright.testing` the quantizers of others satisfy, and ours beside them.

    python benchmarks/property_peers.py [--examples 40] [--only torch,gguf]
        [--properties ties,idempotence] [--json FILE] [--markdown FILE]

Prints a table (a row a property, a column a quantizer), counts, and each failure with the smallest
counterexample that was found. Where a property does not hold because a peer does something else on
purpose (`benchmarks/peers/`: its divisor, the type of its scales), the table says convention.
Libraries that are not installed are named as such: `pip install torch torchao optimum-quanto
bitsandbytes gguf onnx onnxruntime`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from time import perf_counter

from hypothesis import settings
from peers.peer import Peer
from xdsl.utils.str_enum import StrEnum

from tilewright.testing import PROPERTIES, PropertyResult, Subject, Verdict, check_property

LIBRARIES = {
    "tilewright": "ours",
    "torch": "torch_peers",
    "torchao": "torchao_peers",
    "optimum-quanto": "quanto_peers",
    "bitsandbytes": "bitsandbytes_peers",
    "gguf": "gguf_peers",
    "onnxruntime": "onnxruntime_peers",
}
EXAMPLES = 40
UNFAIR = ("memory-layout",)
"""Adapters hand contiguous arrays to libraries that want them."""


_REPEATED = re.compile(r"(?<![\w.-])([\w.+-]+)(?:, \1(?![\w.])){3,}")


class Mark(StrEnum):
    """What the table says, a letter each."""

    HOLDS = "holds"
    FAILS = "FAILS"
    CONVENTION = "convention"
    NOT_APPLICABLE = "n.a."

    @property
    def letter(self) -> str:
        return {"holds": ".", "FAILS": "F", "convention": "c", "n.a.": " "}[self.value]


@dataclass(frozen=True)
class Row:
    """One property on one peer."""

    result: PropertyResult
    mark: Mark
    convention: str = ""

    @property
    def counterexample(self) -> str:
        """In one line, equal numbers in a row as one."""
        line = " ".join(self.result.counterexample.split())
        return _REPEATED.sub(lambda run: f"{run[1]} x {run[0].count(',') + 1}", line)


@dataclass(frozen=True)
class Examined:
    """All properties on one peer."""

    peer: Peer
    rows: tuple[Row, ...]
    seconds: float

    def mark(self, name: str) -> Mark:
        """That of the property called `name`."""
        (row,) = [row for row in self.rows if row.result.id == name]
        return row.mark

    def with_mark(self, mark: Mark) -> list[Row]:
        return [row for row in self.rows if row.mark is mark]


def examine(peer: Peer, names: list[str], examples: int) -> Examined:
    """Points the properties called `names` at a peer."""
    start = perf_counter()
    subject = Subject.of(peer.quantizer, peer.scheme, (peer.dtype,))
    rows = tuple(
        _row(peer, check_property(prop, subject, examples=examples, shrink=shrink))
        for name, prop in PROPERTIES.items()
        if name in names
        for shrink in [name not in peer.conventions]
    )
    return Examined(peer, rows, perf_counter() - start)


def _row(peer: Peer, result: PropertyResult) -> Row:
    if result.verdict is Verdict.NOT_APPLICABLE:
        return Row(result, Mark.NOT_APPLICABLE)
    if result.verdict is Verdict.HOLDS:
        return Row(result, Mark.HOLDS)
    reason = peer.conventions.get(result.id, "")
    return Row(result, Mark.CONVENTION if reason else Mark.FAILS, reason)


def installed(names: list[str]) -> tuple[list[Peer], list[str]]:
    """The peers of these libraries, and the libraries that are not there."""
    found: list[Peer] = []
    missing: list[str] = []
    for name in names:
        try:
            found += import_module(f"peers.{LIBRARIES[name]}").peers()
        except ImportError as error:
            missing.append(f"{name}: not installed ({error})")
    return found, missing


def shown_properties(examined: list[Examined]) -> list[str]:
    """Those that say something of one of the peers, at least."""
    names = [row.result.id for row in examined[0].rows]
    return [
        name for name in names if any(e.mark(name) is not Mark.NOT_APPLICABLE for e in examined)
    ]


def table(examined: list[Examined]) -> list[str]:
    """A row a property, a column (a letter) a peer."""
    lines = [f"{chr(ord('A') + i)}  {_about(one)}" for i, one in enumerate(examined)]
    names = shown_properties(examined)
    width = max(map(len, names))
    letters = " ".join(chr(ord("A") + i) for i in range(len(examined)))
    lines += ["", ". holds   F fails   c convention   (blank) does not apply", ""]
    lines += [f"{'':{width}}  {letters}"]
    lines += [
        f"{name:{width}}  {' '.join(one.mark(name).letter for one in examined)}".rstrip()
        for name in names
    ]
    return lines


def _about(one: Examined) -> str:
    return f"{one.peer.name:28}  {_version(one.peer.distribution):24}  {one.peer.claims}"


def _version(distribution: str) -> str:
    return f"{distribution} {metadata.version(distribution)}"


def counts(examined: list[Examined]) -> list[str]:
    """How many properties hold, fail, are conventions."""
    lines: list[str] = []
    for one in examined:
        marks = Counter(row.mark for row in one.rows)
        each = [f"{marks[mark]:2} {mark.value}" for mark in Mark]
        lines.append(f"{one.peer.name:28}  {'  '.join(each)}  ({one.seconds:.1f} s)")
    return lines


def details(examined: list[Examined], mark: Mark) -> list[str]:
    """Each row with the mark: why, and the smallest case that was found."""
    return [
        f"{one.peer.name}: {row.result.id}: {row.convention or row.result.why}"
        + ("" if row.convention else f"; {row.counterexample}")
        for one in examined
        for row in one.with_mark(mark)
    ]


def markdown(examined: list[Examined]) -> str:
    """The same table for documents."""
    heads = [one.peer.name for one in examined]
    lines = [f"| property | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for name in shown_properties(examined):
        lines.append(f"| `{name}` | {' | '.join(one.mark(name).value for one in examined)} |")
    return "\n".join(lines) + "\n"


def as_json(examined: list[Examined], missing: list[str], examples: int) -> str:
    """All that is known, for programs."""
    found = [
        {
            "name": one.peer.name,
            "version": _version(one.peer.distribution),
            "claims": one.peer.claims,
            "scheme": one.peer.scheme.name,
            "seconds": round(one.seconds, 2),
            "rows": [
                {
                    "property": row.result.id,
                    "mark": row.mark.value,
                    "why": row.result.why,
                    "convention": row.convention,
                    "counterexample": row.counterexample,
                    "examples": row.result.examples,
                }
                for row in one.rows
            ],
        }
        for one in examined
    ]
    return json.dumps({"examples": examples, "not_installed": missing, "peers": found}, indent=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="cases a property")
    parser.add_argument("--only", default=",".join(LIBRARIES), help="libraries, by comma")
    parser.add_argument("--json", type=Path, help="where to write all results")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    fair = [name for name in PROPERTIES if name not in UNFAIR]
    parser.add_argument("--properties", default=",".join(fair), help="properties, by comma")
    arguments = parser.parse_args()
    names, properties = arguments.only.split(","), arguments.properties.split(",")
    for what, known, given in (("library", LIBRARIES, names), ("property", fair, properties)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"no such {what}: {', '.join(unknown)}; one of {', '.join(known)}")
    # The same cases in every run: the table changes only with what it is about.
    settings.register_profile("peers", derandomize=True)
    settings.load_profile("peers")
    found, missing = installed(names)
    examined = [examine(peer, properties, arguments.examples) for peer in found]
    sections = [
        ("", table(examined) if examined else []),
        ("not installed", missing),
        ("counts", counts(examined)),
        ("failures", details(examined, Mark.FAILS)),
        ("conventions", details(examined, Mark.CONVENTION)),
    ]
    for title, lines in sections:
        if lines:
            print("\n".join([*([f"\n## {title}"] if title else []), *lines]))
    if arguments.json:
        arguments.json.write_text(as_json(examined, missing, arguments.examples))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(examined))


if __name__ == "__main__":
    main()
