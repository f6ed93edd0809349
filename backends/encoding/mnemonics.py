"""What commands are called in listings, errors and time reports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.backends.encoding.records import (
    BdcOpcode,
    BinaryCode,
    CodeCode,
    GdmaOpcode,
    Records,
    ReduceCode,
    UnaryCode,
)


def _dequant_name(code: CodeCode) -> str:
    return "dequant" if code == CodeCode.I8 else f"dequant_{code.name.lower()}"


GDMA_MNEMONICS: dict[int, str] = {int(code): code.name.lower() for code in GdmaOpcode}
"""Opcode of a GDMA command to its name."""

BDC_MNEMONICS: dict[tuple[int, int], str] = (
    {
        (int(code), 0): code.name.lower()
        for code in BdcOpcode
        if code not in (BdcOpcode.UNARY, BdcOpcode.BINARY, BdcOpcode.REDUCE, BdcOpcode.DEQUANT)
    }
    | {(int(BdcOpcode.DEQUANT), int(code)): _dequant_name(code) for code in CodeCode}
    | {(int(BdcOpcode.UNARY), int(code)): code.name.lower() for code in UnaryCode}
    | {(int(BdcOpcode.BINARY), int(code)): code.name.lower() for code in BinaryCode}
    | {(int(BdcOpcode.REDUCE), int(code)): f"reduce_{code.name.lower()}" for code in ReduceCode}
)
"""Opcode and function of a BDC command to its name."""

GDMA_OPCODES: dict[str, int] = {name: code for code, name in GDMA_MNEMONICS.items()}
BDC_OPCODES: dict[str, tuple[int, int]] = {name: code for code, name in BDC_MNEMONICS.items()}


def gdma_mnemonic(opcode: int) -> str:
    """The name of a GDMA opcode; `op7` for a code that is none."""
    return GDMA_MNEMONICS.get(opcode, f"op{opcode}")


def bdc_mnemonic(opcode: int, function: int) -> str:
    """The name of a BDC opcode and function; `op9.0` for codes that are none."""
    return BDC_MNEMONICS.get((opcode, function), f"op{opcode}.{function}")


def gdma_kinds(records: Records) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The names that occur in a GDMA queue, and for each command which of them it is."""
    codes, which = np.unique(records["opcode"], return_inverse=True)
    return [gdma_mnemonic(int(code)) for code in codes], which


def bdc_kinds(records: Records) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The names that occur in a BDC queue, and for each command which of them it is."""
    packed = records["opcode"].astype(np.int64) * 256 + records["function"]
    codes, which = np.unique(packed, return_inverse=True)
    return [bdc_mnemonic(*divmod(int(code), 256)) for code in codes], which
