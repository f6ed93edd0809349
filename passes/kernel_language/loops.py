"""Loops that run on the machine: `for row in tk.range(...)`. The body is traced once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdsl.dialects import scf
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Block, SSAValue

from tilewright.passes.kernel_language.indexes import Index, index_of
from tilewright.passes.kernel_language.recording import current, here, kernel_error
from tilewright.passes.kernel_language.tiles import Local, Tile

Bound = Index | int
_INDEX = IndexType()


class Range:
    """`start`, `start + step`, ... below `stop`, with tiles that each iteration hands to the next.

        loop = tk.range(0, keys, step, carry=(m, l, acc))
        for key in loop:
            m, l, acc = loop.values        # of the iteration before
            ...
            loop.carry(m, l, acc)          # for the next one
        m, l, acc = loop.values            # of the last one

    A `tk.local` that the body assigns is carried by itself. A loop that runs once is no loop, and
    one that never runs leaves `values` as they were.
    """

    def __init__(
        self, start: Bound, stop: Bound, step: Bound, carry: Sequence[Tile | Local] = ()
    ) -> None:
        self.start, self.stop, self.step = int(start), int(stop), int(step)
        if self.step < 1:
            raise kernel_error(f"the step of tk.range is {self.step}, not 1 or more")
        self.values: tuple[Tile, ...] = tuple(_tile(each) for each in carry)
        self._next: tuple[Tile, ...] | None = None
        self._place = here()

    def carry(self, *tiles: Tile | Local) -> None:
        """Hand `tiles` to the next iteration; of the types of those before, in their order."""
        given = tuple(_tile(tile) for tile in tiles)
        if [tile.type for tile in given] != [tile.type for tile in self.values]:
            wanted = ", ".join(tile.describe() for tile in self.values)
            raise kernel_error(
                f"the loop carries {wanted or 'nothing'}, "
                f"not {', '.join(tile.describe() for tile in given)}",
                hint="cast it, or give tk.range the tiles of the first iteration in that type",
            )
        self._next = given

    def __iter__(self) -> Iterator[Index]:
        if self.stop <= self.start:
            return
        if self.stop - self.start <= self.step:
            yield index_of(self.start)
            self.values = self._carried()
            return
        yield from self._traced()

    def _traced(self) -> Iterator[Index]:
        """One pass through the body. Every local buffer goes in; those assigned come out."""
        recording = current()
        locals_ = [each for scope in recording.scopes for each in scope.locals]
        kept = [each for each in locals_ if isinstance(each, Local) and each.is_set]
        inits = [each.value for each in (*self.values, *(each.tile for each in kept))]
        start, stop, step = map(recording.constant, (self.start, self.stop, self.step))
        body = Block(arg_types=[_INDEX, *(value.type for value in inits)])
        entered = [Tile(value) for value in body.args[1:]]
        with recording.inside(body, self._place):
            count = len(self.values)
            self.values = tuple(entered[:count])
            for each, tile in zip(kept, entered[count:], strict=True):
                each.put(tile)
            try:
                yield Index(((body.args[0], 1),))
            except GeneratorExit:
                recording.abandoned.append(self._place)
                raise
            left = [each.value for each in (*self._carried(), *(each.tile for each in kept))]
        unchanged = {
            number for number in range(count, len(left)) if left[number] is body.args[number + 1]
        }
        results = self._close(body, (start, stop, step), inits, left, unchanged)
        self.values = tuple(Tile(value) for value in results[:count])
        for each, value in zip(kept, results[count:], strict=True):
            each.put(Tile(value))

    def _close(
        self,
        body: Block,
        bounds: tuple[SSAValue, SSAValue, SSAValue],
        inits: Sequence[SSAValue],
        left: Sequence[SSAValue],
        unchanged: set[int],
    ) -> list[SSAValue]:
        """The loop over `body`, which carries all but the `unchanged`; what is there after it."""
        start, stop, step = bounds
        for number in sorted(unchanged, reverse=True):
            argument = body.args[number + 1]
            argument.replace_all_uses_with(inits[number])
            body.erase_arg(argument)
        changed = [number for number in range(len(inits)) if number not in unchanged]
        body.add_op(scf.YieldOp(*(left[number] for number in changed)))
        loop = scf.ForOp(start, stop, step, [inits[number] for number in changed], body)
        results = list(inits)
        for number, value in zip(changed, current().insert(loop).results, strict=True):
            results[number] = value
        return results

    def _carried(self) -> tuple[Tile, ...]:
        if self.values and self._next is None:
            raise kernel_error(
                f"the loop at {self._place} does not carry its values on",
                hint="call loop.carry(...) at the end of its body",
            )
        return self._next or ()


def _tile(value: Tile | Local) -> Tile:
    return value.tile if isinstance(value, Local) else value
