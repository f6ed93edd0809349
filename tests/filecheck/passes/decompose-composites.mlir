// RUN: tw opt %s -p 'decompose-composites{all=true}' | filecheck %s
// RUN: tw opt %s -p decompose-composites | filecheck %s --check-prefix KERNEL

// Computed in f32 and rounded once, as the op is.
func.func @swiglu(%gate : tensor<4x64xf16>, %up : tensor<4x64xf16>) -> tensor<4x64xf16> {
  %y = tpu.SwiGLU %gate, %up : tensor<4x64xf16>, tensor<4x64xf16> -> tensor<4x64xf16>
  func.return %y : tensor<4x64xf16>
}
// CHECK-LABEL: @swiglu
// CHECK-NEXT:    %[[GATE:.*]] = tpu.Cast %gate : tensor<4x64xf16> -> tensor<4x64xf32>
// CHECK-NEXT:    %[[SILU:.*]] = tpu.SiLU %[[GATE]]
// CHECK-NEXT:    %[[UP:.*]] = tpu.Cast %up : tensor<4x64xf16> -> tensor<4x64xf32>
// CHECK-NEXT:    %[[PRODUCT:.*]] = tpu.Mul %[[SILU]], %[[UP]]
// CHECK-NEXT:    %y = tpu.Cast %[[PRODUCT]] : tensor<4x64xf32> -> tensor<4x64xf16>
// CHECK-NEXT:    func.return %y

// An op with a kernel stays.
// KERNEL-LABEL: @swiglu
// KERNEL-NEXT:    tpu.SwiGLU
