// RUN: tw opt %s -p fuse-rope | filecheck %s

func.func @other_order(%x: tensor<4x8xf32>, %c: tensor<4x8xf32>, %s: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %low = top.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x8xf32> -> tensor<4x4xf32>
  %high = top.Slice %x {offsets = array<i64: 0, 4>} : tensor<4x8xf32> -> tensor<4x4xf32>
  %n = top.Neg %high : tensor<4x4xf32> -> tensor<4x4xf32>
  %t = top.Concat %n, %low {axis = 1 : i64} : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x8xf32>
  %a = top.Mul %c, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %b = top.Mul %t, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Add %b, %a : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @other_order
// CHECK:       %[[Y:.*]] = top.Rope %x cos %c sin %s
// CHECK-NEXT:  func.return %[[Y]]

// The other half with the sign turns the other way.
func.func @other_way(%x: tensor<4x8xf32>, %c: tensor<4x8xf32>, %s: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %low = top.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x8xf32> -> tensor<4x4xf32>
  %high = top.Slice %x {offsets = array<i64: 0, 4>} : tensor<4x8xf32> -> tensor<4x4xf32>
  %n = top.Neg %low : tensor<4x4xf32> -> tensor<4x4xf32>
  %t = top.Concat %n, %high {axis = 1 : i64} : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x8xf32>
  %a = top.Mul %x, %c : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %b = top.Mul %t, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Add %a, %b : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @other_way
// CHECK:       top.Concat
