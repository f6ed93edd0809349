// RUN: tw opt %s -p fuse-silu | filecheck %s

func.func @swapped(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.Sigmoid %x : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %s, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @swapped
// CHECK:       %[[Y:.*]] = top.SiLU %x
// CHECK-NEXT:  func.return %[[Y]]

func.func @spelled_out(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %n = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
  %e = top.Exp %n : tensor<4x8xf32> -> tensor<4x8xf32>
  %d = top.AddConst %e {value = 1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
  %s = top.Reciprocal %d : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %x, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @spelled_out
// CHECK:       %[[Y:.*]] = top.SiLU %x
// CHECK-NEXT:  func.return %[[Y]]

// Another value's sigmoid is a gate, no SiLU.
func.func @gate(%x: tensor<4x8xf32>, %z: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.Sigmoid %z : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Mul %x, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @gate
// CHECK:       top.Sigmoid %z
// CHECK-NEXT:  top.Mul
