"""Errors that a user of Tilewright sees.

Every error says *what* went wrong, *where* (an op, a source line, a tensor, a file), *why*, and a
*hint* on what to do. The subclasses follow the user's point of view; each has a stable code and the
exit code `tw` ends with.
"""

from __future__ import annotations

from typing import ClassVar, Self


class TilewrightError(Exception):
    """Base of all errors that are reported without a traceback."""

    code: ClassVar[str] = "TW000"
    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "error"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        super().__init__(what)

    def placed(self, where: str | None, hint: str | None = None) -> Self:
        """The same error, at `where`; with another hint, if one is given."""
        made = type(self).__new__(type(self), *self.args)
        made.__dict__.update(self.__dict__)
        made.where, made.hint = where, hint or self.hint
        return made

    def __str__(self) -> str:
        details = (("where:", self.where), ("why:", self.why), ("hint:", self.hint))
        lines = [f"  {name:6} {text}" for name, text in details if text]
        # Further lines of a text stand below its first.
        return "\n".join([self.what, *(line.replace("\n", "\n" + " " * 9) for line in lines)])


class OptionError(TilewrightError):
    """An option, argument, pass name, chip file or prompt that makes no sense."""

    code = "TW002"
    exit_code = 2
    title = "wrong option"


class ModelReadError(TilewrightError):
    """A checkpoint, configuration, IR file or data that cannot be read or lacks what it should
    hold."""

    code = "TW003"
    exit_code = 3
    title = "input cannot be read"


class UnsupportedError(TilewrightError):
    """An architecture, op, shape or type that Tilewright does not support."""

    code = "TW004"
    exit_code = 4
    title = "not supported"


class IRError(TilewrightError):
    """IR that breaks a rule of its dialect or of the stage it has reached."""

    code = "TW005"
    exit_code = 5
    title = "illegal IR"


class FitError(TilewrightError):
    """A model that does not fit global memory, or a tile that cannot fit local memory."""

    code = "TW006"
    exit_code = 6
    title = "does not fit"


class ArtifactError(TilewrightError):
    """A `.twm` artifact that is truncated, altered, of another version or out of range."""

    code = "TW007"
    exit_code = 7
    title = "unusable artifact"


class AccuracyError(TilewrightError):
    """A result outside of its error bound."""

    code = "TW008"
    exit_code = 8
    title = "accuracy below tolerance"


class SimulationError(TilewrightError):
    """A command that the machine cannot execute: out of range, undefined data, a race."""

    code = "TW009"
    exit_code = 9
    title = "illegal command"


class StorageError(TilewrightError):
    """The disk is full or the output cannot be written."""

    code = "TW010"
    exit_code = 10
    title = "cannot write"


class PluginError(TilewrightError):
    """An installed package whose plugin cannot be used."""

    code = "TW011"
    exit_code = 11
    title = "plugin cannot be used"


class MiscompileError(TilewrightError):
    """A pass after which the module computes something else, or races, or cannot be executed."""

    code = "TW013"
    exit_code = 13
    title = "miscompilation"


class InternalError(TilewrightError):
    """A bug of Tilewright."""

    code = "TW070"
    exit_code = 70
    title = "internal error"
