"""Sizes as unknowns: products of atoms, made equal by substitution, then given numbers.

A size is a `Term`, an integer times atoms: `8`, `a`, `2 a b`. Making two terms equal substitutes
atoms (`a := 2 b c`), as unification does, so whatever holds between shapes holds by construction.
What is not a product (a sum of sizes, a bound) waits until the atoms have numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd

from tilewright.compiler.workbench.rule_checking.choices import Choices, ConflictError

MOST = 8
"""Sizes that are chosen go from 1 to it; those that are products of several may be larger."""
MOST_STEPS = 24
"""Substitutions that make two terms equal, at most."""
_POOLS = (range(1, MOST + 1), (1, 2), (2,), (2, 3), (3, 1), (4, 5, 7))
"""What one instance chooses its sizes from: small pools make equal sizes, where mistakes hide."""
MOST_ELEMENTS = 1024
"""Of a tensor, unless a rule asks for more."""


@dataclass(frozen=True, slots=True)
class Term:
    """`factor` times atoms, which are numbers of unknowns and may repeat."""

    factor: int
    atoms: tuple[int, ...] = ()

    def times(self, other: Term) -> Term:
        """The product of both."""
        return Term(self.factor * other.factor, tuple(sorted((*self.atoms, *other.atoms))))


ONE = Term(1)
Shape = tuple[Term, ...]


def product(terms: Iterable[Term]) -> Term:
    """The product of all `terms`."""
    result = ONE
    for term in terms:
        result = result.times(term)
    return result


@dataclass
class Sizes:
    """The unknowns of one instance, and what holds between them."""

    choices: Choices
    count: int = 0
    substitution: dict[int, Term] = field(default_factory=dict[int, Term])
    sums: list[tuple[Term, tuple[Term, ...]]] = field(
        default_factory=list[tuple[Term, tuple[Term, ...]]]
    )
    limits: list[tuple[Term, Term]] = field(default_factory=list[tuple[Term, Term]])
    """Terms and what they are not larger than."""
    shapes: list[Shape] = field(default_factory=list[Shape])
    """Of all tensors."""

    def fresh(self) -> Term:
        """A new unknown."""
        self.count += 1
        return Term(1, (self.count,))

    def fresh_shape(self, rank: int) -> Shape:
        """A tensor's shape of unknown sizes."""
        shape = tuple(self.fresh() for _ in range(rank))
        self.shapes.append(shape)
        return shape

    def resolved(self, term: Term) -> Term:
        """`term` with all that is known of its atoms."""
        if self.substitution.keys().isdisjoint(term.atoms):
            return term
        factor, atoms = term.factor, list[int]()
        for atom in term.atoms:
            found = self.substitution.get(atom)
            if found is None:
                atoms.append(atom)
                continue
            found = self.substitution[atom] = self.resolved(found)
            factor *= found.factor
            atoms += found.atoms
        return Term(factor, tuple(sorted(atoms)))

    def equal(self, left: Term, right: Term) -> None:
        """Make two terms equal; raises `ConflictError` where they cannot be."""
        a, b = _cancelled(self.resolved(left), self.resolved(right))
        steps = 0
        while a.atoms or b.atoms or a.factor != b.factor:
            steps += 1
            if steps > MOST_STEPS:
                raise ConflictError  # x x = 2 y y goes on for ever
            self._step(a, b)
            a, b = _cancelled(self.resolved(a), self.resolved(b))

    def _step(self, a: Term, b: Term) -> None:
        """Substitute one atom of two terms without a common factor."""
        if len(a.atoms) == 1 and a.factor == 1:
            self.substitution[a.atoms[0]] = b
        elif len(b.atoms) == 1 and b.factor == 1:
            self.substitution[b.atoms[0]] = a
        elif a.factor > 1 or b.factor > 1:
            # A prime of the one side divides some atom of the other.
            one, other = (a, b) if a.factor > 1 else (b, a)
            atom = self.choices.pick(sorted(set(other.atoms)))
            self.substitution[atom] = Term(_least_prime(one.factor)).times(self.fresh())
        elif not a.atoms or not b.atoms:
            for atom in {*a.atoms, *b.atoms}:
                self.substitution[atom] = ONE
        else:
            # x y = z w: one of x and z divides the other.
            small, large = self.choices.pick(
                [(a.atoms[0], atom) for atom in sorted(set(b.atoms))]
                + [(atom, a.atoms[0]) for atom in sorted(set(b.atoms))]
            )
            self.substitution[large] = Term(1, (small,)).times(self.fresh())

    def equal_shapes(self, left: Shape, right: Shape) -> None:
        """Make two shapes equal."""
        if len(left) != len(right):
            raise ConflictError
        for a, b in zip(left, right, strict=True):
            self.equal(a, b)

    def equal_sum(self, total: Term, parts: Sequence[Term]) -> None:
        """`total` is the sum of `parts`."""
        if len(parts) == 1:
            self.equal(total, parts[0])
            return
        self.sums.append((total, tuple(parts)))

    def at_most(self, small: Term, large: Term) -> None:
        """`small` is no larger than `large`."""
        self.limits.append((small, large))

    def solve(self) -> None:
        """Give all atoms numbers; raises `ConflictError` where what waits does not hold."""
        sums = list(self._mixed_sums())
        shapes = [tuple(self.resolved(size) for size in shape) for shape in self.shapes]
        counts = [product(shape) for shape in dict.fromkeys(shapes)]
        derived = {total.atoms[0] for total, _ in sums if len(total.atoms) == 1}
        atoms = dict.fromkeys(atom for shape in shapes for size in shape for atom in size.atoms)
        atoms.update(dict.fromkeys(range(1, self.count + 1)))
        pool = self.choices.pick(_POOLS)
        for atom in atoms:
            if atom not in self.substitution and atom not in derived:
                self._number(atom, pool, counts)
        for total, parts in sums:
            value = sum(self.value(part) for part in parts)
            known = self.resolved(total)
            if len(known.atoms) == 1 and value % known.factor == 0:
                self.substitution[known.atoms[0]] = Term(value // known.factor)
            elif known != Term(value):
                raise ConflictError
        for atom in sorted(derived):
            if atom not in self.substitution:
                self._number(atom, pool, counts)
        if any(self.value(small) > self.value(large) for small, large in self.limits):
            raise ConflictError

    def _mixed_sums(self) -> Iterable[tuple[Term, tuple[Term, ...]]]:
        """The sums that have to wait; one of terms in the same atoms, `a + 2 a`, is a term."""
        for total, parts in self.sums:
            known = tuple(self.resolved(part) for part in parts)
            if all(part.atoms == known[0].atoms for part in known):
                self.equal(total, Term(sum(part.factor for part in known), known[0].atoms))
            else:
                yield self.resolved(total), known

    def _number(self, atom: int, pool: Sequence[int], counts: Sequence[Term]) -> None:
        """Give one atom a number that keeps all tensors small; `counts` are their elements."""
        most = MOST
        for count in counts:
            times = count.atoms.count(atom)
            if times:
                whole = self.resolved(count)
                room = max(1, MOST_ELEMENTS // whole.factor)
                most = min(most, max(1, int(room ** (1 / times) + 1e-9)))
        least = 1
        for small, large in self.limits:
            a, b = self.resolved(small), self.resolved(large)
            if b.atoms == (atom,) and not a.atoms:
                least = max(least, -(-a.factor // b.factor))
            if a.atoms == (atom,) and not b.atoms:
                most = min(most, b.factor // a.factor)
        sizes = [size for size in pool if least <= size <= most]
        sizes = sizes or list(range(least, most + 1))
        self.substitution[atom] = Term(self.choices.pick(sizes))

    def value(self, term: Term) -> int:
        """The number that a term has after `solve`."""
        known = self.resolved(term)
        if known.atoms:
            raise ConflictError
        return known.factor

    def values(self, shape: Shape) -> tuple[int, ...]:
        """The sizes of a shape after `solve`."""
        return tuple(self.value(size) for size in shape)


def _cancelled(a: Term, b: Term) -> tuple[Term, Term]:
    """Both without their common atoms and factors."""
    left, right = list(a.atoms), list(b.atoms)
    for atom in a.atoms:
        if atom in right:
            left.remove(atom)
            right.remove(atom)
    if not left and not right:
        if a.factor != b.factor:
            raise ConflictError
        return ONE, ONE
    common = gcd(a.factor, b.factor)
    one, other = a.factor // common, b.factor // common
    if (not left and other != 1) or (not right and one != 1):
        raise ConflictError  # a number that is no multiple of the other side's
    return Term(one, tuple(left)), Term(other, tuple(right))


def _least_prime(number: int) -> int:
    return next(p for p in range(2, number + 1) if number % p == 0)
