// RUN: tw opt %s -p fuse-rms-norm | filecheck %s

func.func @with_sqrt(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %q = top.Mul %x, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %m = top.Reduce mean %q : tensor<4x8xf32> -> tensor<4x1xf32>
  %a = top.AddConst %m {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
  %r = top.Sqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
  %y = top.Div %x, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @with_sqrt
// CHECK:       %[[Y:.*]] = top.RMSNorm %x {eps = 1.000000e-05 : f32}
// CHECK-NEXT:  func.return %[[Y]]

// A sum is no mean.
func.func @of_sum(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %q = top.Mul %x, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %m = top.Reduce sum %q : tensor<4x8xf32> -> tensor<4x1xf32>
  %a = top.AddConst %m {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
  %r = top.Rsqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
  %y = top.Mul %x, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @of_sum
// CHECK:       top.Rsqrt

// A factor for each row is no weight.
func.func @row_factor(%x: tensor<4x8xf32>, %s: tensor<4x1xf32>) -> tensor<4x8xf32> {
  %n = top.RMSNorm %x {eps = 1.0e-05 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %n, %s : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @row_factor
// CHECK:       top.RMSNorm %x {eps
// CHECK-NEXT:  top.Mul
