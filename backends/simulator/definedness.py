"""Which local bytes have been written: the compiled loop of `check_kernel`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


def first_undefined_read(table: Any, lane_bytes: int) -> tuple[int, int, int]:
    """The first row of `table` that reads what none before it has written, with byte and lane.

    The row is -1 where there is none.

    Rows are accesses in order of execution: rank, whether it writes, offset, stride, slots, bytes a
    slot, lanes of the last slot, lanes of the other slots. Tiles begin at lane 0, so the lanes that
    have written a byte are always the first so many.
    """
    return _scan(table, np.zeros(lane_bytes, np.uint16))


@njit(nogil=True, cache=True)
def _scan(table: Any, written: Any) -> Any:
    for i in range(len(table)):
        write, offset, stride, slots = table[i, 1], table[i, 2], table[i, 3], table[i, 4]
        width, last, full = table[i, 5], np.uint16(table[i, 6]), np.uint16(table[i, 7])
        for slot in range(slots):
            lanes = last if slot == slots - 1 else full
            start = offset + slot * stride
            if write:
                for byte in range(start, start + width):
                    written[byte] = max(written[byte], lanes)
            else:
                least = written[start]
                for byte in range(start, start + width):
                    least = min(least, written[byte])
                if least < lanes:
                    byte = start
                    while written[byte] >= lanes:
                        byte += 1
                    return i, byte, np.int64(written[byte])
    return -1, 0, 0
