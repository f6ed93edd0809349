"""The kernel of SwiGLU, written in the kernel language."""

from __future__ import annotations

from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.passes import kernel_language as tk


@tk.kernel(tpu.SwiGLUOp)
def swiglu(op: Operation, gate: tk.Tensor, up: tk.Tensor, y: tk.Tensor, chip: Chip) -> None:
    """`SiLU(gate) * up`, element by element, so in any shape."""
    del op
    tk.flatten(gate, up, y, chip=chip)
    rows, cols = tk.fit_tile(gate, up, y, chip=chip, temporaries=2, columns=0)
    for row in tk.range(0, gate.rows, rows):
        for col in tk.range(0, gate.cols, cols):
            g = gate[row : row + rows, col : col + cols].load()
            u = up[row : row + rows, col : col + cols].load()
            y[row : row + rows, col : col + cols] = tk.cast(tk.silu(g) * u, y.dtype)
