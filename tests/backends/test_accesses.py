"""What commands touch of local memory, against sets of bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.accesses import (
    LocalAccess,
    bdc_accesses,
    conflict,
    gdma_accesses,
    share_bytes,
)
from tilewright.backends.encoding.records import (
    BDC_RECORD,
    GDMA_RECORD,
    BdcFlag,
    BdcOpcode,
    BMode,
    GdmaOpcode,
)
from tilewright.dialects.element_types import F16, F32, I8

ACCESS = st.builds(
    LocalAccess,
    start=st.integers(0, 60),
    width=st.integers(1, 10),
    stride=st.integers(1, 20),
    slots=st.integers(1, 5),
    write=st.booleans(),
)


def bytes_of(access: LocalAccess) -> set[int]:
    return {
        access.start + slot * access.stride + byte
        for slot in range(access.slots)
        for byte in range(access.width)
    }


@given(ACCESS, ACCESS)
def test_shared_bytes(one: LocalAccess, other: LocalAccess):
    common = bool(bytes_of(one) & bytes_of(other))
    assert share_bytes(one, other) == share_bytes(other, one) == common
    assert conflict(one, other) == (common and (one.write or other.write))
    assert one.stop == max(bytes_of(one)) + 1


def test_moves():
    records = np.zeros(5, GDMA_RECORD)
    records["opcode"] = list(GdmaOpcode)
    records["element"] = F16.code
    records["rows"] = [130, 64, 1, 65, 1]
    records["cols"] = 40
    records["local_offset"] = 256
    records["local_stride"] = 128
    accesses = gdma_accesses(records, 64)
    assert accesses.command.tolist() == [0, 1, 2, 3, 4]
    assert [accesses.of(i)[0] for i in range(5)] == [
        LocalAccess(256, 80, 128, slots, write)
        for slots, write in ((3, True), (1, False), (1, True), (2, True), (1, False))
    ]


def command(
    opcode: BdcOpcode, *, rows: int, cols: int, depth: int = 0, **fields: int
) -> list[LocalAccess]:
    record = np.zeros(1, BDC_RECORD)
    record["opcode"], record["rows"], record["cols"], record["depth"] = opcode, rows, cols, depth
    for name, value in fields.items():
        record[name] = value
    for number, (name, element) in enumerate((("dst", F32), ("a", F16), ("b", I8))):
        record[name]["offset"], record[name]["stride"] = number * 10000, 512
        record[f"{name}_element"] = element.code
    accesses = bdc_accesses(record, 64)
    assert (accesses.command == 0).all()
    return accesses.of(0)


def dst(cols: int, slots: int) -> LocalAccess:
    return LocalAccess(0, 4 * cols, 512, slots, True)


def a(cols: int, slots: int) -> LocalAccess:
    return LocalAccess(10000, 2 * cols, 512, slots, False)


def b(cols: int, slots: int) -> LocalAccess:
    return LocalAccess(20000, cols, 512, slots, False)


def test_matrix_products():
    plain = command(BdcOpcode.MM, rows=65, cols=30, depth=200)
    assert plain == [dst(30, 2), a(200, 2), b(30, 4)]
    turned = command(BdcOpcode.MM, rows=65, cols=30, depth=200, flags=BdcFlag.TRANSPOSE_RIGHT)
    assert turned == [dst(30, 2), a(200, 2), b(200, 1)]


def test_vector_commands():
    assert command(BdcOpcode.FILL, rows=129, cols=8) == [dst(8, 3)]
    assert command(BdcOpcode.UNARY, rows=129, cols=8) == [dst(8, 3), a(8, 3)]
    assert command(BdcOpcode.REDUCE, rows=129, cols=8) == [dst(1, 3), a(8, 3)]
    assert command(BdcOpcode.TRANSPOSE, rows=129, cols=8) == [dst(129, 1), a(8, 3)]
    assert command(BdcOpcode.DEQUANT, rows=129, cols=8) == [dst(8, 3), a(8, 3), b(1, 3)]
    assert command(BdcOpcode.ROTATE, rows=129, cols=8, depth=4) == [dst(8, 3), a(8, 3)]


def test_right_operands():
    modes = {
        BMode.FULL: [b(8, 3)],
        BMode.ROW: [b(8, 1)],
        BMode.COLUMN: [b(1, 3)],
        BMode.IMMEDIATE: [],
    }
    for mode, right in modes.items():
        accesses = command(BdcOpcode.BINARY, rows=129, cols=8, b_mode=mode)
        assert accesses == [dst(8, 3), a(8, 3), *right]


def test_a_command_among_others():
    records = np.zeros(3, BDC_RECORD)
    records["opcode"] = [BdcOpcode.FILL, BdcOpcode.UNARY, BdcOpcode.FILL]
    records["rows"] = records["cols"] = 1
    accesses = bdc_accesses(records, 64)
    assert accesses.command.tolist() == [0, 1, 1, 2]
    assert accesses.stop.tolist() == [4, 4, 4, 4]
    assert [len(accesses.of(i)) for i in range(4)] == [1, 2, 1, 0]
