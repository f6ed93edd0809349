"""Between a kernel function, its `bdc.program` op and what the machine takes."""

from __future__ import annotations

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import DictionaryAttr, StringAttr

from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD
from tilewright.backends.program import Access, Kernel, KernelArgument
from tilewright.dialects.bdc.program import AccessMode, ArgumentAttr, ProgramOp
from tilewright.dialects.errors import IRError
from tilewright.dialects.scopes import where_of
from tilewright.passes.kernels.commands import global_type

_ACCESS: dict[AccessMode, Access] = {
    AccessMode.READ: "read",
    AccessMode.WRITE: "write",
    AccessMode.UPDATE: "update",
}


def kernel_of(program: ProgramOp) -> Kernel:
    """The kernel that a `bdc.program` holds. Raises `IRError` where its records are cut."""
    records = {
        engine: attribute.data
        for engine, attribute in (("gdma", program.gdma), ("bdc", program.bdc))
    }
    for engine, data in records.items():
        if len(data) % GDMA_RECORD.itemsize:
            raise IRError(
                f"the {engine} records of @{program.sym_name.data} are cut",
                where=where_of(program),
                why=f"{len(data)} bytes are no multiple of {GDMA_RECORD.itemsize}",
            )
    return Kernel(
        name=program.sym_name.data,
        op=program.op.data,
        arguments=tuple(
            KernelArgument(
                rows=argument.view.rows,
                cols=argument.view.cols,
                element=argument.view.element,
                pitch_bytes=argument.view.pitch_bytes,
                access=_ACCESS[argument.access],
            )
            for argument in program.arguments
        ),
        gdma=np.frombuffer(records["gdma"], GDMA_RECORD),
        bdc=np.frombuffer(records["bdc"], BDC_RECORD),
        local_bytes=program.local_bytes.value.data,
    )


def arguments_of(kernel: func.FuncOp) -> list[ArgumentAttr]:
    """The arguments of a kernel function; raises `IRError` for one that does not say its access."""
    values = kernel.body.block.args
    attributes = [*kernel.arg_attrs] if kernel.arg_attrs is not None else []
    if len(attributes) != len(values):
        attributes = [DictionaryAttr({})] * len(values)
    return [
        ArgumentAttr.of(_access(kernel, number, attribute), global_type(value))
        for number, (value, attribute) in enumerate(zip(values, attributes, strict=True))
    ]


def _access(kernel: func.FuncOp, number: int, attributes: DictionaryAttr) -> AccessMode:
    access = attributes.data.get("tpu.access")
    if not isinstance(access, StringAttr) or access.data not in list(AccessMode):
        raise IRError(
            f"argument {number} of the kernel @{kernel.sym_name.data} does not say its access",
            where=where_of(kernel),
            hint='tpu.access is "read", "write" or "update"',
        )
    return AccessMode(access.data)


def op_of(kernel: func.FuncOp) -> str:
    """The op that a kernel computes: its attribute `tpu.op`; where it has none, its name."""
    op = kernel.attributes.get("tpu.op")
    return op.data if isinstance(op, StringAttr) else kernel.sym_name.data
