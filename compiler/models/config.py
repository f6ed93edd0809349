"""Reading the fields of a `config.json`, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tilewright.dialects.errors import ModelReadError, UnsupportedError


@dataclass(frozen=True)
class Fields:
    """The fields of a configuration; `source` is the file, for messages."""

    values: Mapping[str, Any]
    source: str

    def has(self, name: str) -> bool:
        """The field is there and not null."""
        return self.values.get(name) is not None

    def _get(self, name: str) -> Any:
        if not self.has(name):
            raise ModelReadError(f"field {name!r} is missing", where=self.source)
        return self.values[name]

    def _wrong(self, name: str, expected: str) -> ModelReadError:
        return ModelReadError(
            f"field {name!r} is {self.values[name]!r}, not {expected}", where=self.source
        )

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number; `default` if the field is missing or null."""
        if default is not None and not self.has(name):
            return default
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, "a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; `default` if the field is missing or null."""
        if default is not None and not self.has(name):
            return default
        value = self._get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < float("inf"):
            raise self._wrong(name, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false; `default` if the field is missing or null."""
        if not self.has(name):
            return default
        value = self.values[name]
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """A string; `default` if the field is missing or null."""
        if not self.has(name):
            return default
        value = self.values[name]
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        """A whole number or a list of them; empty if the field is missing or null."""
        if not self.has(name):
            return ()
        value = self.values[name]
        items = cast(list[object], value) if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise self._wrong(name, "a whole number or a list of them")
        return tuple(cast(list[int], items))

    def child(self, name: str) -> Fields:
        """An object inside of the configuration; empty if the field is missing or null."""
        if not self.has(name):
            return Fields({}, f"{self.source}, {name}")
        if not isinstance(self.values[name], dict):
            raise self._wrong(name, "an object")
        return Fields(self.values[name], f"{self.source}, {name}")

    def require(self, condition: bool, what: str, hint: str | None = None) -> None:
        """Raise `ModelReadError` unless the fields agree with each other."""
        if not condition:
            raise ModelReadError(what, where=self.source, hint=hint)

    def require_supported(self, name: str, supported: object, default: object) -> None:
        """Raise `UnsupportedError` unless the field has the one supported value."""
        value = self.values.get(name)
        if (default if value is None else value) != supported:
            raise UnsupportedError(
                f"{name} = {value!r} is not supported",
                where=self.source,
                hint=f"only {supported!r} is",
            )
