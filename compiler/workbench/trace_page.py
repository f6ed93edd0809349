"""A trace as one HTML page that needs no network: step through with the arrow keys.

The page is `trace_page.html` with the steps in it as JSON. Texts of the IR reach the page as text
alone; equal traces give equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from importlib.resources import files
from itertools import zip_longest

from tilewright.compiler.workbench.trace import Step

_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What could end a script element, or its lines, inside of a JSON string."""


def trace_page(title: str, pipeline: str, steps: Sequence[Step]) -> str:
    """The page of the steps of a pipeline on the file `title`."""
    data = json.dumps([_row(step) for step in steps], ensure_ascii=False).translate(_IN_SCRIPT)
    parts = {"TITLE": escape(title), "PIPELINE": escape(pipeline), "DATA": data}
    template = files("tilewright.compiler.workbench").joinpath("trace_page.html")
    return re.sub(f"@({'|'.join(parts)})@", lambda at: parts[at[1]], template.read_text("utf-8"))


def _row(step: Step) -> dict[str, object]:
    row = {key: value for key, value in step.to_json().items() if key not in ("before", "after")}
    return {**row, "lines": list(side_by_side(step.before, step.after))}


def side_by_side(before: str, after: str) -> Iterator[tuple[str | None, str | None]]:
    """The lines of two texts, equal ones beside each other; none where the other side has more."""
    old, new = (text.split("\n") if text else [] for text in (before, after))
    matcher = SequenceMatcher(None, old, new)
    for _, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        yield from zip_longest(old[old_start:old_end], new[new_start:new_end])
