// RUN: tw opt %s -p fuse-bias | filecheck %s

// The product takes the place, the location and the marks of both.
func.func @fused(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
  %w = top.Weight "w" : tensor<3x8xf32>
  %b = top.Weight "b" : tensor<3xf32>
  %m = top.MatMul %x, %w {right_transpose, top.role = "head"} :
    tensor<4x8xf32>, tensor<3x8xf32> -> tensor<4x3xf32>
  %y = top.Add %m, %b : tensor<4x3xf32>, tensor<3xf32> -> tensor<4x3xf32>
  func.return %y : tensor<4x3xf32>
}
// CHECK-LABEL: @fused
// CHECK:       %[[M:.*]] = top.MatMul %x, %w bias %b {top.role = "head", right_transpose}
// CHECK-NEXT:  func.return %[[M]]

// A product that is used twice stays, and so does the sum.
func.func @used_twice(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
  %w = top.Weight "w" : tensor<8x3xf32>
  %b = top.Weight "b" : tensor<3xf32>
  %m = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
  %a = top.Add %m, %b : tensor<4x3xf32>, tensor<3xf32> -> tensor<4x3xf32>
  %y = top.Add %a, %m : tensor<4x3xf32>, tensor<4x3xf32> -> tensor<4x3xf32>
  func.return %y : tensor<4x3xf32>
}
// CHECK-LABEL: @used_twice
// CHECK:       %[[M:.*]] = top.MatMul %x, %w :
// CHECK-NEXT:  top.Add %[[M]], %b

// A vector of one number is added to every column: it is no bias.
func.func @one_number(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
  %w = top.Weight "w" : tensor<8x3xf32>
  %b = top.Weight "b" : tensor<1xf32>
  %m = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
  %y = top.Add %m, %b : tensor<4x3xf32>, tensor<1xf32> -> tensor<4x3xf32>
  func.return %y : tensor<4x3xf32>
}
// CHECK-LABEL: @one_number
// CHECK:       top.Add
