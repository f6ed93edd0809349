"""Positions in a tensor that are known when the kernel runs: `row`, `row + 64`, `2 * head + 1`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import arith
from xdsl.ir import Operation, SSAValue

from tilewright.passes.kernel_language.recording import current, kernel_error


@dataclass(frozen=True, eq=False)
class Index:
    """`constant + sum(factor * value)`. Differences of positions fold, so that the size of
    `x[row : row + 64]` is known while the kernel is traced.
    """

    terms: tuple[tuple[SSAValue, int], ...] = ()
    constant: int = 0

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def __add__(self, other: Index | int) -> Index:
        other = index_of(other)
        factors = dict(self.terms)
        for value, factor in other.terms:
            factors[value] = factors.get(value, 0) + factor
        terms = tuple((value, factor) for value, factor in factors.items() if factor)
        return Index(terms, self.constant + other.constant)

    def __radd__(self, other: int) -> Index:
        return self + other

    def __neg__(self) -> Index:
        return self * -1

    def __sub__(self, other: Index | int) -> Index:
        return self + index_of(other) * -1

    def __rsub__(self, other: int) -> Index:
        return index_of(other) - self

    def __mul__(self, other: Index | int) -> Index:
        other = index_of(other)
        if self.is_constant:
            self, other = other, self
        if not other.is_constant:
            raise kernel_error(
                "a product of two loop indices",
                hint="the sizes of loops and tiles are Python numbers: multiply with those",
            )
        factor = other.constant
        terms = tuple((value, by * factor) for value, by in self.terms if factor)
        return Index(terms, self.constant * factor)

    def __rmul__(self, other: int) -> Index:
        return self * other

    def __floordiv__(self, other: int) -> Index:
        return self._computed(arith.DivUIOp, lambda a, b: a // b, other)

    def __mod__(self, other: int) -> Index:
        return self._computed(arith.RemUIOp, lambda a, b: a % b, other)

    def _computed(
        self,
        make: Callable[[SSAValue, SSAValue], Operation],
        fold: Callable[[int, int], int],
        other: int,
    ) -> Index:
        if self.is_constant:
            return Index((), fold(self.constant, other))
        recording = current()
        op = make(self.emit(), recording.constant(other))
        return Index(((recording.insert(op).results[0], 1),))

    def __index__(self) -> int:
        if not self.is_constant:
            raise kernel_error(
                "a loop index is not known while the kernel is traced",
                why="tk.range runs its body once, for all iterations",
                hint="Python's range repeats the body instead",
            )
        return self.constant

    def __bool__(self) -> bool:
        return bool(self.__index__())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index | int):
            return NotImplemented
        return int(self - other) == 0

    def __lt__(self, other: Index | int) -> bool:
        return int(self - other) < 0

    def __gt__(self, other: Index | int) -> bool:
        return int(self - other) > 0

    def __le__(self, other: Index | int) -> bool:
        return int(self - other) <= 0

    def __ge__(self, other: Index | int) -> bool:
        return int(self - other) >= 0

    def emit(self) -> SSAValue:
        """The index value, computed where the recording stands."""
        recording = current()
        total: int | SSAValue = 0
        for value, factor in self.terms:
            recording.require_visible(value, "a loop index")
            total = recording.add(total, recording.mul(value, factor))
        return recording.add(total, self.constant)


def index_of(value: Index | int) -> Index:
    """`value` as an index."""
    return value if isinstance(value, Index) else Index((), value)
