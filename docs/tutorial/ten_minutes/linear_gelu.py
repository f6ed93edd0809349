"""Bias and GELU inside the matrix product: an op, its kernels, and the pass that uses it."""

from tilewright.compiler import dsl
from tilewright.passes import kernel_language as tk
from tilewright.passes.rules.rule_pass import RulePass


@dsl.custom_op("mine.LinearGELU", quantized=("weight",))
def linear_gelu(x, weight, bias):
    return dsl.gelu(dsl.linear(x, weight, bias), approximate="tanh")


@tk.kernel(linear_gelu.tpu)
def kernel(op, x, weight, bias, y, chip):
    tk.matmul(x, weight, None, bias, y, epilogue=lambda t: tk.gelu(t, "tanh"))


@tk.kernel(linear_gelu.w8a16)
def int8_kernel(op, x, codes, scale, bias, y, chip):
    tk.matmul(x, codes, scale, bias, y, epilogue=lambda t: tk.gelu(t, "tanh"))


class FuseLinearGELUPass(RulePass):
    """Compute bias and GELU inside the matrix product.

    ```rules
    rule FuseLinearGELU {
      match {
        product = top.MatMul(x, w) {right_transpose} [uses = 1]
        y = top.GELU(top.Add(product, bias: f32[n])) {approximate: tanh}
      }
      where n == dim(product, -1)
      replace y with mine.LinearGELU(x, w, bias)
    }
    ```
    """

    name = "fuse-linear-gelu"
