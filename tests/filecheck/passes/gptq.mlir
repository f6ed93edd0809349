// RUN: not tw opt %s -p gptq 2>&1 | filecheck %s

// The pass changes weights, which IR does not hold: without weights and a calibration it says so.
func.func @f(%x: tensor<4x64xf32>) -> tensor<4x32xf32> {
  %w = top.Weight "proj.weight" : tensor<32x64xf32>
  %y = top.MatMul %x, %w {right_transpose} : tensor<4x64xf32>, tensor<32x64xf32> -> tensor<4x32xf32>
  func.return %y : tensor<4x32xf32>
}
// CHECK:      gptq has no weights and no calibration to work on
// CHECK-NEXT: where: pass gptq
// CHECK:      hint: tw calibrate MODEL
// CHECK-SAME: --tune gptq
