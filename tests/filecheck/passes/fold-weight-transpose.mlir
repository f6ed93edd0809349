// RUN: tw opt %s -p fold-weight-transpose | filecheck %s

func.func @back(%x: tensor<4x8xf32>, %b: tensor<3xf32>) -> tensor<4x3xf32> {
  %w = top.Weight "w" : tensor<8x3xf32>
  %t = top.Permute %w {order = array<i64: 1, 0>} : tensor<8x3xf32> -> tensor<3x8xf32>
  %y = top.MatMul %x, %t bias %b {right_transpose} :
    tensor<4x8xf32>, tensor<3x8xf32>, tensor<3xf32> -> tensor<4x3xf32>
  func.return %y : tensor<4x3xf32>
}
// CHECK-LABEL: @back
// CHECK:       %[[W:.*]] = top.Weight "w" : tensor<8x3xf32>
// CHECK-NEXT:  %[[Y:.*]] = top.MatMul %x, %[[W]] bias %b :
// CHECK-NEXT:  func.return %[[Y]]

// The order that changes nothing is no transpose.
func.func @in_order(%x: tensor<4x8xf32>, %w: tensor<8x8xf32>) -> tensor<4x8xf32> {
  %t = top.Permute %w {order = array<i64: 0, 1>} : tensor<8x8xf32> -> tensor<8x8xf32>
  %y = top.MatMul %x, %t : tensor<4x8xf32>, tensor<8x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @in_order
// CHECK:       top.Permute
