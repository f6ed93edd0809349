// RUN: tw opt %s -p simplify-arithmetic | filecheck %s

func.func @root(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %s = top.Sqrt %x : tensor<4x8xf32> -> tensor<4x8xf32>
  %y = top.Reciprocal %s : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @root
// CHECK:       %[[Y:.*]] = top.Rsqrt %x
// CHECK-NEXT:  func.return %[[Y]]

// What broadcasts cannot change places.
func.func @broadcast(%x: tensor<4x8xf32>, %z: tensor<8xf32>) -> tensor<4x8xf32> {
  %d = top.Sub %x, %z : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  %y = top.Neg %d : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
// CHECK-LABEL: @broadcast
// CHECK:       top.Sub
// CHECK-NEXT:  top.Neg
