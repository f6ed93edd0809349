"""Commands as text, and back.

One line a command, the GDMA queue before the BDC queue:

    gdma 1 load 384x4096xi8 local=0/4096 global=1+0/4096
    gdma 2 gather 16x4096xf16 local=0/8192 global=0+0/8192 index=2+64 table=65024 wait=3
    bdc 1 dequant 384x4096 dst=f16:65536/8192 a=i8:0/4096 b=f16:24576/64 wait=1
    bdc 2 dequant_u4 64x256 dst=f16:0/512 a=i8:512/128 b=f16:640/64 c=i8:704/64 group=64
    bdc 3 mm 384x1x4096 dst=f16:0/64 a=f16:65536/8192 b=f16:131072/8192 transpose_right
    bdc 4 mul 64x512 dst=f32:0/2048 a=f32:0/2048 immediate=0.125

Engine, id, name; rows x columns (x depth of an mm, x element type of a GDMA command); then
`offset/stride` of tiles, `argument+offset/pitch` of global memory, flags, and `wait`, the id of the
other engine. Fields that a command does not use are not shown unless they are set, as hexadecimal
bytes (`raw.depth=07000000`): `assemble` is the exact inverse of `disassemble` for any record. `//`
begins a comment.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tilewright.backends.encoding.mnemonics import (
    BDC_OPCODES,
    GDMA_OPCODES,
    bdc_mnemonic,
    gdma_mnemonic,
)
from tilewright.backends.encoding.operands import OPERANDS, OperandName
from tilewright.backends.encoding.records import (
    BDC_RECORD,
    GDMA_RECORD,
    BdcFlag,
    BdcOpcode,
    BMode,
    GdmaOpcode,
    Records,
)
from tilewright.backends.program import Kernel
from tilewright.dialects.element_types import ELEMENT_TYPES
from tilewright.dialects.errors import SimulationError

_ELEMENT_NAMES = {element.code: element.name for element in ELEMENT_TYPES}
_ELEMENT_CODES = {element.name: element.code for element in ELEMENT_TYPES}
_FLAGS = {flag.name.lower(): int(flag) for flag in BdcFlag if flag != BdcFlag.ZERO_POINT}
_MODES = {"row": int(BMode.ROW), "column": int(BMode.COLUMN)}
_INDEXED = (GdmaOpcode.GATHER, GdmaOpcode.SCATTER)
_PARTS: tuple[OperandName, ...] = ("dst", "a", "b")

_TILE = re.compile(r"(\d+)/(\d+)")
_OPERAND = re.compile(r"(\w+):(\d+)/(\d+)")
_VIEW = re.compile(r"(\d+)\+(\d+)/(\d+)")
_INDEX = re.compile(r"(\d+)\+(\d+)")
_NUMBER = re.compile(r"\d+")


def disassemble(kernel: Kernel) -> str:
    """A listing of both queues of a kernel."""
    lines = [f"// {kernel.name}: {kernel.op}"]
    for number, argument in enumerate(kernel.arguments):
        shape = f"{argument.rows}x{argument.cols}x{argument.element.name}"
        lines.append(f"// {number}: {shape} pitch {argument.pitch_bytes} {argument.access}")
    lines += [gdma_text(record) for record in kernel.gdma]
    lines += [bdc_text(record) for record in kernel.bdc]
    return "\n".join(lines) + "\n"


def assemble(text: str) -> tuple[Records, Records]:
    """The GDMA and BDC records of a listing.

    Raises `SimulationError` naming the line that is not a command.
    """
    gdma: list[Any] = []
    bdc: list[Any] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("//")[0].split()
        if not words:
            continue
        try:
            if words[0] not in ("gdma", "bdc"):
                raise ValueError(f"{words[0]!r} is no engine: gdma or bdc")
            if words[0] == "gdma":
                gdma.append(_parse_gdma(words[1:]))
            else:
                bdc.append(_parse_bdc(words[1:]))
        except (ValueError, OverflowError, IndexError) as error:
            raise SimulationError(
                "not a command", where=f"line {number}: {line.strip()}", why=str(error)
            ) from error
    return _stack(gdma, GDMA_RECORD), _stack(bdc, BDC_RECORD)


def gdma_text(record: Any) -> str:
    """One GDMA record as a line of a listing."""
    element = _element_name(int(record["element"]))
    words = [
        f"gdma {record['id']} {gdma_mnemonic(int(record['opcode']))}",
        f"{record['rows']}x{record['cols']}x{element}",
        f"local={record['local_offset']}/{record['local_stride']}",
        f"global={record['argument']}+{record['global_offset']}/{record['pitch']}",
    ]
    if record["opcode"] in _INDEXED:
        words.append(f"index={record['index_argument']}+{record['index_offset']}")
        words.append(f"table={record['table_rows']}")
    return _finish(words, record, _parse_gdma)


def bdc_text(record: Any) -> str:
    """One BDC record as a line of a listing."""
    opcode, mode = int(record["opcode"]), int(record["b_mode"])
    depth = f"x{record['depth']}" if opcode == BdcOpcode.MM else ""
    words = [
        f"bdc {record['id']} {bdc_mnemonic(opcode, int(record['function']))}",
        f"{record['rows']}x{record['cols']}{depth}",
    ]
    immediate = opcode == BdcOpcode.FILL or (opcode == BdcOpcode.BINARY and mode == BMode.IMMEDIATE)
    operands: dict[int, tuple[str, ...]] = {
        int(BdcOpcode.MM): _PARTS,
        int(BdcOpcode.DEQUANT): _PARTS,
        int(BdcOpcode.QUANTIZE): _PARTS,
        int(BdcOpcode.DEQUANTIZE): _PARTS,
        int(BdcOpcode.REQUANT): _PARTS,
        int(BdcOpcode.BINARY): _PARTS[:2] if immediate else _PARTS,
        int(BdcOpcode.FILL): _PARTS[:1],
    }
    parts = operands.get(opcode, _PARTS[:2])
    for part in parts:
        element = _element_name(int(record[f"{part}_element"]))
        words.append(f"{part}={element}:{record[part]['offset']}/{record[part]['stride']}")
    if opcode == BdcOpcode.DEQUANT and int(record["flags"]) & BdcFlag.ZERO_POINT:
        words.append(f"c=i8:{record['c']['offset']}/{record['c']['stride']}")
    if opcode == BdcOpcode.DEQUANT and record["depth"]:
        words.append(f"group={record['depth']}")
    if opcode == BdcOpcode.BINARY:
        words += [name for name, code in _MODES.items() if code == mode]
    if immediate:
        words.append(f"immediate={record['immediate']!s}")
    if opcode == BdcOpcode.ROTATE:
        words.append(f"turned={record['depth']}")
    words += [name for name, bit in _FLAGS.items() if int(record["flags"]) & bit]
    return _finish(words, record, _parse_bdc)


def _finish(words: list[str], record: Any, parse: Any) -> str:
    """Add the wait, and every field that the words so far do not tell."""
    if record["wait"]:
        words.append(f"wait={record['wait']}")
    told = _flat(parse(" ".join(words).split()[1:]))
    for name, value in _flat(record).items():
        if told[name] != value:
            words.append(f"raw.{name}={value.hex()}")
    return " ".join(words)


def _parse_gdma(words: list[str]) -> Any:
    record = np.zeros((), GDMA_RECORD)
    number, name, shape = words[:3]
    record["id"], record["opcode"] = int(number), _gdma_opcode(name)
    rows, cols, element = _shape(shape, 3)
    record["rows"], record["cols"], record["element"] = rows, cols, _element_code(element)
    for word in words[3:]:
        key, _, value = word.partition("=")
        if key == "local":
            record["local_offset"], record["local_stride"] = _match(_TILE, value)
        elif key == "global":
            record["argument"], record["global_offset"], record["pitch"] = _match(_VIEW, value)
        elif key == "index":
            record["index_argument"], record["index_offset"] = _match(_INDEX, value)
        elif key == "table":
            (record["table_rows"],) = _match(_NUMBER, value)
        else:
            _parse_common(record, key, value)
    return record


def _parse_bdc(words: list[str]) -> Any:
    record = np.zeros((), BDC_RECORD)
    number, name, shape = words[:3]
    code = _bdc_opcode(name)
    record["id"], (record["opcode"], record["function"]) = int(number), code
    dims = _shape(shape, 3 if code[0] == BdcOpcode.MM else 2)
    record["rows"], record["cols"] = dims[:2]
    record["depth"] = dims[2] if len(dims) == 3 else 0
    for word in words[3:]:
        key, _, value = word.partition("=")
        if key in OPERANDS:
            found = _OPERAND.fullmatch(value)
            if found is None:
                raise ValueError(f"{word!r} is no operand: element:offset/stride")
            if key == "c":
                record["flags"] |= np.uint8(_zero_points(found[1]))
            else:
                record[f"{key}_element"] = _element_code(found[1])
            record[key]["offset"], record[key]["stride"] = int(found[2]), int(found[3])
        elif key == "immediate":
            record["immediate"] = np.float32(value)
            record["b_mode"] = BMode.IMMEDIATE if code[0] == BdcOpcode.BINARY else 0
        elif key in ("turned", "group"):
            (record["depth"],) = _match(_NUMBER, value)
        elif word in _MODES:
            record["b_mode"] = _MODES[word]
        elif word in _FLAGS:
            record["flags"] |= np.uint8(_FLAGS[word])
        else:
            _parse_common(record, key, value)
    return record


def _zero_points(element: str) -> int:
    if element != "i8":
        raise ValueError(f"zero points are i8, not {element!r}")
    return BdcFlag.ZERO_POINT


def _parse_common(record: Any, key: str, value: str) -> None:
    if key == "wait":
        (record["wait"],) = _match(_NUMBER, value)
    elif key.startswith("raw."):
        *parts, field = key.split(".")[1:]
        target = record
        for part in parts:
            target = target[part]
        old = target[field]
        data = np.frombuffer(bytes.fromhex(value), old.dtype)
        if data.size != old.size:
            raise ValueError(f"{key} takes {old.nbytes} bytes")
        target[field] = data.reshape(old.shape)
    else:
        raise ValueError(f"{key!r} is no field of this command")


def _flat(record: Any) -> dict[str, bytes]:
    """The bytes of every field, those of operands as `dst.offset`."""
    fields: dict[str, bytes] = {}
    for name in record.dtype.names:
        value = record[name]
        if value.dtype.names:
            fields |= {f"{name}.{inner}": value[inner].tobytes() for inner in value.dtype.names}
        else:
            fields[name] = value.tobytes()
    return fields


def _shape(text: str, count: int) -> list[Any]:
    parts = text.split("x", count - 1)
    if len(parts) != count or not all(part.isdecimal() for part in parts[:2]):
        raise ValueError(f"{text!r} is no shape")
    return [int(part) if part.isdecimal() else part for part in parts]


def _match(pattern: re.Pattern[str], text: str) -> tuple[int, ...]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form {pattern.pattern}")
    return tuple(int(group) for group in found.groups() or (found[0],))


def _element_name(code: int) -> str:
    return _ELEMENT_NAMES.get(code, f"e{code}")


def _element_code(name: Any) -> int:
    if name in _ELEMENT_CODES:
        return _ELEMENT_CODES[name]
    if re.fullmatch(r"e\d+", str(name)):
        return int(str(name)[1:])
    raise ValueError(f"{name!r} is no element type")


def _gdma_opcode(name: str) -> int:
    if name in GDMA_OPCODES:
        return GDMA_OPCODES[name]
    return _match(re.compile(r"op(\d+)"), name)[0]


def _bdc_opcode(name: str) -> tuple[int, int]:
    if name in BDC_OPCODES:
        return BDC_OPCODES[name]
    opcode, function = _match(re.compile(r"op(\d+)\.(\d+)"), name)
    return opcode, function


def _stack(records: list[Any], dtype: np.dtype[Any]) -> Records:
    return np.array(records, dtype=dtype) if records else np.zeros(0, dtype)
