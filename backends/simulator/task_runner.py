"""The compiled loop that executes a launch: tasks in order, each shared by the host threads.

A task is a row of an int64 table: its kind, how many units (rows) it works on, in how many chunks,
and its other arguments; `task_loops` has a compiled function for each kind. No unit of a task
depends on another one, and a task begins when the one before it is done (`host_threads`): the
result is that of one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from tilewright.backends.simulator import conversions, host_threads
from tilewright.backends.simulator.conversions import JIT
from tilewright.backends.simulator.host_threads import (
    FOUND,
    POSITION_BIT,
    current_claim,
    finish_chunk,
    take_chunk,
    wait_a_little,
)
from tilewright.backends.simulator.task_loops import fingerprint_of

KIND, UNITS, CHUNK, CHUNKS, ARGUMENTS = 0, 1, 2, 3, 4
"""Columns of the table. Chunk number `c` of `CHUNKS` begins at unit `c * CHUNK`."""

TASK_WORDS = ARGUMENTS + 21

_I64 = ir.IntType(64)


@intrinsic
def _call(typing_context: Any, loop: Any, first: Any, last: Any, words: Any, bases: Any) -> Any:
    """`loop(first, last, words, bases)`: a function at an address, and addresses of numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * 4)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 5), generate


@njit(**JIT)
def _execute(table: Any, task: Any, first: Any, last: Any, bases: Any, loops: Any) -> Any:
    """Units `[first, last)` of a task. Returns -1, or the row whose index is out of range."""
    words = table.ctypes.data + 8 * (task * TASK_WORDS + ARGUMENTS)
    return _call(loops[table[task, KIND]], first, last, words, bases.ctypes.data)


def _make_run_tasks(fingerprint: int) -> Callable[..., None]:
    @njit(cache=True, **JIT)
    def run_tasks(
        table: Any, order: Any, bases: Any, loops: Any, thread: Any, threads: Any, state: Any
    ) -> None:
        """Thread `thread` of `threads`: its part of the tasks of `table`, in `order`.

        `bases` are the host addresses of the launch's arguments, `loops` those of compiled loops
        (`loop_addresses`). Returns when all tasks are done, or one has met an index out of range:
        `state[FOUND]` is then its place in `order`, counted from 1, and the next word the row.
        """
        _ = fingerprint  # What a closure refers to is part of the cache's key.
        if threads == 1:
            for position in range(len(order)):
                task = order[position]
                bad = _execute(table, task, 0, table[task, UNITS], bases, loops)
                if bad >= 0:
                    state[FOUND], state[FOUND + 1] = position + 1, bad
                    return
            return
        looks = 0
        while True:
            claim = current_claim(state)
            position = claim >> POSITION_BIT
            if claim < 0 or position >= len(order):
                return
            task = order[position]
            chunks = table[task, CHUNKS]
            chunk = take_chunk(state, claim, chunks, thread)
            if chunk < 0:
                wait_a_little(looks)
                looks += 1
                continue
            looks = 0
            first = chunk * table[task, CHUNK]
            last = min(first + table[task, CHUNK], table[task, UNITS])
            bad = _execute(table, task, first, last, bases, loops)
            following = position + 1
            if bad >= 0:
                state[FOUND], state[FOUND + 1] = position + 1, bad
                following = len(order)
            finish_chunk(state, chunks, following)

    return run_tasks


COMPILED_MODULES = [conversions, host_threads]
"""Beside this one, the modules that `run_tasks` comes from."""

run_tasks = _make_run_tasks(fingerprint_of(COMPILED_MODULES))
