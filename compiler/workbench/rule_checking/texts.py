"""Rules as they are written, for lists and references."""

from __future__ import annotations

import textwrap

from tilewright.passes.rules.rule import Rule


def rule_text(rule: Rule) -> str:
    """The rule as it stands in its source, with its documentation; nothing for a lowering in
    Python."""
    lines = rule.source.text.splitlines()
    first, last = rule.span.line - 1, rule.span.end_line
    if not rule.source.text or last > len(lines):
        return ""
    while first > 0 and lines[first - 1].lstrip().startswith("///"):
        first -= 1
    return textwrap.dedent("\n".join(lines[first:last]))


def first_line(rule: Rule) -> str:
    """The first line of what is said of a rule."""
    return rule.doc.strip().partition("\n")[0]
