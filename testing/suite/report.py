"""What a run of the suite found: a row a property, as text, markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.utils.str_enum import StrEnum

from tilewright.testing.quantizer import PropertyError


class Verdict(StrEnum):
    """What is known of a property."""

    HOLDS = "holds"
    """No counterexample was found."""
    FAILS = "fails"
    NOT_APPLICABLE = "not applicable"
    """The quantizer lacks an ability, or the scheme has nothing of the kind."""


@dataclass(frozen=True)
class PropertyResult:
    """One property on one quantizer."""

    id: str
    meaning: str
    verdict: Verdict
    why: str = ""
    """Where it fails, or why it does not apply."""
    counterexample: str = ""
    """The smallest case that was found on which it fails."""
    examples: int = 0
    """Cases that were tried."""


@dataclass(frozen=True)
class PropertyReport:
    """All properties of a run on one quantizer."""

    name: str
    scheme: str
    rows: tuple[PropertyResult, ...]

    def __iter__(self) -> Iterator[PropertyResult]:
        return iter(self.rows)

    def __getitem__(self, property_id: str) -> PropertyResult:
        """The row of a property; raises `KeyError` if it was not run."""
        for row in self.rows:
            if row.id == property_id:
                return row
        raise KeyError(property_id)

    @property
    def ok(self) -> bool:
        """Whether nothing fails."""
        return not self.failures

    @property
    def failures(self) -> tuple[PropertyResult, ...]:
        """The rows that fail."""
        return self._with(Verdict.FAILS)

    @property
    def not_applicable(self) -> tuple[PropertyResult, ...]:
        """The rows that say nothing, and why."""
        return self._with(Verdict.NOT_APPLICABLE)

    def _with(self, verdict: Verdict) -> tuple[PropertyResult, ...]:
        return tuple(row for row in self.rows if row.verdict is verdict)

    @property
    def summary(self) -> str:
        """One line: how many hold, fail and do not apply."""
        counts = {verdict: len(self._with(verdict)) for verdict in Verdict}
        return f"{self.name} as {self.scheme}: " + ", ".join(
            f"{count} {'do not apply' if verdict is Verdict.NOT_APPLICABLE else verdict.value}"
            for verdict, count in counts.items()
        )

    def text(self) -> str:
        """A table of what holds and fails, the reasons why others do not apply, and the
        counterexamples.
        """
        checked = [row for row in self.rows if row.verdict is not Verdict.NOT_APPLICABLE]
        width = max((len(row.id) for row in checked), default=0)
        lines = [self.summary, ""]
        for row in checked:
            lines.append(f"  {row.id:{width}}  {row.verdict.value}  {row.why or row.meaning}")
        if self.not_applicable:
            lines += ["", "Do not apply:"]
        for why in dict.fromkeys(row.why for row in self.not_applicable):
            ids = ", ".join(row.id for row in self.not_applicable if row.why == why)
            lines.append(f"  {why}: {ids}")
        for row in self.failures:
            case = row.counterexample.replace("\n", "\n  ")
            lines += ["", f"{row.id}: {row.meaning}", f"  {case}"]
        return "\n".join(lines)

    def markdown(self) -> str:
        """A table for documents."""
        lines = ["| property | verdict | |", "| --- | --- | --- |"]
        for row in self.rows:
            cell = (row.why or row.meaning).replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {row.id} | {row.verdict.value} | {cell} |")
        return "\n".join(lines)

    def json(self) -> str:
        """All rows, for programs."""
        rows = [{**row.__dict__, "verdict": row.verdict.value} for row in self.rows]
        return json.dumps({"name": self.name, "scheme": self.scheme, "rows": rows}, indent=2)

    def raise_failures(self) -> None:
        """Raises `PropertyError` with the counterexamples, if there are failures."""
        __tracebackhide__ = True  # pytest points at the test
        if self.failures:
            only = PropertyReport(self.name, self.scheme, self.failures)
            raise PropertyError("\n" + "\n".join([self.summary, *only.text().splitlines()[1:]]))
