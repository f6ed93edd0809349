// RUN: tw opt %s -p fuse-swiglu | filecheck %s

func.func @swapped(%g: tensor<4x8xf32>, %u: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.SiLU %g : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %u, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @swapped
// CHECK:       %[[Y:.*]] = top.SwiGLU %g, %u
// CHECK-NEXT:  func.return %[[Y]]

// A factor for each row is no other half.
func.func @row_factor(%g: tensor<4x8xf32>, %u: tensor<4x1xf32>) -> tensor<4x8xf32> {
  %s = top.SiLU %g : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %s, %u : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @row_factor
// CHECK:       top.SiLU
// CHECK-NEXT:  top.Mul
