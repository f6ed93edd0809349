"""`top` ops that work element by element."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class SiLUOp(TopOp, graph.UnaryGraphOp):
    """`result = x * sigmoid(x)`; also called swish.

    ```mlir
    %y = top.SiLU %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.SiLU"


@irdl_op_definition
class TanhOp(TopOp, graph.UnaryGraphOp):
    """`result = tanh(x)`.

    ```mlir
    %y = top.Tanh %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Tanh"


@irdl_op_definition
class SigmoidOp(TopOp, graph.UnaryGraphOp):
    """`result = 1 / (1 + exp(-x))`.

    ```mlir
    %y = top.Sigmoid %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Sigmoid"


@irdl_op_definition
class ExpOp(TopOp, graph.UnaryGraphOp):
    """`result = exp(x)`.

    ```mlir
    %y = top.Exp %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Exp"


@irdl_op_definition
class SqrtOp(TopOp, graph.UnaryGraphOp):
    """`result = sqrt(x)`.

    ```mlir
    %y = top.Sqrt %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Sqrt"


@irdl_op_definition
class RsqrtOp(TopOp, graph.UnaryGraphOp):
    """`result = 1 / sqrt(x)`.

    ```mlir
    %y = top.Rsqrt %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Rsqrt"


@irdl_op_definition
class ReciprocalOp(TopOp, graph.UnaryGraphOp):
    """`result = 1 / x`.

    ```mlir
    %y = top.Reciprocal %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Reciprocal"


@irdl_op_definition
class NegOp(TopOp, graph.UnaryGraphOp):
    """`result = -x`.

    ```mlir
    %y = top.Neg %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Neg"


@irdl_op_definition
class AbsOp(TopOp, graph.UnaryGraphOp):
    """`result = |x|`.

    ```mlir
    %y = top.Abs %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Abs"


@irdl_op_definition
class ErfOp(TopOp, graph.UnaryGraphOp):
    """`result = erf(x)`, the error function.

    ```mlir
    %y = top.Erf %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Erf"


@irdl_op_definition
class ReluOp(TopOp, graph.UnaryGraphOp):
    """`result = max(x, 0)`.

    ```mlir
    %y = top.Relu %x : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Relu"


@irdl_op_definition
class GELUOp(TopOp, graph.Gelu):
    """Gaussian error linear unit.

    ```mlir
    %y = top.GELU %x approximate tanh : tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.GELU"


@irdl_op_definition
class AddOp(TopOp, graph.BinaryGraphOp):
    """`result = a + b`.

    ```mlir
    %y = top.Add %a, %b :
      tensor<512x4096xf32>, tensor<4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Add"


@irdl_op_definition
class SubOp(TopOp, graph.BinaryGraphOp):
    """`result = a - b`.

    ```mlir
    %y = top.Sub %a, %b :
      tensor<512x4096xf32>, tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Sub"


@irdl_op_definition
class MulOp(TopOp, graph.BinaryGraphOp):
    """`result = a * b`.

    ```mlir
    %y = top.Mul %a, %b :
      tensor<512x13696xf32>, tensor<512x13696xf32> -> tensor<512x13696xf32>
    ```
    """

    name = "top.Mul"


@irdl_op_definition
class DivOp(TopOp, graph.BinaryGraphOp):
    """`result = a / b`.

    ```mlir
    %y = top.Div %a, %b :
      tensor<512x4096xf32>, tensor<512x1xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Div"


@irdl_op_definition
class MaxOp(TopOp, graph.BinaryGraphOp):
    """`result = max(a, b)`.

    ```mlir
    %y = top.Max %a, %b :
      tensor<512x4096xf32>, tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Max"


@irdl_op_definition
class MinOp(TopOp, graph.BinaryGraphOp):
    """`result = min(a, b)`.

    ```mlir
    %y = top.Min %a, %b :
      tensor<512x4096xf32>, tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Min"


@irdl_op_definition
class AddConstOp(TopOp, graph.ConstGraphOp):
    """`result = x + value`.

    ```mlir
    %y = top.AddConst %x {value = 1.000000e+00 : f32} :
      tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.AddConst"


@irdl_op_definition
class MulConstOp(TopOp, graph.ConstGraphOp):
    """`result = x * value`.

    ```mlir
    %y = top.MulConst %x {value = 1.250000e-01 : f32} :
      tensor<512x4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.MulConst"
