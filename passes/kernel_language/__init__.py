"""Kernels in Python, in the manner of Triton: a function over tiles of tensors in global memory.

```python
from tilewright.passes import kernel_language as tk

@tk.kernel(GatedRMSNormOp)
def gated_rms_norm(op, x, gate, weight, y, chip):
    rows = tk.fit_rows(x, gate, y, chip=chip, replicated=[weight])
    w = tk.load(weight, replicated=True)
    for row in tk.range(0, x.rows, rows):
        t = x[row : row + rows, :].load()
        g = gate[row : row + rows, :].load()
        r = tk.rsqrt(tk.mean(t * t) + 1e-5)
        y[row : row + rows, :] = tk.cast(t * r * w * tk.silu(g), y.dtype)
```

The function runs once, when a model with the op is compiled, and what it does is recorded as the
loop nest of a kernel in `gdma` and `bdc`; from there on the kernel is like the compiler's own:
pipelined, allocated, waited and checked by the same passes (docs/kernel_language.md).

`tensors` are in global memory, `tiles` in local memory; `functions` compute on tiles, `loops` run
on the machine, `fitting` chooses sizes, `attach` connects kernel and op, `checking` runs a kernel
against its op's reference.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tilewright.dialects.element_types import BF16 as bf16  # a type, as numpy spells its types
from tilewright.dialects.element_types import F16 as f16
from tilewright.dialects.element_types import F32 as f32
from tilewright.dialects.element_types import I8 as i8
from tilewright.dialects.element_types import I32 as i32
from tilewright.passes.kernel_language.attach import Kernel, kernel
from tilewright.passes.kernel_language.fitting import fit_rows, fit_tile, flatten
from tilewright.passes.kernel_language.functions import (
    absolute,
    accumulate,
    cast,
    dequant,
    dot,
    erf,
    exp,
    full,
    gelu,
    local,
    maximum,
    minimum,
    reciprocal,
    relu,
    rotate,
    rsqrt,
    sigmoid,
    silu,
    sqrt,
    tanh,
    transpose,
    zeros,
)
from tilewright.passes.kernel_language.functions import row_max as max
from tilewright.passes.kernel_language.functions import row_mean as mean
from tilewright.passes.kernel_language.functions import row_min as min
from tilewright.passes.kernel_language.functions import row_sum as sum
from tilewright.passes.kernel_language.indexes import Index
from tilewright.passes.kernel_language.loops import Range as range
from tilewright.passes.kernel_language.matmul import matmul
from tilewright.passes.kernel_language.tensors import Tensor, Window, load, store
from tilewright.passes.kernel_language.tiles import Local, Tile

if TYPE_CHECKING:
    from tilewright.passes.kernel_language.checking import Built, Checked, build, check, trace

__all__ = [
    "Built",
    "Checked",
    "Index",
    "Kernel",
    "Local",
    "Tensor",
    "Tile",
    "Window",
    "absolute",
    "accumulate",
    "bf16",
    "build",
    "cast",
    "check",
    "dequant",
    "dot",
    "erf",
    "exp",
    "f16",
    "f32",
    "fit_rows",
    "fit_tile",
    "flatten",
    "full",
    "gelu",
    "i8",
    "i32",
    "kernel",
    "load",
    "local",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "range",
    "reciprocal",
    "relu",
    "rotate",
    "rsqrt",
    "sigmoid",
    "silu",
    "sqrt",
    "store",
    "sum",
    "tanh",
    "trace",
    "transpose",
    "zeros",
]

_CHECKING = ("Built", "Checked", "build", "check", "trace")


def __getattr__(name: str) -> object:
    """What checks kernels, imported when it is asked for: it brings the simulator."""
    if name not in _CHECKING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.checking"), name)
