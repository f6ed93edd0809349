"""The Python DSL: models and blocks as traced functions and modules over typed tensors.

```python
from tilewright.compiler import dsl

@dsl.function(x=dsl.f32(8, 64))
def main(x):
    return dsl.silu(norm(x)) * 2.0

module = dsl.trace(main)
```

`tensor` has the operands and their operators, `ops` the other ops, `module` the modules, `entry`
functions and `trace`.
"""

from tilewright.compiler.dsl.custom import CustomOp, custom_op
from tilewright.compiler.dsl.entry import ArgumentType, Function, f32, function, i32, trace
from tilewright.compiler.dsl.module import Embedding, LayerNorm, Linear, Module, RMSNorm
from tilewright.compiler.dsl.ops import (
    absolute,
    attention,
    batch_matmul,
    cache_update,
    cast,
    concat,
    erf,
    exp,
    gather,
    gelu,
    layer_norm,
    linear,
    reciprocal,
    reduce,
    relu,
    rms_norm,
    rope,
    rsqrt,
    sigmoid,
    silu,
    softmax,
    sqrt,
    tanh,
)
from tilewright.compiler.dsl.tensor import (
    Leaf,
    Operand,
    Parameter,
    State,
    Table,
    Tensor,
    add,
    divide,
    matmul,
    maximum,
    minimum,
    multiply,
    permute,
    reshape,
    subtract,
)

__all__ = [
    "ArgumentType",
    "CustomOp",
    "Embedding",
    "Function",
    "LayerNorm",
    "Leaf",
    "Linear",
    "Module",
    "Operand",
    "Parameter",
    "RMSNorm",
    "State",
    "Table",
    "Tensor",
    "absolute",
    "add",
    "attention",
    "batch_matmul",
    "cache_update",
    "cast",
    "concat",
    "custom_op",
    "divide",
    "erf",
    "exp",
    "f32",
    "function",
    "gather",
    "gelu",
    "i32",
    "layer_norm",
    "linear",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "permute",
    "reciprocal",
    "reduce",
    "relu",
    "reshape",
    "rms_norm",
    "rope",
    "rsqrt",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "subtract",
    "tanh",
    "trace",
]
