"""`tpu` ops that work element by element."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class SiLUOp(TpuOp, graph.UnaryGraphOp):
    """`result = x * sigmoid(x)`; also called swish.

    ```mlir
    %y = tpu.SiLU %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.SiLU"


@irdl_op_definition
class TanhOp(TpuOp, graph.UnaryGraphOp):
    """`result = tanh(x)`.

    ```mlir
    %y = tpu.Tanh %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Tanh"


@irdl_op_definition
class SigmoidOp(TpuOp, graph.UnaryGraphOp):
    """`result = 1 / (1 + exp(-x))`.

    ```mlir
    %y = tpu.Sigmoid %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Sigmoid"


@irdl_op_definition
class ExpOp(TpuOp, graph.UnaryGraphOp):
    """`result = exp(x)`.

    ```mlir
    %y = tpu.Exp %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Exp"


@irdl_op_definition
class SqrtOp(TpuOp, graph.UnaryGraphOp):
    """`result = sqrt(x)`.

    ```mlir
    %y = tpu.Sqrt %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Sqrt"


@irdl_op_definition
class RsqrtOp(TpuOp, graph.UnaryGraphOp):
    """`result = 1 / sqrt(x)`.

    ```mlir
    %y = tpu.Rsqrt %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Rsqrt"


@irdl_op_definition
class ReciprocalOp(TpuOp, graph.UnaryGraphOp):
    """`result = 1 / x`.

    ```mlir
    %y = tpu.Reciprocal %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Reciprocal"


@irdl_op_definition
class NegOp(TpuOp, graph.UnaryGraphOp):
    """`result = -x`.

    ```mlir
    %y = tpu.Neg %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Neg"


@irdl_op_definition
class AbsOp(TpuOp, graph.UnaryGraphOp):
    """`result = |x|`.

    ```mlir
    %y = tpu.Abs %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Abs"


@irdl_op_definition
class ErfOp(TpuOp, graph.UnaryGraphOp):
    """`result = erf(x)`, the error function.

    ```mlir
    %y = tpu.Erf %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Erf"


@irdl_op_definition
class ReluOp(TpuOp, graph.UnaryGraphOp):
    """`result = max(x, 0)`.

    ```mlir
    %y = tpu.Relu %x : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Relu"


@irdl_op_definition
class GELUOp(TpuOp, graph.Gelu):
    """Gaussian error linear unit.

    ```mlir
    %y = tpu.GELU %x approximate tanh : tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.GELU"


@irdl_op_definition
class AddOp(TpuOp, graph.BinaryGraphOp):
    """`result = a + b`.

    ```mlir
    %y = tpu.Add %a, %b :
      tensor<512x4096xf16>, tensor<4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Add"


@irdl_op_definition
class SubOp(TpuOp, graph.BinaryGraphOp):
    """`result = a - b`.

    ```mlir
    %y = tpu.Sub %a, %b :
      tensor<512x4096xf16>, tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Sub"


@irdl_op_definition
class MulOp(TpuOp, graph.BinaryGraphOp):
    """`result = a * b`.

    ```mlir
    %y = tpu.Mul %a, %b :
      tensor<512x13696xf16>, tensor<512x13696xf16> -> tensor<512x13696xf16>
    ```
    """

    name = "tpu.Mul"


@irdl_op_definition
class DivOp(TpuOp, graph.BinaryGraphOp):
    """`result = a / b`.

    ```mlir
    %y = tpu.Div %a, %b :
      tensor<512x4096xf16>, tensor<512x1xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Div"


@irdl_op_definition
class MaxOp(TpuOp, graph.BinaryGraphOp):
    """`result = max(a, b)`.

    ```mlir
    %y = tpu.Max %a, %b :
      tensor<512x4096xf16>, tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Max"


@irdl_op_definition
class MinOp(TpuOp, graph.BinaryGraphOp):
    """`result = min(a, b)`.

    ```mlir
    %y = tpu.Min %a, %b :
      tensor<512x4096xf16>, tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Min"


@irdl_op_definition
class AddConstOp(TpuOp, graph.ConstGraphOp):
    """`result = x + value`.

    ```mlir
    %y = tpu.AddConst %x {value = 1.000000e+00 : f32} :
      tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.AddConst"


@irdl_op_definition
class MulConstOp(TpuOp, graph.ConstGraphOp):
    """`result = x * value`.

    ```mlir
    %y = tpu.MulConst %x {value = 1.250000e-01 : f32} :
      tensor<512x4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.MulConst"
