"""Quantization tables: what is written is read again, and bad lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.compiler.quantization.sizes import bits_per_weight, stored_bytes
from tilewright.compiler.quantization.table import format_table, read_table, write_table
from tilewright.dialects.errors import OptionError

WEIGHTS = {
    key: LinearWeight(key, 96, 64)
    for key in ("layers.0.up.weight", "layers.1.up.weight", "layers.0.down.weight")
}
SCHEMES = ("w8a16", "w8a16-g32-zp", "w4a16", "w4a16-channel-absmax", "f8e5m2-g16", "int8", "f16")
TABLE = """\
# a comment

layers.0.up.weight = w8a16  # 96 x 64
  layers.1.up.weight=w4a16-g64
layers.0.down.weight = f16
"""


@settings(deadline=None)
@given(
    st.dictionaries(st.text(min_size=1), st.sampled_from(SCHEMES), min_size=1, max_size=5),
    st.text(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, assigned: dict[str, str], title: str
) -> None:
    """Keys may be any text: blanks, `#`, `=`, quotes, line ends."""
    path = tmp_path_factory.mktemp("table") / "t.quant"
    weights = {key: LinearWeight(key, 3, 64) for key in assigned}
    write_table(path, weights, assigned, title=title)
    assert read_table(path, weights) == assigned


def test_a_table_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "t.quant"
    path.write_text(TABLE)
    assert list(read_table(path, WEIGHTS).items()) == [
        ("layers.0.up.weight", "w8a16"),
        ("layers.1.up.weight", "w4a16"),
        ("layers.0.down.weight", "f16"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TABLE + "layers.0.up.weight = f16\n", (":6", "stands here twice", "line 3")),
        (TABLE + "layers.0.upp.weight = f16\n", (":6", "no weight", "layers.0.up.weight")),
        (TABLE.replace("f16", "int4"), (":5", "unknown quantization 'int4'")),
        (TABLE.replace("= f16", "f16"), (":5", "no line of a quantization table")),
        (TABLE.replace("= f16", "= f16 w8a16"), (":5", "no line of a quantization table")),
        (TABLE.replace("layers.1", "# layers.1"), ("lacks 1 weights", "layers.1.up.weight")),
        ("\n" + '"\\x" = f16\n', (":2", "no JSON string")),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    path = tmp_path / "t.quant"
    path.write_text(text)
    with pytest.raises(OptionError) as raised:
        read_table(path, WEIGHTS)
    message = str(raised.value)
    assert f"{path}" in message
    for each in said:
        assert each in message


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        read_table(tmp_path / "none", WEIGHTS)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="cannot be read"):
        read_table(tmp_path / "bytes", WEIGHTS)


def test_sizes_in_a_table() -> None:
    weight = LinearWeight("w", 96, 64)
    assert stored_bytes(weight, "f32") == 96 * 64 * 4
    assert stored_bytes(weight, "w8a16") == 96 * (64 + 2)
    assert stored_bytes(weight, "w8a16-g32-zp") == 96 * (64 + 2 * 2 + 2)
    assert stored_bytes(weight, "w4a16-g32") == 96 * (32 + 2 * 2 + 2)
    assert stored_bytes(weight, "w4a16-absmax") == 96 * (32 + 2)
    assert stored_bytes(LinearWeight("w", 5, 7), "w4a16-channel-absmax") == 5 * (4 + 2)
    assert "w = f16  # 96 x 64, 12,288 bytes" in format_table({"w": weight}, {"w": "f16"})


def test_bits_a_weight_leave_a_dense_head_out() -> None:
    weights = {
        "w": LinearWeight("w", 96, 64),
        "head": LinearWeight("head", 500, 64, is_head=True),
    }
    assert bits_per_weight(weights, {"w": "w4a16-absmax", "head": "f16"}) == 4.25
    assert bits_per_weight(weights, {"w": "f16", "head": "f16"}) == 16
    both = {"w": "w4a16-absmax", "head": "w8a16"}
    assert bits_per_weight(weights, both) == pytest.approx((96 * 4.25 + 500 * 8.25) / 596)
