"""Command groups as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.encoding.binary import HEADER_BYTES, decode, encode
from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD
from tilewright.dialects.errors import ArtifactError


def group(gdma: int = 2, bdc: int = 3) -> bytes:
    one, two = np.zeros(gdma, GDMA_RECORD), np.zeros(bdc, BDC_RECORD)
    one["id"], two["id"] = np.arange(1, gdma + 1), np.arange(1, bdc + 1)
    return encode(one, two)


@given(gdma=st.binary(max_size=256), bdc=st.binary(max_size=256))
def test_round_trip(gdma: bytes, bdc: bytes) -> None:
    one = np.frombuffer(gdma[: len(gdma) // 64 * 64], GDMA_RECORD)
    two = np.frombuffer(bdc[: len(bdc) // 64 * 64], BDC_RECORD)
    data = encode(one, two)
    again = decode(data)
    assert (again[0].tobytes(), again[1].tobytes()) == (one.tobytes(), two.tobytes())
    assert encode(*again) == data


def test_records_refer_to_the_data() -> None:
    data = bytearray(group())
    gdma, bdc = decode(data)
    data[HEADER_BYTES] = 9
    assert gdma["opcode"][0] == 9
    assert not gdma.flags.writeable
    assert not bdc.flags.writeable


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes are less than a header of 64"),
        (group()[:-1], "it has 383 bytes, its header says 384"),
        (group() + b"\0", "it has 385 bytes, its header says 384"),
        (b"ELF." + group()[4:], "it begins with b'ELF.', not b'TWCG'"),
        (group()[:4] + b"\2" + group()[5:], "it has version 2, this is version 1"),
        (group()[:63] + b"\1" + group()[64:], "the unused bytes of its header are not zero"),
        (group()[:8] + b"\xff\xff\xff\xff" + group()[12:], "more than 1048575 commands an engine"),
    ],
)
def test_damage(data: bytes, why: str) -> None:
    with pytest.raises(ArtifactError, match="not a command group") as caught:
        decode(data, where="commands.bin")
    assert caught.value.where == "commands.bin"
    assert caught.value.why is not None
    assert why in caught.value.why
