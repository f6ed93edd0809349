"""Which lowerings there are, and in what order they are asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from inspect import getdoc
from typing import TypeAlias, TypeVar

from xdsl.ir import Operation, SSAValue

from tilewright.dialects.errors import OptionError, TilewrightError
from tilewright.dialects.plugins import Installed, givers, load_modules, warn
from tilewright.passes.lowerings.conversion import Conversion, ConversionOptions

OPTIONS: tuple[str, ...] = tuple(each.name for each in fields(ConversionOptions))
"""What a lowering may depend on: the options of `convert-top-to-tpu`."""

Option: TypeAlias = str | bool
OpT = TypeVar("OpT", bound=Operation)
Lower: TypeAlias = Callable[[OpT, Conversion], Sequence[SSAValue] | None]


@dataclass(frozen=True)
class Lowering:
    """A way to lower an op: `lower(op, convert)` gives its results' new values, or None.

    It is for ops of `op_class` and of classes derived from it. `name` is what traces and bisection
    call it, a sentence in CamelCase.
    """

    name: str
    op_class: type[Operation]
    lower: Lower[Operation]
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=dict[str, tuple[Option, ...]])
    """The values of the pass's options under which it may be used; any value if left out."""
    benefit: int = 1
    documentation: str = ""
    origin: str = ""
    """The module, or the rule file, that it comes from."""

    def allows(self, options: ConversionOptions) -> bool:
        """Whether it may be used under `options`."""
        return all(getattr(options, name) in values for name, values in self.options.items())


_LOWERINGS: dict[str, Lowering] = {}
"""By name, in the order of registration."""


def register(lowering: Lowering) -> None:
    """Add a lowering. A module that is loaded again replaces its own.

    Raises `OptionError` for a name that is taken, and for an option that the pass does not have.
    """
    taken = _LOWERINGS.get(lowering.name)
    if taken is not None and taken.origin != lowering.origin:
        raise OptionError(
            f"there are two lowerings called {lowering.name}",
            why=f"one is in {taken.origin}, one in {lowering.origin}",
        )
    for name in lowering.options:
        if name not in OPTIONS:
            raise OptionError(
                f"lowering {lowering.name} asks for {name!r}, which is no option of the conversion",
                where=lowering.origin,
                hint=f"one of {', '.join(OPTIONS)}",
            )
    _LOWERINGS[lowering.name] = lowering
    lowerings_of.cache_clear()


def lowering(
    op_class: type[OpT],
    *,
    name: str = "",
    benefit: int = 1,
    **options: Option | tuple[Option, ...],
) -> Callable[[Lower[OpT]], Lower[OpT]]:
    """Register the decorated function as a lowering of `op_class`.

    `options` are values of the options of `convert-top-to-tpu`, or tuples of values, under which it
    applies. The name is that of the function, in CamelCase, unless given.
    """

    def decorate(function: Lower[OpT]) -> Lower[OpT]:
        def lower(op: Operation, convert: Conversion) -> Sequence[SSAValue] | None:
            return function(op, convert) if isinstance(op, op_class) else None

        register(
            Lowering(
                name or camel_case(function.__name__),
                op_class,
                lower,
                {
                    key: value if isinstance(value, tuple) else (value,)
                    for key, value in options.items()
                },
                benefit,
                getdoc(function) or "",
                function.__module__,
            )
        )
        return function

    return decorate


def camel_case(name: str) -> str:
    """`lower_bias_gelu` as `LowerBiasGelu`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


@cache
def lowerings_of(op_class: type[Operation], options: ConversionOptions) -> tuple[Lowering, ...]:
    """The lowerings for ops of `op_class` under `options`, in the order in which they are asked."""
    bases = op_class.__mro__
    found = [
        (bases.index(each.op_class), -each.benefit, -len(each.options), -number, each)
        for number, each in enumerate(registered_lowerings())
        if each.op_class in bases and each.allows(options)
    ]
    return tuple(each for *_, each in sorted(found, key=lambda row: row[:-1]))


def registered_lowerings() -> tuple[Lowering, ...]:
    """All lowerings, those of installed packages too."""
    _load_plugins()
    return tuple(_LOWERINGS.values())


@contextmanager
def temporarily(*lowerings: Lowering) -> Generator[None]:
    """Register `lowerings` inside the context, in place of those of their names."""
    _load_plugins()
    before = dict(_LOWERINGS)
    for each in lowerings:
        _LOWERINGS.pop(each.name, None)
        register(each)
    try:
        yield
    finally:
        _LOWERINGS.clear()
        _LOWERINGS.update(before)
        lowerings_of.cache_clear()


def _load_plugins() -> None:
    load_modules()
    register_rules_of_plugins()


def register_rules_of_plugins() -> None:
    """Register the lowerings in the rule files of plugins, once; a broken file is warned of."""
    for each in givers():
        _register_rules_of(each)


@cache
def _register_rules_of(giver: Installed) -> None:
    for path in giver.plugin.rules if giver.plugin is not None else ():
        from tilewright.passes.lowerings.from_rules import register_rules  # only if there are

        try:
            register_rules(path)
        except TilewrightError as error:
            warn(giver.failure(f"the lowerings in its {path.name} are left out", error))
