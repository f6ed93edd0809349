"""One op of the pattern as the equations between sizes see it: `op_relations.Site`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.workbench.rule_checking.attributes import solve_name
from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.draft import Draft, as_term
from tilewright.compiler.workbench.rule_checking.sizes import Shape, Term
from tilewright.passes.rules.rule import AttributePattern, AttributeTest
from tilewright.passes.rules.values import ELEMENTS


class OpSite:
    """The op `index` of a draft: its values by field, and its attributes."""

    def __init__(self, draft: Draft, index: int) -> None:
        self._draft = draft
        self._index = index
        self.sizes = draft.sizes
        self._fields: dict[str, list[str]] = {}
        for field, name in draft.fields(index):
            self._fields.setdefault(field, []).append(name)

    def shape(self, field: str) -> Shape:
        """The unknown sizes of an operand or result that is there."""
        return self._draft.shapes[self._fields[field][0]]

    def optional(self, field: str) -> Shape | None:
        """Those of an optional operand; None where it is absent."""
        return self.shape(field) if field in self._fields else None

    def every(self, field: str) -> list[Shape]:
        """Those of each value of a variadic operand."""
        return [self._draft.shapes[name] for name in self._fields.get(field, ())]

    def attribute(self, name: str, options: Sequence[object]) -> object:
        """Choose an attribute's value, unless the pattern says what it is."""
        fixed, value = self._given(name)
        if not fixed:
            value = self._draft.choices.pick(options)
            self._bind(name, value)
        self._set(name, value)
        return value

    def holds(self, field: str, *elements: str) -> None:
        """The tensor holds one of the element types."""
        self._draft.elements.restrict(
            self._fields[field][0], [ELEMENTS[element] for element in elements]
        )

    def number(self, name: str) -> Term:
        """A whole-number attribute as an unknown."""
        fixed, value = self._given(name)
        if not fixed:
            value = self.sizes.fresh()
            self._bind(name, value)
        term = as_term(value)
        self._set(name, term)
        return term

    def later(
        self,
        name: str,
        choose: Callable[[Callable[[Sequence[int]], int]], object],
        holds: Callable[[object], bool],
    ) -> None:
        """An attribute that is chosen when all sizes are known."""

        def wait() -> None:
            self._solve(name)
            fixed, value = self._given(name)
            if not fixed:
                value = choose(self._draft.choices.pick)
                self._bind(name, value)
            if not holds(value):
                raise ConflictError
            self._set(name, value)

        self._draft.waiting.append(wait)

    def _given(self, name: str) -> tuple[bool, object]:
        """Whether the pattern says what the attribute is, and what."""
        pattern, captured = self._pattern(name), self._captured(name)
        if pattern is not None and pattern.test is AttributeTest.EQUALS:
            return True, pattern.value
        if captured is not None and captured in self._draft.names:
            found = self._draft.names[captured]
            return True, self.sizes.resolved(found) if isinstance(found, Term) else found
        return False, None

    def _solve(self, name: str) -> None:
        """Let conditions say what a captured attribute is."""
        captured = self._captured(name)
        if captured is not None and captured not in self._draft.names:
            solve_name(self._draft, captured)

    def _bind(self, name: str, value: object) -> None:
        captured = self._captured(name)
        if captured is not None:
            self._draft.bind(captured, value)

    def _pattern(self, name: str) -> AttributePattern | None:
        op = self._draft.rule.ops[self._index]
        return next((each for each in op.attributes if each.name == name), None)

    def _captured(self, name: str) -> str | None:
        """The name that the pattern binds to the attribute."""
        pattern = self._pattern(name)
        if pattern is None or pattern.test is not AttributeTest.CAPTURE:
            return None
        return str(pattern.value)

    def _set(self, name: str, value: object) -> None:
        self._draft.attributes[self._index][name] = value
