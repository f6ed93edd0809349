"""Which line of the user's Python an op or a message is about."""

from __future__ import annotations

import contextlib
import inspect
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType

from xdsl.dialects.builtin import FileLineColLoc, NameLoc, StringAttr
from xdsl.dialects.builtin import IntAttr as Int


def user_frame(*paths: str) -> FrameType | None:
    """The innermost running frame whose file is none of `paths` and in no folder of them; a `with`
    that stands in one of them runs through the standard library, which is nobody's line."""
    frame = inspect.currentframe()
    passed = (__file__, contextlib.__file__, *paths)
    while frame is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    return frame


def named_location(name: str, frame: FrameType | None) -> NameLoc:
    """`loc("name"("file.py":line:col))` of what `frame` executes."""
    if frame is None:
        return NameLoc(StringAttr(name), FileLineColLoc(StringAttr("<unknown>"), Int(0), Int(0)))
    return NameLoc(StringAttr(name), _place(frame.f_code, frame.f_lasti))


def readable_place(frame: FrameType | None) -> str:
    """`file.py:line:column` of what `frame` executes, relative to the working folder."""
    if frame is None:
        return "unknown"
    line, column = _position_in(frame.f_code, frame.f_lasti)
    return f"{readable_file(frame.f_code.co_filename)}:{line}:{column}"


def readable_file(filename: str) -> str:
    """`filename`, relative to the working folder if it is in there."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _position_in(code: CodeType, instruction: int) -> tuple[int, int]:
    """Line and column, both from 1."""
    positions = islice(code.co_positions(), instruction // 2, None)
    line, _, column, _ = next(positions, (None, None, None, None))
    return line or code.co_firstlineno, (column or 0) + 1


@lru_cache(maxsize=1024)
def _place(code: CodeType, instruction: int) -> FileLineColLoc:
    """The source position of an instruction: a line in a loop is looked up once."""
    line, column = _position_in(code, instruction)
    return FileLineColLoc(StringAttr(Path(code.co_filename).name), Int(line), Int(column))
