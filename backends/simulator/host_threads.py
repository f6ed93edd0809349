"""Host threads that work through one list of tasks together.

Tasks are done in order, each split into chunks. Threads take chunks of the current task, those with
even numbers from the front and those with odd ones from the back, so that they mostly keep to the
same rows from task to task. Whoever finishes the last chunk goes on to the next task. So no thread
waits for one that has taken nothing, because the host has not given it a core: with a meeting of
all threads after every task, a busy host would stall them all most of the time.

Threads wait by spinning, as chunks take microseconds; but only so long, then they give their core
away. Needs `sched_yield` (Linux, macOS).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.simulator.conversions import JIT

CLAIM, DONE, FAILED, FOUND = 0, 16, 32, 48
"""Words of the shared state, 128 bytes apart: no two share a cache line.

`CLAIM`: the current task's place in the list, and how many chunks have been taken from its front
and its back (`POSITION_BIT`, `FRONT_BIT`, bit 0). `DONE`: how many chunks of it are done. `FAILED`:
not 0 if a thread has raised an error. `FOUND` and the next word belong to the tasks.
"""

_STATE_WORDS = 64

POSITION_BIT, FRONT_BIT = 32, 16

MAX_CHUNKS = 64

SPINS = 2000
"""Looks at the shared state before a thread gives its core away: about 20 us."""

State: TypeAlias = npt.NDArray[np.int64]

Part: TypeAlias = Callable[[int, int, State], None]
"""What thread `thread` of `threads` does of a list of tasks. It returns when all are done."""

_I64 = ir.IntType(64)


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def _add_one(typing_context: Any, address: Any) -> Any:
    """Add 1 to a word in one step; returns what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, arguments[0]), _I64(1), "acq_rel")

    return types.int64(types.int64), generate


@intrinsic
def _replace(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """Change a word from `old` to `new` in one step; whether it was `old`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, old, new = arguments
        pair = builder.cmpxchg(_word(builder, address), old, new, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def _look(typing_context: Any, address: Any) -> Any:
    """Read a word; what its writer has written before is seen from now on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word(builder, arguments[0]), "acquire", 8, typ=_I64)

    return types.int64(types.int64), generate


@intrinsic
def _publish(typing_context: Any, address: Any, value: Any) -> Any:
    """Write a word, after all that this thread has written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        builder.store_atomic(value, _word(builder, address), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _pause(typing_context: Any) -> Any:
    """Tell the core that this is a waiting loop, where it can be told."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if str(builder.module.triple).startswith("x86_64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            pause = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause")
            builder.call(pause, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _give_core_away(typing_context: Any) -> Any:
    """Let another thread run, if one is ready."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(**JIT)
def current_claim(state: Any) -> Any:
    """The current task's place and what is taken of it; -1 if a thread has failed."""
    base = state.ctypes.data
    return -1 if _look(base + 8 * FAILED) != 0 else _look(base + 8 * CLAIM)


@njit(**JIT)
def take_chunk(state: Any, claim: Any, chunks: Any, thread: Any) -> Any:
    """Take a chunk of the current task; -1 if all are taken, or another thread was faster."""
    front = (claim >> FRONT_BIT) & (2 * MAX_CHUNKS - 1)
    back = claim & (2 * MAX_CHUNKS - 1)
    if front + back >= chunks:
        return -1
    from_back = thread & 1
    taken = claim + (1 if from_back else 1 << FRONT_BIT)
    if not _replace(state.ctypes.data + 8 * CLAIM, claim, taken):
        return -1
    return chunks - 1 - back if from_back else front


@njit(**JIT)
def finish_chunk(state: Any, chunks: Any, following: Any) -> None:
    """A chunk is done. If it was the last one, the task at `following` becomes the current one."""
    base = state.ctypes.data
    if chunks == 1 or _add_one(base + 8 * DONE) + 1 == chunks:
        state[DONE] = 0
        _publish(base + 8 * CLAIM, following << POSITION_BIT)


@njit(**JIT)
def wait_a_little(looks: Any) -> None:
    """Between two looks at the shared state, of which there have been `looks` in vain."""
    if looks < SPINS:
        _pause()
    else:
        _give_core_away()


class HostThreads:
    """`count` threads of the host, with the one that calls."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None

    def run(self, part: Part, *, together: bool) -> State:
        """Do a list of tasks, with all threads or in the one that calls; returns the last state.

        Other threads may return later, but touch nothing any more.
        """
        state = np.zeros(_STATE_WORDS, np.int64)
        if self._pool is None or not together:
            part(0, 1, state)
            return state
        others: list[Future[None]] = []
        try:
            for thread in range(1, self._count):
                others.append(self._pool.submit(_other_part, part, thread, self._count, state))
            part(0, self._count, state)
        except BaseException:  # of a KeyboardInterrupt too, other threads must hear
            state[FAILED] = 1
            wait(others)
            raise
        if state[FAILED]:
            for other in others:
                other.result()
        return state


def _other_part(part: Part, thread: int, threads: int, state: State) -> None:
    """Do a part; if it fails, no thread waits for it."""
    try:
        part(thread, threads, state)
    except BaseException:
        state[FAILED] = 1
        raise
