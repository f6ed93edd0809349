"""`fuse-gelu`: both forms of GELU are recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseGELUPass(RulePass):
    """Recognize GELU where it is spelled out, by erf or by tanh.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %z = top.MulConst %x {value = 0.707106769 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
      %e = top.Erf %z : tensor<4x8xf32> -> tensor<4x8xf32>
      %a = top.AddConst %e {value = 1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
      %p = top.Mul %x, %a : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.MulConst %p {value = 0.5 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.GELU %x approximate none : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that the forms that PyTorch and
    ONNX exporters write are one op; constants count as theirs up to a few roundings of f32. The
    tanh form is Hendrycks and Gimpel's (arXiv 1606.08415).

    ```rules
    /// (x * (1 + erf(x / sqrt 2))) / 2
    rule GELUOfHalvedProduct {
      match {
        e = top.AddConst(top.Erf(top.MulConst(x) {value: s})) {value: 1.0}
        y = top.MulConst(top.Mul(x, e)) {value: 0.5}
      }
      where approx(s, sqrt(0.5))
      replace y with top.GELU(x) {approximate: "none"}
    }

    /// (x / 2) * (1 + erf(x / sqrt 2))
    rule GELUOfHalvedFactor {
      match {
        e = top.AddConst(top.Erf(top.MulConst(x) {value: s})) {value: 1.0}
        y = top.Mul(top.MulConst(x) {value: 0.5}, e)
      }
      where approx(s, sqrt(0.5))
      replace y with top.GELU(x) {approximate: "none"}
    }

    /// (x * (1 + tanh(c (x + 0.044715 x^3)))) / 2
    rule TanhGELUOfHalvedProduct {
      match {
        cube = top.Mul(x, top.Mul(x, x))
        u = top.MulConst(top.Add(x, top.MulConst(cube) {value: k})) {value: c}
        y = top.MulConst(top.Mul(x, top.AddConst(top.Tanh(u)) {value: 1.0})) {value: 0.5}
      }
      where approx(k, 0.044715) and approx(c, 0.7978845608028654)
      replace y with top.GELU(x) {approximate: "tanh"}
    }

    /// (x / 2) * (1 + tanh(c (x + 0.044715 x^3)))
    rule TanhGELUOfHalvedFactor {
      match {
        cube = top.Mul(x, top.Mul(x, x))
        u = top.MulConst(top.Add(x, top.MulConst(cube) {value: k})) {value: c}
        y = top.Mul(top.MulConst(x) {value: 0.5}, top.AddConst(top.Tanh(u)) {value: 1.0})
      }
      where approx(k, 0.044715) and approx(c, 0.7978845608028654)
      replace y with top.GELU(x) {approximate: "tanh"}
    }
    ```
    """

    name = "fuse-gelu"
